"""After a sweep the cluster is as free as before it, whatever became of its trials."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from pipeline import environment
from pipeline.config_layers import load_config
from pipeline.tuning.study import PairStudy
from pipeline.tuning.opening import open_sweep
from pipeline.tuning.tune_run import run_trials

environment.prepare()
settings = {
    "preset": "tiny", "output": sys.argv[1], "tuning.pairs": "2x2", "tuning.trials": 10,
    "tuning.startup_trials": 2, "tuning.at_once": 1,
}
with open_sweep(load_config(settings.items())) as sweep:
    run_trials(sweep, sweep.trial_job())
    (study,) = sweep.studies.values()
    print("states", *(trial.outcome.state for trial in study.ended))

import ray  # not earlier: it reads the token that the sweep makes for its cluster

until = time.monotonic() + 10
while (free := ray.available_resources()) != ray.cluster_resources() and time.monotonic() < until:
    time.sleep(0.1)
print("free", free)
print("all", ray.cluster_resources())
sys.exit(free != ray.cluster_resources())
"""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_resources_are_free_after_a_sweep(tmp_path):
    dropped = ("RAY_", "MLFLOW_", "FINESCALE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "out")],
        env=kept | {"PYTHONPATH": root}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (states,) = (line for line in done.stdout.splitlines() if line.startswith("states"))
    assert "pruned" in states  # a trial that is stopped early gives back what it held, too
