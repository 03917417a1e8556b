import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from pipeline import UserError

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "ingest.py"
START = np.datetime64("2020-01-01T00:00:00", "s")
GRID = (11, 9)


def frames(first, count, seed=0):
    """Rain of frames `first` to `first + count` of one endless series."""
    return np.stack(
        [np.random.default_rng([seed, first + k]).gamma(0.5, 2, GRID).astype("f4") for k in range(count)]
    )


def write_hours(folder, first, count, *, name="precipitation", values=None, cadence=300, unit="mm/h", **more):
    """Write frames `first` to `first + count` as a NetCDF file and give its path."""
    path = folder / f"rain{first:04d}.nc"
    values = frames(first, count) if values is None else values
    fields = {name: (("time", "y", "x"), values, {"units": unit})} | {
        key: (("time", "y", "x"), extra, {"units": "m s-1"}) for key, extra in more.items()
    }
    coordinates = {
        "time": (START + (first + np.arange(count)) * np.timedelta64(cadence, "s")).astype("datetime64[ns]"),
        "y": np.arange(GRID[0]) * 1.0,
        "x": np.arange(GRID[1]) * 1.0,
    }
    xr.Dataset(fields, coords=coordinates).to_netcdf(path, engine="h5netcdf")
    return str(path)


@pytest.fixture(scope="session")
def job():
    return runpy.run_path(str(JOB))["main"]


@pytest.fixture
def refusal(job):
    """Run the job in process and give the one line of its refusal."""

    def refused(*arguments):
        with pytest.raises(UserError) as caught:
            job([str(argument) for argument in arguments])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


@pytest.fixture(scope="session")
def series():
    """Frames of one endless series, and files with some of them."""
    return SimpleNamespace(frames=frames, write=write_hours, grid=GRID, start=START)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
