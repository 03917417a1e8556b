"""All jobs as a user runs them, with store, studies, models and reports on Google Cloud Storage."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr

from pipeline import FactorPair, Recipe
from pipeline.data.synthetic import synthetic_coordinates
from pipeline.storage import files

JOBS = Path(__file__).resolve().parents[2] / "jobs"
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]


class Jobs:
    """Runs jobs on one folder of a bucket."""

    def __init__(self, folder, here):
        self.folder, self.here, self.started = folder, here, []
        self.tracking = f"sqlite:///{here}/mlflow.db"

    def start(self, job, *flags):
        dropped = ("RAY_", "MLFLOW_", "FINESCALE_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        log = self.here / f"log-{len(self.started)}.txt"
        with log.open("w") as out:
            command = [sys.executable, JOBS / f"{job}.py", *flags]
            process = subprocess.Popen(
                [*map(str, command)], cwd=self.here, env=environment, stdout=out, stderr=out
            )
        process.log = log
        self.started.append(process)
        return process

    def run(self, job, *flags, expecting=0):
        process = self.start(job, *flags)
        process.wait(400)
        said = process.log.read_text()
        assert process.returncode == expecting, said[-4000:]
        assert "Traceback" not in said, said[-4000:]
        return said

    def tuning(self, trials):
        return (
            "--preset", "tiny", "--store", f"{self.folder}/rain.zarr", "--pairs", "4x1", "--trials", trials,
            "--output", f"{self.folder}/runs", "--tracking-uri", self.tracking,
        )  # fmt: skip

    def end(self):
        for process in self.started:
            if process.poll() is None:
                for one in (*psutil.Process(process.pid).children(recursive=True), process):
                    one.kill()
                process.wait()


@pytest.fixture
def jobs(folder, tmp_path):
    jobs = Jobs(folder, tmp_path)
    yield jobs
    jobs.end()


@pytest.fixture
def ingested(jobs, rain, tiny):
    """Put the shared rain on the store, by way of a NetCDF file."""
    y, x = (np.asarray(axis) for axis in synthetic_coordinates(tiny.data.synthetic))
    times = pd.date_range("2024-05-01", periods=len(rain), freq="h")
    field = xr.DataArray(np.nan_to_num(rain), dims=("time", "y", "x"), coords={"time": times, "y": y, "x": x})
    field.attrs = {"units": "mm h-1", "standard_name": "rainfall_rate"}
    file = jobs.here / "rain.nc"
    field.rename("rain").to_netcdf(file, engine="h5netcdf")
    jobs.run("ingest", file, "--store", f"{jobs.folder}/rain.zarr")
    return jobs


def found(pattern, said):
    return re.search(pattern, said, re.MULTILINE)[1]


def test_from_a_file_to_a_scored_model(ingested):
    jobs = ingested
    said = jobs.run("tune_factors", *jobs.tuning(2))
    recipe = found(r"^recipe: (.*)$", said)
    assert recipe.startswith(f"{jobs.folder}/runs/recipes/")
    assert Recipe.load(recipe).entry(FactorPair(4, 1)).origin.value == "tuned"
    said = jobs.run(
        "train", "--preset", "tiny", "--store", f"{jobs.folder}/rain.zarr", "--pair", "4x1",
        "--recipe", recipe, "--output", f"{jobs.folder}/runs", "--tracking-uri", jobs.tracking,
    )  # fmt: skip
    model = found(r"^model: (.*)$", said)
    row = found(r"^(ensemble .*)$", said)
    scored = jobs.run("evaluate", "--model", model, "--store", f"{jobs.folder}/rain.zarr")
    assert row in scored  # the same figures, from the files alone
    assert files.list_folder(f"{jobs.folder}/runs/locks") == []
    mlflow.set_tracking_uri(jobs.tracking)
    loaded = mlflow.pyfunc.load_model(found(r"^registered: (.*)$", said))
    assert loaded.predict({"coarse": np.ones((1, 6, 4, 4), "f4"), "members": 2}).shape == (1, 2, 1, 16, 16)


def test_a_killed_sweep_carries_on_and_a_second_driver_is_refused(ingested):
    jobs = ingested
    first = jobs.start("tune_factors", *jobs.tuning(6))
    until = time.monotonic() + 200
    while "trial 1: CRPS" not in first.log.read_text():
        assert first.poll() is None, first.log.read_text()[-4000:]
        assert time.monotonic() < until
        time.sleep(0.1)
    first.send_signal(signal.SIGSTOP)  # it has not finished when the second one comes, and renews nothing
    said = jobs.run("tune_factors", *jobs.tuning(6), expecting=2)
    assert f"give this one another --name (held by process {first.pid} on" in said
    for one in (psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)):
        one.kill()
    first.wait()
    said = jobs.run("tune_factors", *jobs.tuning(6))
    left = int(found(r"(\d+) trials to run", said))
    assert 0 < left <= 4
    assert len(re.findall(r"trial \d+: ", said)) == left
