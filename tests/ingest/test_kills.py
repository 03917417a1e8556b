"""An ingest killed at random moments and given again ends with the undisturbed store, byte for byte."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline import UserError
from pipeline.store import manifest
from pipeline.store.field_store import FieldStore

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "ingest.py"
FILES, FRAMES, GRID = 24, 12, (200, 260)  # a block of 24 frames: two files


def frame(index):
    return np.random.default_rng([7, index]).gamma(0.3, 2, GRID).astype("f4")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    paths = []
    for k in range(FILES):
        first = k * FRAMES
        times = np.datetime64("2020-01-01", "ns") + (first + np.arange(FRAMES)) * np.timedelta64(300, "s")
        values = np.stack([frame(first + n) for n in range(FRAMES)])
        xr.Dataset(
            {"precipitation": (("time", "y", "x"), values, {"units": "mm/h"})},
            coords={"time": times, "y": np.arange(GRID[0]) * 1.0, "x": np.arange(GRID[1]) * 1.0},
        ).to_netcdf(folder / f"rain{k:02d}.nc", engine="h5netcdf")
        paths.append(str(folder / f"rain{k:02d}.nc"))
    return paths


def content(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != manifest.LOCK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def start(paths, target):
    return subprocess.Popen(
        [sys.executable, str(JOB), *paths, "--store", str(target), "--name", "rain"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(paths, target, moment):
    """Kill an ingest a moment after it has taken its lock; give whether it was still at work."""
    process = start(paths, target)
    before = (target / manifest.LOCK).stat().st_mtime_ns if (target / manifest.LOCK).exists() else 0
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        lock = target / manifest.LOCK
        if lock.exists() and lock.stat().st_mtime_ns != before:
            break
        time.sleep(0.001)
    time.sleep(moment)
    at_work = process.poll() is None
    if at_work:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return at_work


def check_readable(target):
    """Whatever is there is whole: every frame that counts has its values."""
    if manifest.state(str(target)) != "complete":
        with pytest.raises(UserError, match=r"incomplete|nothing there"):
            FieldStore.open(str(target))
        return 0
    store = FieldStore.open(str(target))
    gaps = {k for first, count in store.info.gaps for k in range(first, first + count)}
    for k in range(0, store.shape[0], 5):
        seen = store.read(k, k + 1)[0]
        np.testing.assert_array_equal(seen, np.full(GRID, np.nan) if k in gaps else frame(k))
    return store.shape[0] - len(gaps)


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        ("late", 2),
        *(
            pytest.param(kind, 20, marks=[pytest.mark.slow, pytest.mark.timeout(600)])
            for kind in ("new", "late")
        ),
    ],
)
def test_killed_and_given_again(tmp_path, archive, kills, kind):
    """New: all files into a store of their own. Late: the middle and the end into a store with a gap."""
    stored = [*archive[:7], *archive[14:17]] if kind == "late" else []
    targets = [tmp_path / "whole.zarr", tmp_path / "cut.zarr"]
    for target in targets if stored else ():
        assert start(stored, target).wait(60) == 0
    process = start(archive, targets[0])
    assert process.wait(60) == 0
    begun = time.monotonic()
    rng = np.random.default_rng(kills)
    frames, hits = [], 0
    while hits < kills and time.monotonic() - begun < 300:
        # Short moments first: every run gets further than the one before.
        hits += killed(archive, targets[1], rng.uniform(0, 0.6))
        frames.append(check_readable(targets[1]))
        if frames[-1] == FILES * FRAMES:
            break
    assert hits
    assert frames == sorted(frames)  # nothing that counted is lost
    process = start(archive, targets[1])
    assert process.wait(60) == 0
    assert content(targets[1]) == content(targets[0])
