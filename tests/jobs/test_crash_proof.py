"""Whatever is killed, the same command carries on and ends where an undisturbed sweep does."""

import random
import time

import psutil
import pytest
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1200)]
PAIRS, TRIALS = "2x2,1x2", 9
RIGHT = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


@pytest.fixture(scope="module")
def calm(sweep_in):
    """An undisturbed sweep, and how long its trials took."""
    sweep = sweep_in("calm")
    process = sweep.start(PAIRS, TRIALS)
    sweep.wait_for_line(process, "trials to run")
    began = time.monotonic()
    sweep.wait_for_line(process, "scoring on the test split")
    sweep.seconds = time.monotonic() - began
    sweep.said_by(process)
    return sweep


def best(trials):
    return {
        pair: min((t[2][0], number) for number, t in of.items() if t[0] == "COMPLETE")
        for pair, of in trials.items()
    }


@pytest.mark.parametrize("seed", [1])
def test_killed_at_five_random_moments(seed, calm, sweep_in):
    draws, sweep = random.Random(seed), sweep_in("chaos")
    for what in ("driver", "everything", "trial", "driver", "everything"):
        process = sweep.start(PAIRS, TRIALS)
        sweep.wait_for_line(process, "trials to run")
        time.sleep(draws.uniform(0.0, 0.6 * calm.seconds))
        assert process.poll() is None, process.log.read_text()[-3000:]
        if what == "trial":
            worker = sweep.busy_worker(process)
            if worker is not None:  # between two trials nothing is at work
                worker.kill()
            time.sleep(draws.uniform(0.0, 5.0))
        if what == "everything":
            sweep.kill_all(process)
        else:
            sweep.kill(process)
    sweep.run(PAIRS, TRIALS)

    expected, got = calm.trials(), sweep.trials()
    assert {pair: sorted(of) for pair, of in got.items()} == {
        pair: sorted(of) for pair, of in expected.items()
    }
    assert got == expected  # states, points, scores and intermediate scores, to the last bit
    assert best(got) == best(expected)
    runs = {
        (run.data.tags["finescale.pair"], int(run.data.params["trial"])): run
        for run in sweep.runs(role="trial")
    }
    assert len(runs) == len(sweep.runs(role="trial")) == sum(map(len, got.values()))
    for pair, of in got.items():
        for number, (state, _, values, rungs) in of.items():
            run = runs[pair, number]
            assert run.info.status == RIGHT[state]
            if state == "COMPLETE":
                assert run.data.metrics["crps"] == values[0]
            history = sweep.client.get_metric_history(run.info.run_id, "rung_crps")
            assert {m.step: m.value for m in history} == rungs
    assert not any(status == "RUNNING" for _, status in sweep.statuses())
    assert list((sweep.output / "unfinished").glob("*")) == []


def test_the_cluster_dies_under_the_driver(sweep_in):
    sweep = sweep_in("cluster")
    process = sweep.start("2x2", 6)
    sweep.wait_for_line(process, "2x2 trial 1: CRPS")
    for one in psutil.Process(process.pid).children(recursive=True):
        if one.name() in ("raylet", "gcs_server"):
            one.kill()
    assert process.wait(timeout=300) != 0
    assert len(sweep.finished()["2x2"]) >= 2
    before = sweep.finished()["2x2"]
    sweep.run("2x2", 6)
    after = sweep.finished()["2x2"]
    assert after.items() >= before.items()
    assert sorted(t for t in sweep.trials()["2x2"]) == list(range(6))
    assert not any(status == "RUNNING" for _, status in sweep.statuses())


def test_mlflow_goes_away_in_mid_sweep(mlflow_server, sweep_in):
    sweep = sweep_in("outage")
    process = sweep.start("2x2", 9, "--tracking-uri", mlflow_server.uri)
    sweep.wait_for_line(process, "2x2 trial 1: ")
    mlflow_server.stop()
    sweep.wait_for_line(process, "2x2 trial 5: ")  # it goes on
    mlflow_server.start()
    said = sweep.said_by(process)
    assert "models:/finescale-synthetic-2x2@champion" in said
    client = MlflowClient(mlflow_server.uri)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    trials = {
        int(run.data.params["trial"]): run for run in runs if run.data.tags["finescale.role"] == "trial"
    }
    held = sweep.trials()["2x2"]
    assert sorted(trials) == sorted(held)
    for number, (state, _, values, _) in held.items():
        assert trials[number].info.status == RIGHT[state]
        if state == "COMPLETE":
            assert trials[number].data.metrics["crps"] == values[0]
            steps = [m.step for m in client.get_metric_history(trials[number].info.run_id, "residual_loss")]
            assert steps == [6, 12]
    assert not any(run.info.status == "RUNNING" for run in runs)
