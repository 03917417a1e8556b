"""A sweep whose trials train on two workers each finds what one with single processes finds."""

import os
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

JOB = Path(__file__).resolve().parents[2] / "jobs" / "tune_factors.py"
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1200)]


def sweep(folder, workers):
    """Run a sweep of one pair; gives its trials, its runs and what has outlived it."""
    dropped = ("RAY_", "MLFLOW_", "FINESCALE_", "PYTHONPATH")
    settings = (
        f"tuning.workers_per_trial={workers}",
        "ray.cpus=4",
        "tuning.startup_trials=2",
        "tuning.compare=false",
    )
    log = folder / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                sys.executable, JOB, "--preset", "tiny", "--pairs", "2x2", "--trials", "3",
                "--output", folder / "out", *(part for one in settings for part in ("--set", one)),
            ],
            cwd=folder, stdout=out, stderr=out, text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(dropped)},
        )  # fmt: skip
    seen, until = {}, time.monotonic() + 900
    while process.poll() is None and time.monotonic() < until:
        for one in psutil.Process(process.pid).children(recursive=True):
            seen[one.pid] = one
        time.sleep(0.5)
    if process.poll() is None:
        for one in (process, *seen.values()):
            one.kill()
    assert process.returncode == 0, log.read_text()[-4000:]
    _, left = psutil.wait_procs(seen.values(), timeout=20)
    storage = JournalStorage(JournalFileBackend(str(folder / "out" / "studies" / "journal.log")))
    (study,) = storage.get_all_studies()
    client = mlflow.MlflowClient(f"sqlite:///{folder}/out/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return {
        "trials": storage.get_all_trials(study._study_id),
        "runs": {run.info.status for run in runs if run.data.tags["finescale.role"] != "trial"},
        "open": [run for run in runs if run.info.status in ("RUNNING", "SCHEDULED")],
        "left": [one for one in left if one.status() != psutil.STATUS_ZOMBIE],
        "unfinished": list((folder / "out" / "unfinished").glob("*")),
    }


def test_the_sweep_is_the_same_with_two_workers_a_trial(tmp_path):
    found = {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        found[workers] = sweep(folder, workers)
        assert found[workers]["open"] == found[workers]["left"] == found[workers]["unfinished"] == []
        assert found[workers]["runs"] == {"FINISHED"}
    one, two = (found[workers]["trials"] for workers in (1, 2))
    assert [trial.number for trial in one] == [trial.number for trial in two] == [0, 1, 2]
    for alone, together in zip(one, two, strict=True):
        assert together.state == alone.state
        assert together.params == pytest.approx(alone.params)
        assert (together.values is None) == (alone.values is None)
        if alone.values:
            assert together.values == pytest.approx(alone.values, rel=1e-4)
    best = [min((t.values[0], t.number) for t in trials if t.values)[1] for trials in (one, two)]
    assert best[0] == best[1]
