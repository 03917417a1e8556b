"""The Zarr output: what is in it, who may write to it, and what a kill leaves."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import UserError
from pipeline.downscaling.output import writing
from pipeline.downscaling.record import LOCK, MANIFEST, RECORD, Account, state
from pipeline.factors import FactorPair
from pipeline.storage import files
from pipeline.store import layout

PROGRAM = Path(__file__).with_name("outputs.py")


@pytest.fixture(params=["local", "memory"])
def url(request, tmp_path):
    return (
        str(tmp_path / "fine.zarr") if request.param == "local" else f"memory://{uuid.uuid4().hex}/fine.zarr"
    )


def content(folder):
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != LOCK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def chunks(folder):
    """Count the chunks of fields, while some are written."""
    fields = [place for place, _, _ in os.walk(folder) if "/precipitation" in place and "/c/" in place]
    return sum(name.isdigit() for place in fields for name in next(os.walk(place), ((), (), ()))[2])


def small(outputs, **changes):
    return outputs.plan(**{"y": 0.5 + np.arange(16.0), "quantiles": (), "exceed": ()} | changes)


def test_xarray_finds_the_fields_where_they_belong(outputs, url):
    outputs.complete(url, outputs.plan())
    backend = layout.backend(url, read_only=True)
    fine = xr.open_zarr(backend, chunks=None, consolidated=True)
    assert fine.precipitation.dims == ("member", "time", "y", "x")
    assert (np.diff(fine.time.values) == np.timedelta64(300, "s")).all()
    for frame, first in enumerate((0, 2, 6)):
        np.testing.assert_array_equal(fine.time[first : first + 2], outputs.times()[2 * frame :][:2])
        for member in (0, 1):
            seen = fine.precipitation[member, first : first + 2].values
            np.testing.assert_array_equal(seen, outputs.field(frame, member))
        summary = outputs.field(frame, 2)
        at = {"time": slice(first, first + 2)}
        np.testing.assert_array_equal(fine.precipitation_mean.isel(at), summary)
        np.testing.assert_array_equal(fine.precipitation_quantile.sel(quantile=0.9).isel(at), summary + 1)
        np.testing.assert_array_equal(fine.precipitation_exceedance.sel(threshold=5).isel(at), summary + 1)
    assert fine.precipitation[:, 4:6].isnull().all()  # the gap
    np.testing.assert_array_equal(fine.y, outputs.plan().y)
    assert fine.precipitation.attrs["grid_mapping"] == fine.precipitation_mean.attrs["grid_mapping"] == "crs"
    assert fine.crs.attrs["grid_mapping_name"] == "polar_stereographic"
    assert fine.precipitation.attrs["units"] == "mm/h"
    assert fine.precipitation_exceedance.attrs["units"] == "1"
    assert fine.y.attrs == {"axis": "Y", "units": "km", "standard_name": "projection_y_coordinate"}
    assert (fine.attrs["title"], fine.attrs["seed"], fine.attrs["pair"]) == ("Rain", 3, "4x2")


def test_frames_that_are_not_refined_take_no_chunks(done):
    array = zarr.open_group(done, mode="r")["precipitation"]
    rows = -(-array.shape[2] // array.chunks[2])
    assert array.chunks == (1, 2, 344, 24)
    assert rows == 3
    assert array.nchunks_initialized == 2 * 3 * rows


@pytest.mark.parametrize(
    ("pair", "grid", "chunks"),
    [
        (FactorPair(4, 1), (4000, 4000), (1, 500, 500)),
        (FactorPair(4, 2), (520, 40), (2, 260, 40)),
        (FactorPair(10, 3), (2000, 2000), (3, 340, 340)),
        (FactorPair(25, 24), (500, 1000), (24, 125, 125)),
        (FactorPair(600, 1), (1200, 600), (1, 400, 300)),
        (FactorPair(1, 1000), (7, 60), (1000, 7, 15)),
    ],
)
def test_chunks_hold_whole_cells_of_one_frame(outputs, pair, grid, chunks):
    times = np.datetime64("2010-08-26T00:05:00") + np.arange(pair.time) * np.timedelta64(300, "s")
    plan = outputs.plan(pair=pair, times=times, y=np.arange(grid[0]), x=np.arange(grid[1]))
    assert plan.chunks == chunks
    assert 4 * np.prod(chunks) <= 1.5 * 2**20


def test_workers_get_the_output_by_pickle(outputs, url):
    plan = small(outputs, members=1)
    with writing(url, plan) as (output, record):
        outputs.write_part(output, 0, 0)
        again = pickle.loads(pickle.dumps(output))
        assert len(pickle.dumps(output)) < 5000
        for frame in (1, 2):
            outputs.write_part(again, frame, 0)
        for frame in range(3):
            record.mark(frame, 0)
        record.finish()
    seen = zarr.open_group(layout.backend(url), mode="r")["precipitation"][0, 6:]
    np.testing.assert_array_equal(seen, outputs.field(2, 0, 16))


def test_negative_zero_and_odd_nans_are_stored_as_one(outputs, tmp_path):
    odd = np.zeros((2, 16, outputs.W), "f4")
    odd[0, 0, :2] = np.array([0x80000000, 0x7FC00001], "u4").view("f4")
    folder = tmp_path / "fine"
    plan = small(outputs, members=1, times=outputs.times((0,)))
    with writing(str(folder), plan) as (output, _):
        output.write(0, 0, slice(0, 16), odd)
        bits = output._group["precipitation"][0, 0, 0, :2].view("u4")
    assert bits.tolist() == [0, 0x7FC00000]


def test_what_does_not_fit_is_no_write(outputs, tmp_path):
    plan = outputs.plan(exceed=())
    with writing(str(tmp_path / "fine"), plan) as (output, record):
        values = outputs.field(0, 0)
        for rows in (slice(10, 344), slice(0, 300), slice(688, 1040)):
            with pytest.raises(ValueError, match="whole chunks"):
                output.write(0, 0, rows, values[:, rows])
        with pytest.raises(ValueError, match="shape"):
            output.write(0, 0, slice(0, 344), values[:1, :344])
        with pytest.raises(ValueError, match="member 2 of 2"):
            output.write(0, 2, slice(0, 344), values[:, :344])
        with pytest.raises(ValueError, match="precipitation_quantile"):
            output.write_summary(0, slice(0, 344), values[:, :344])
        two = np.stack([values[:, :344]] * 2)
        with pytest.raises(ValueError, match="precipitation_exceedance"):
            output.write_summary(0, slice(0, 344), values[:, :344], two, two)
        with pytest.raises(ValueError, match="9 of 9 parts"):
            record.finish()
    assert state(str(tmp_path / "fine")) == "incomplete"


def test_a_plan_of_broken_axes_is_refused(outputs):
    for changes in (
        {"times": outputs.times()[:5]},
        {"times": outputs.times((1, 0))},
        {"times": outputs.times((0, 1, 2.5))},
        {"y": np.arange(1030)},
        {"members": 0, "quantiles": (1.0,)},
        {"members": -1},
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            outputs.plan(**changes)
    assert outputs.plan(members=0, quantiles=(), exceed=()).arrays == {"precipitation_mean": None}


def test_what_was_begun_is_carried_on_with_the_same_bytes(outputs, url, done):
    with contextlib.suppress(RuntimeError), writing(url, outputs.plan()) as (output, record):
        for part in (0, 2):
            outputs.write_part(output, 1, part)
            record.mark(1, part)
        outputs.write_part(output, 2, 0)  # stopped before it was noted
        raise RuntimeError
    assert state(url) == "incomplete"
    # Another command line, the same values; --overwrite is part of a command that is given again.
    again = outputs.plan(notes={"command": "downscale rain --workers 4"})
    assert outputs.complete(url, again, overwrite=True) == 7
    Account.read(url, MANIFEST).write(url, RECORD)  # as if killed before it was removed
    assert outputs.complete(url, again) == 0
    names = files.list_folder(url)
    assert MANIFEST in names
    assert RECORD not in names
    if "://" not in url:
        assert content(url) == content(done)


def test_a_creation_that_was_cut_short_is_made_again(outputs, url):
    plan = small(outputs)
    with writing(url, plan) as (output, record):
        outputs.write_part(output, 0, 0)
        record.mark(0, 0)
    replace(Account.read(url, RECORD), ready=False, done="").write(url, RECORD)
    for name in ("zarr.json", "precipitation"):
        files.remove_folder(files.join(url, name))
    assert outputs.complete(url, plan) == 6


def test_without_resume_it_is_begun_again(outputs, url, one_line):
    plan = small(outputs)
    with writing(url, plan) as (output, record):
        outputs.write_part(output, 0, 0)
        record.mark(0, 0)
    assert outputs.complete(url, plan, resume=False) == 6
    with pytest.raises(UserError) as raised:
        outputs.complete(url, plan, resume=False)
    one_line(raised, url, "complete", "--overwrite")
    assert outputs.complete(url, plan, overwrite=True) == 6


@pytest.mark.parametrize("finished", [True, False])
def test_other_values_are_not_mixed_with_these(outputs, url, finished, one_line):
    plan = small(outputs)
    with writing(url, plan) as (output, record):
        outputs.write_part(output, 0, 0)
        if finished:
            record.finished[:] = True
            record.finish()
    other = small(outputs, members=1, facts=plan.facts | {"seed": 4})
    with pytest.raises(UserError) as raised:
        outputs.complete(url, other)
    one_line(raised, url, "members 2 (now 1), seed 3 (now 4)", "--output", "--overwrite")
    assert state(url) == ("complete" if finished else "incomplete")
    shifted = small(outputs, y=0.75 + np.arange(16.0))
    with pytest.raises(UserError, match=r"y 16 from 0.5 to 15.5 .* \(now 16 from 0.75"):
        outputs.complete(url, shifted)
    assert outputs.complete(url, other, overwrite=True) == 3
    group = zarr.open_group(layout.backend(url), mode="r")
    assert group["precipitation"].shape[0] == 1
    assert "precipitation_quantile" not in group
    np.testing.assert_array_equal(group["precipitation"][0, :2], outputs.field(0, 0, 16))


def test_somebody_elses_folder_is_left_alone(outputs, url, one_line):
    files.write_text(files.join(url, "notes.txt"), "mine")
    for how in ({}, {"overwrite": True}):
        with pytest.raises(UserError) as raised:
            outputs.complete(url, outputs.plan(), **how)
        one_line(raised, url, "something else", "--output")
    assert files.list_folder(url) == ["notes.txt"]


def test_a_damaged_record_is_named(outputs, url, one_line):
    plan = small(outputs)
    files.write_text(files.join(url, RECORD), "{")
    with pytest.raises(UserError) as raised:
        outputs.complete(url, plan)
    one_line(raised, url, RECORD, "--overwrite")
    assert outputs.complete(url, plan, overwrite=True) == 6


def test_two_commands_do_not_write_one_output(outputs, url, one_line):
    plan = small(outputs)
    with writing(url, plan):
        with pytest.raises(UserError) as raised, writing(url, plan):
            pass
        one_line(raised, url, "another downscaling", "process")
    assert outputs.complete(url, plan) == 6


@pytest.mark.timeout(120)
def test_killed_at_any_moment_it_ends_with_the_same_bytes(outputs, done, tmp_path):
    target = tmp_path / "fine.zarr"
    root = str(Path(__file__).resolve().parents[2])
    killed = 0
    for wanted in (1, 20):  # the 9 parts have 39
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(target), "0.3"], env=os.environ | {"PYTHONPATH": root}
        )
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if chunks(target) >= wanted:
                break
            time.sleep(0.001)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert state(str(target)) == "incomplete"
    assert killed == 2
    (target / "precipitation" / ".0123.partial").write_bytes(b"half a chunk")
    outputs.complete(str(target), outputs.plan())
    assert content(target) == content(done)
