"""The main job as a user runs it: mistakes first, then one sweep that is extended, killed and carried on."""

import csv
import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline import FactorPair, UserError
from pipeline.data.synthetic import synthetic_coordinates, synthetic_times
from pipeline.mlflow_view.views import page_of_run
from pipeline.prior import paper_prior
from pipeline.recipe import Recipe
from pipeline.store.field_store import write_store

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "tune_factors.py"


@pytest.fixture
def main(monkeypatch, tmp_path):
    """The job's `main` in this process; what it sets in the environment goes with the test."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(JOB))["main"]


def save(store_url, field, tiny):
    y, x = synthetic_coordinates(tiny.data.synthetic)
    frames, height, width = field.shape
    times = synthetic_times(tiny.data.synthetic)[:frames]
    write_store(str(store_url), field, times=times, y=y[:height], x=x[:width], name="made")


@pytest.fixture
def folder(tmp_path_factory):
    """Where stores lie: not in the folder that must stay empty."""
    return tmp_path_factory.mktemp("stores")


def refused(main, one_line, *argv, parts):
    with pytest.raises(UserError) as raised:
        main(["--preset", "tiny", *argv])
    one_line(raised, *parts)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--pairs", "5x2"], ["5x2", "does not divide the patch of 24"]),
        (["--pairs", "4x2", "--patch", "64"], ["4x2", "48 x 48", "smaller than the patch"]),
        (["--pairs", "0x2"], ["0x2", "at least 1"]),
        (["--pairs", "1x1"], ["1x1"]),
        ([], ["tuning.pairs", "no factor pair"]),
        (["--pairs", "4x2,8x1,4x2"], ["tuning", "4x2", "twice"]),
        (["--pairs", "4x2", "--preset", "huge"], ["preset 'huge'", "tiny, small, paper"]),
        (["--pairs", "4x2", "--set", "tuning.trails=3"], ["tuning.trails", "unknown key"]),
        (["--pairs", "4x2", "--trials", "0"], ["tuning.trials"]),
        (["--pairs", "2x40"], ["2x40", "fine frames"]),
        (["--pairs", "2x2", "--store", "nothing.zarr"], ["nothing.zarr"]),
        (["--pairs", "2x2", "--tracking-uri", "http://127.0.0.1:1"], ["http://127.0.0.1:1", "not reachable"]),
        (["--pairs", "2x2", "--output", "memory://runs"], ["memory://runs", "--tracking-uri"]),
        (["--pairs", "2x2", "--output", f"{JOB}/runs"], ["tune_factors.py is not a folder"]),
        (["--pairs", "2x2", "--set", "tuning.search_space=nothing"], ["tuning.search_space 'nothing'"]),
        (["--pairs", "2x2", "--set", "tuning.workers_per_trial=8"], ["training.batch", "8 workers"]),
        (["--pairs", "2x2", "--recipe", "nothing.yaml"], ["nothing.yaml", "no such file"]),
        (["--pairs", "2x2", "--objectives", "crps,beauty"], ["tuning.objectives", "beauty"]),
    ],
    ids=lambda value: " ".join(value) if "--pairs" in value else None,
)
def test_mistakes(argv, parts, main, one_line):
    refused(main, one_line, *argv, parts=parts)


def test_relative_output_in_a_ray_job(main, one_line, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    refused(main, one_line, "--pairs", "2x2", "--output", "here", parts=["'here'", "absolute path"])


def test_a_store_of_another_layout(main, one_line, folder):
    (folder / "other.zarr").mkdir()
    (folder / "other.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    refused(
        main,
        one_line,
        "--pairs",
        "2x2",
        "--store",
        str(folder / "other.zarr"),
        parts=["other.zarr", "ingest"],
    )


def test_a_grid_that_is_not_divisible(main, one_line, rain, tiny, folder):
    save(folder / "odd.zarr", rain[:, :47, :46], tiny)
    argv = ["--pairs", "4x2", "--store", str(folder / "odd.zarr"), "--set", "data.trim=false"]
    refused(main, one_line, *argv, parts=["4x2", "47 x 46", "data.trim"])


@pytest.mark.parametrize(
    ("value", "parts"), [(0.0, ["2x2", "wet"]), (np.nan, ["2x2"])], ids=["dry", "missing"]
)
def test_nothing_to_learn_from(value, parts, main, one_line, tiny, folder, monkeypatch):
    monkeypatch.setattr(
        "pipeline.environment.start_ray", lambda *arguments, **options: None
    )  # it comes before, and costs seconds
    save(folder / "dull.zarr", np.full((64, 48, 48), value, "f4"), tiny)
    refused(main, one_line, "--pairs", "2x2", "--store", str(folder / "dull.zarr"), parts=parts)


def test_too_few_frames(main, one_line, rain, tiny, folder):
    save(folder / "short.zarr", rain[:12], tiny)
    argv = ["--pairs", "2x4", "--store", str(folder / "short.zarr")]
    refused(main, one_line, *argv, parts=["2x4", "fine frames", "longer period"])


def test_a_dead_cluster_is_said_before_anything_is_written(main, one_line, store):
    argv = ["--pairs", "2x2", "--store", store.url, "--set", "ray.address=127.0.0.1:1"]
    refused(main, one_line, *argv, parts=["Ray cluster 127.0.0.1:1", "cannot connect"])


def test_dry_run(main, capsys, tmp_path):
    uri = "http://user:secret@127.0.0.1:1"
    main(["--preset", "tiny", "--pairs", "2x2,1x2", "--trials", "3", "--dry-run", "--tracking-uri", uri])
    shown = capsys.readouterr().out
    assert "mean_steps: 12" in shown
    assert "plan: 2 pairs x 3 trials = 6 trainings" in shown
    assert "2x2: around the paper values" in shown
    assert f"first beta {paper_prior(FactorPair(2, 2)).beta:.3g}" in shown
    assert "secret" not in shown
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_as_the_shell_sees_it(tmp_path, sweep_in):
    done = subprocess.run(
        [sys.executable, JOB, "--preset", "tiny", "--pairs", "5x2"],
        cwd=tmp_path, env=sweep_in("shell").environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: factor pair 5x2")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sweep(sweep_in):
    """Three trials of two pairs; tests after the first few carry on with it, in their order."""
    sweep = sweep_in("sweep")
    sweep.said = sweep.run("2x2,1x2", 3)
    return sweep


@pytest.mark.cluster
@pytest.mark.timeout(600)
class TestSweep:
    def test_what_it_says(self, sweep):
        assert "6 trials to run" in sweep.said
        for pair in ("2x2", "1x2"):
            for number in range(3):
                assert f"{pair} trial {number}: CRPS " in sweep.said
            assert f"model of {pair}: models:/finescale-synthetic-{pair}@champion" in sweep.said
        lines = sweep.said.splitlines()
        head = next(i for i, line in enumerate(lines) if line.split()[:2] == ["pair", "beta"])
        assert sorted(line.split()[0] for line in lines[head + 2 : head + 4]) == ["1x2", "2x2"]
        head = lines.index("does retuning matter?") + 1
        assert lines[head].split() == [
            "pair",
            "tuned",
            "paper's",
            "prior",
            "predicted",
            "one",
            "fixed",
            "setting",
            "blocks",
        ]
        assert "pairs are too few" in sweep.said  # two pairs support no law, and it says so
        assert "make ui" in sweep.said.splitlines()[-1]
        # A process that Ray ends while it collects garbage says so, and nothing is wrong.
        said = re.sub(r".*Exception ignored in.*\n(.*\(\w+ pid=\d+\).*\n)*", "", sweep.said)
        for noise in ("Traceback", "INFO", "WARNING", "Error", "Warning"):
            assert noise not in said

    def test_mlflow_structure(self, sweep):
        statuses = sweep.statuses()
        assert statuses.pop(("rival", "FINISHED")) == rivals_trained(sweep.said)
        assert statuses == {
            ("sweep", "FINISHED"): 1,
            ("study", "FINISHED"): 2,
            ("trial", "FINISHED"): 6,
        }
        experiments = {run.info.experiment_id for run in sweep.runs()}
        assert [sweep.client.get_experiment(e).name for e in experiments] == [
            "finescale/synthetic/scale_adaptive"
        ]
        assert len({run.data.tags["finescale.sweep"] for run in sweep.runs()}) == 1
        for pair in ("2x2", "1x2"):
            (study,) = sweep.runs(role="study", pair=pair)
            trials = sweep.runs(role="trial", pair=pair)
            assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {study.info.run_id}
            assert "mlflow.parentRunId" not in study.data.tags
            for run in trials:
                assert run.data.params.keys() >= {"beta", "context", "power", "threshold", "scope", "trial"}
                assert run.data.metrics.keys() >= {"crps", "crps_skill", "bicubic_mae", "spread_skill_ratio"}
                steps = [m.step for m in sweep.client.get_metric_history(run.info.run_id, "residual_loss")]
                assert steps == [6, 12]
                looks = [m.step for m in sweep.client.get_metric_history(run.info.run_id, "rung_crps")]
                assert looks == [3, 6]
            trained = sorted(run.data.metrics["trained_steps"] for run in trials)
            assert trained[0] == 12  # the first two points have one conditional mean
            assert trained[-1] == 24
            assert study.data.metrics["validation_crps"] == min(run.data.metrics["crps"] for run in trials)
            assert study.data.metrics.keys() >= {
                "test_crps", "test_crps_skill", "prior_test_crps", "prior_loss", "predicted_loss",
                "one_fixed_setting_loss",
            }  # fmt: skip

    def test_the_prior_is_the_first_trial(self, sweep):
        prior = paper_prior(FactorPair(2, 2))
        first = sweep.finished()["2x2"][0][0]
        assert (first["beta"], first["context"]) == (prior.beta, min(4, prior.context))

    def test_artifacts(self, sweep):
        def files(run, folder=None):
            return [entry.path for entry in sweep.client.list_artifacts(run.info.run_id, folder)]

        (summary,) = sweep.runs(role="sweep")
        assert {"config.yaml", "recipe.yaml", "table.csv", "table.txt", "figures"} <= {*files(summary)}
        drawn = {f"figures/{name}.png" for name in ("retuning", "history", "beta", "parallel", "laws")}
        assert drawn <= {*files(summary, "figures")}
        (report,) = (sweep.output / "reports").iterdir()
        assert drawn <= {f"figures/{file.name}" for file in (report / "figures").iterdir()}
        for study in sweep.runs(role="study"):
            assert files(study, "figures") == ["figures/wettest.png"]
            assert "model/MLmodel" in files(study, "model")
        text = mlflow.artifacts.load_text(f"{summary.info.artifact_uri}/table.csv")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {row["pair"]: row["trials"] for row in rows} == {"2x2": "3", "1x2": "3"}
        (recipe,) = (sweep.output / "recipes").iterdir()
        recipe = Recipe.load(str(recipe))
        assert {str(entry.pair): entry.origin for entry in recipe.entries} == {"2x2": "tuned", "1x2": "tuned"}
        for row, entry in zip(rows, recipe.entries, strict=True):
            assert float(row["crps"]) == entry.score
            assert float(row["beta"]) == entry.parameters.beta
        assert recipe.entry(FactorPair(3, 2)).origin == "predicted"
        for pair in ("2x2", "1x2"):
            assert sweep.client.get_model_version_by_alias(f"finescale-synthetic-{pair}", "champion")

    def test_what_a_person_reads(self, sweep):
        (summary,) = sweep.runs(role="sweep")
        note, metrics = summary.data.tags["mlflow.note.content"], summary.data.metrics
        experiment = summary.info.experiment_id
        for study in sweep.runs(role="study"):
            pair, found = study.data.tags["finescale.pair"], study.data.metrics
            assert f"[**{pair}**]({page_of_run(experiment, study.info.run_id)})" in note
            assert f"**{found['beta']:.3g}**" in note
            assert f"{found['test_crps']:.4f}" in note
            assert page_of_run(experiment, summary.info.run_id) in study.data.tags["mlflow.note.content"]
            for end in ("low", "high"):
                assert metrics.get(f"{pair}_crps_{end}") == found.get(f"test_crps_{end}")
        assert metrics.keys() >= {"system/cpu_utilization_percentage"}
        for run in sweep.runs():
            assert not any(f"]({kind}:" in run.data.tags["mlflow.note.content"] for kind in ("run", "view"))
            (data,) = run.inputs.dataset_inputs
            assert run.data.tags["finescale.data_fingerprint"].startswith(data.dataset.digest)
        # The links that the job prints lead to views that are there.
        keys = re.findall(r"viewStateShareKey=([\w.-]+)", sweep.said)
        assert page_of_run(experiment, summary.info.run_id) in sweep.said
        views = sweep.client.get_experiment(experiment).tags
        assert len(keys) == 3
        assert views.keys() >= {f"mlflow.sharedViewState.{key}" for key in keys}

    def test_one_more_trial(self, sweep):
        before = sweep.finished()
        said = sweep.run("2x2,1x2", 4)
        assert "2 trials to run" in said
        after = sweep.finished()
        for pair, trials in before.items():
            assert after[pair].items() >= trials.items()
            assert len(after[pair]) == 4
        statuses = sweep.statuses()
        statuses.pop(("rival", "FINISHED"))
        assert statuses == {
            ("sweep", "FINISHED"): 1,
            ("study", "FINISHED"): 2,
            ("trial", "FINISHED"): 8,
        }

    def test_killed_and_carried_on(self, sweep):
        before = sweep.finished()["2x2"]

        # The driver is killed once a new trial has been scored; its guardian ends its runs.
        process = sweep.start("2x2", 6)
        sweep.wait_for_line(process, "2x2 trial 4: ")
        sweep.kill(process)
        ended = sweep.trials()["2x2"]
        assert ended[4][0] in ("COMPLETE", "PRUNED")
        assert ended.items() >= {n: ended[n] for n in before}.items()
        assert not any(status == "RUNNING" for _, status in sweep.statuses())

        # Then a trial's process, and the driver is asked to end.
        process = sweep.start("2x2", 8)
        victim = sweep.wait_for(process, lambda: sweep.busy_worker(process), "trial at work")
        victim.kill()
        sweep.wait_for_line(process, "died and will be repeated")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130, process.log.read_text()[-4000:]
        *_, after = process.log.read_text().partition("\ninterrupted; the same command carries on")
        assert after
        assert "Traceback" not in after  # of ours; Ray may add lines of its own
        statuses = sweep.statuses()
        assert statuses["sweep", "KILLED"] == 1
        assert statuses["trial", "FAILED"] == 0
        assert not any(status == "RUNNING" for _, status in statuses)
        trials = sweep.trials()["2x2"]
        assert not any(trial[0] == "RUNNING" for trial in trials.values())
        scored = {number: trial for number, trial in trials.items() if trial[0] in ("COMPLETE", "PRUNED")}

        # The same command carries on.
        said = sweep.run("2x2", 8)
        assert f"{8 - len(scored)} trials to run" in said
        after = sweep.trials()["2x2"]
        assert after.items() >= scored.items()
        assert sorted(after) == list(range(8))
        assert len({tuple(sorted(trial[1].items())) for trial in after.values()}) == 8
        statuses = sweep.statuses()
        assert not any(status == "RUNNING" for _, status in statuses)
        assert statuses["sweep", "FINISHED"] == 1
        assert statuses["study", "FINISHED"] == 2
        runs = sweep.runs(role="trial", pair="2x2")
        assert sorted(int(run.data.params["trial"]) for run in runs) == list(range(8))
        for run in runs:
            pruned = after[int(run.data.params["trial"])][0] == "PRUNED"
            assert run.info.status == ("KILLED" if pruned else "FINISHED")
            assert run.data.tags["finescale.outcome"] == ("pruned" if pruned else "complete")
        assert list((sweep.output / "unfinished").glob("*")) == []

    def test_the_same_command_again_runs_nothing(self, sweep):
        before = sweep.trials(), sweep.statuses()
        versions = len(sweep.client.search_model_versions("name LIKE 'finescale-%'"))
        said = sweep.run("2x2", 8)
        assert "0 trials to run" in said
        assert " trial " not in said
        assert (sweep.trials(), sweep.statuses()) == before
        assert len(sweep.client.search_model_versions("name LIKE 'finescale-%'")) == versions

    def test_the_report_again(self, sweep):
        (kept,) = (sweep.output / "sweeps").glob("*.yaml")
        (report,) = (sweep.output / "reports").iterdir()
        expected = (report / "table.csv").read_text()
        shutil.rmtree(report)
        before = sweep.trials(), sweep.statuses()
        sweep.said_by(
            sweep.start_command(sys.executable, JOB, "--report", kept.stem, "--output", sweep.output.name)
        )
        rows = list(csv.DictReader(io.StringIO((report / "table.csv").read_text())))
        assert {row["pair"] for row in rows} == {"2x2", "1x2"}  # all that the sweep has tuned
        (row,) = csv.DictReader(io.StringIO(expected))
        (again,) = [one for one in rows if one["pair"] == "2x2"]
        assert again == row
        assert (report / "figures" / "laws.png").exists()
        assert (sweep.trials(), sweep.statuses()) == before


def rivals_trained(said):
    """Count what was trained to compare with; a setting that a trial had tried is not trained again."""
    return sum(line.startswith("training ") and int(line.split()[1]) for line in said.splitlines())


def test_a_report_of_no_sweep(main, one_line):
    refused(main, one_line, "--report", "nothing-1234", parts=["nothing-1234", "not found", "--output"])
