"""The job as a user runs it, on the shared store, whose fine field it coarsens and refines again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.store.field_store import write_store

JOB = Path(__file__).resolve().parents[2] / "jobs" / "downscale.py"


def content(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def coarse(values, pair):
    """Means of whole cells, (T / tau, h, w), NaN where more than half is missing."""
    T, H, W = values.shape
    s, tau = pair.space, pair.time
    cells = values.reshape(T // tau, tau, H // s, s, W // s, s)
    means = np.nanmean(cells, axis=(1, 3, 5))
    return np.where(np.isfinite(cells).mean(axis=(1, 3, 5)) >= 0.5, means, np.nan)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_an_archive_becomes_an_ensemble(downscale, store, pair, tmp_path):
    status, said, _ = downscale("--output", "fine.zarr")
    assert status == 0, said
    assert any("sampling: 3 members, dpm_solver_pp_2m, 2 network evaluations" in line for line in said)
    found = xr.open_zarr(tmp_path / "fine.zarr")
    field, truth = found.precipitation, store.to_xarray().precipitation
    assert field.dims == ("member", "time", "y", "x")
    assert field.attrs["units"] == "mm/h"
    np.testing.assert_array_equal(field.y, truth.y)
    given = coarse(truth.sel(time=field.time).values, pair)
    for member in field.values:
        kept = coarse(member, pair)
        assert (np.isnan(kept) == np.isnan(given)).all()
        whole = given.shape[0]
        for frame in range(whole):  # the model conserves per tile: a frame's total
            known = np.isfinite(given[frame])
            assert kept[frame][known].sum() == pytest.approx(given[frame][known].sum(), rel=1e-5)
    assert np.nanmax(np.abs(field.values[0] - field.values[1])) > 0.01

    before = content(tmp_path / "fine.zarr")
    status, said, _ = downscale("--output", "fine.zarr")
    assert (status, said[-2]) == (0, "already there, complete and with the same settings")
    assert content(tmp_path / "fine.zarr") == before


def test_a_member_does_not_depend_on_what_else_is_drawn(downscale, store, tmp_path):
    downscale("--output", "all.zarr", "--set", "downscaling.members_at_once=2")
    whole = xr.open_zarr(tmp_path / "all.zarr").precipitation
    status, said, _ = downscale(
        "--output", "part.zarr", "--set", "downscaling.members_at_once=1", "--set", "downscaling.batch=1"
    )
    assert status == 0, said
    alone = xr.open_zarr(tmp_path / "part.zarr").precipitation
    np.testing.assert_allclose(alone, whole, rtol=1e-4, atol=1e-5)
    given = ("--input", store.url, "--coarsen", "--members", "2", "--steps", "2")
    status, said, _ = downscale("--output", "fewer.zarr", given=given)
    assert status == 0, said
    np.testing.assert_allclose(
        xr.open_zarr(tmp_path / "fewer.zarr").precipitation, whole[:2], rtol=1e-4, atol=1e-5
    )


def test_summaries_are_those_of_the_members(downscale, tmp_path):
    wanted = ["--quantiles", "0.25,0.9", "--exceed", "0.5,2"]
    status, said, _ = downscale("--output", "both.zarr", *wanted)
    assert status == 0, said
    status, said, _ = downscale("--output", "summary.zarr", *wanted, "--no-members")
    assert status == 0, said
    both, alone = (xr.open_zarr(tmp_path / name) for name in ("both.zarr", "summary.zarr"))
    members = both.precipitation.values
    assert "precipitation" not in alone
    for found in (both, alone):
        np.testing.assert_allclose(found.precipitation_mean, members.mean(axis=0), rtol=1e-5, atol=1e-6)
        expected = np.quantile(members, [0.25, 0.9], axis=0)
        np.testing.assert_allclose(found.precipitation_quantile, expected, rtol=1e-4, atol=1e-5)
        above = np.stack([(members > amount).mean(axis=0) for amount in (0.5, 2)])
        valid = np.isfinite(members[0])
        np.testing.assert_allclose(
            found.precipitation_exceedance.values[:, valid], above[:, valid], atol=1e-6
        )
        assert np.isnan(found.precipitation_exceedance.values[:, ~valid]).all()


def test_killed_and_given_again_it_is_the_same_to_the_byte(store, finished_model, tmp_path):
    command = [
        sys.executable, JOB, "--model", finished_model, "--input", store.url, "--coarsen", "--members", "2",
        "--steps", "2", "--set", "downscaling.members_at_once=1",
    ]  # fmt: skip
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    subprocess.run([*command, "--output", "whole.zarr"], check=True, timeout=120, **quiet)
    process = subprocess.Popen([*command, "--output", "killed.zarr"], **quiet)
    until = time.monotonic() + 60
    chunks = tmp_path / "killed.zarr" / "precipitation" / "c"
    while len([path for path in chunks.rglob("*") if path.is_file()]) < 20:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert (tmp_path / "killed.zarr" / "downscaling.json").exists()
    subprocess.run([*command, "--output", "killed.zarr"], check=True, timeout=120, **quiet)
    whole, carried_on = (content(tmp_path / name) for name in ("whole.zarr", "killed.zarr"))
    assert carried_on == whole


def test_a_coarse_store_and_files_of_it_give_the_same(downscale, store, pair, tmp_path):
    fine = store.to_xarray().precipitation.isel(time=slice(0, 24))
    with np.errstate(invalid="ignore"):
        means = np.nan_to_num(coarse(fine.fillna(0).values, pair)).astype("f4")
    y, x = (fine[axis].values.reshape(-1, 4).mean(axis=1) for axis in ("y", "x"))
    times = fine.time.values[1::2]
    names = {"orography": store.static("orography")}
    write_store(str(tmp_path / "lr.zarr"), means, times=times, y=y, x=x, name="lr")
    data = xr.Dataset(
        {"precipitation": (("time", "y", "x"), means, {"units": "mm/h"})}, {"time": times, "y": y, "x": x}
    )
    for first, last in ((0, 5), (5, 12)):
        data.isel(time=slice(first, last)).to_netcdf(tmp_path / f"lr{first}.nc", engine="h5netcdf")
    statics = xr.Dataset(
        {key: (("y", "x"), values) for key, values in names.items()}, {"y": fine.y, "x": fine.x}
    )
    statics.to_netcdf(tmp_path / "statics.nc", engine="h5netcdf")
    more = ("--members", "2", "--steps", "2", "--statics", "statics.nc")
    status, _, error = downscale("--output", "a.zarr", given=("--input", "lr.zarr", *more))
    assert status == 0, error
    status, _, error = downscale("--output", "b.zarr", given=("--input", "lr*.nc", *more))
    assert status == 0, error
    a, b = (xr.open_zarr(tmp_path / name).precipitation for name in ("a.zarr", "b.zarr"))
    np.testing.assert_array_equal(a.time, b.time)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    status, _, error = downscale("--output", "c.nc", given=("--input", "lr.zarr", *more))
    assert status == 0, error
    np.testing.assert_array_equal(xr.open_dataset(tmp_path / "c.nc").precipitation, a)


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["--output", "o", "--model", "nothing"], None, "no model.json there"),
        (["--output", "o"], ["--input", "nothing.nc"], "nothing.nc: no such file"),
        (["--output", "o"], ["--input", "STORE"], "a frame every 5 min"),
        (["--output", "o", "--time", "2030-01-01/2030-01-02"], None, "no coarse frame"),
        (["--output", "o", "--time", "2020-02/2020-01"], None, "ends before it begins"),
        (["--output", "o", "--bbox", "1,2,3"], None, "four numbers"),
        (["--output", "o", "--bbox", "1e8,1e8,2e8,2e8"], None, "--bbox"),
        (["--output", "busy"], None, "something else is there already"),
        (["--output", "o", "--workers", "0"], None, "--workers 0"),
        (["--output", "o", "--quantiles", "0.5,2"], None, "between 0 and 1"),
        (["--output", "o", "--no-members"], None, "nothing to write"),
        (
            ["--output", "o", "--steps", "2000"],
            None,
            "error: sampling.steps = 2000 is more than the schedule has",
        ),
        (["--output", "o", "--quantiles", "0.5,0.50"], None, "one comes twice"),
        (["--output", "o", "--exceed", "1,1.0"], None, "one comes twice"),
        (["--output", "o", "--set", "sampling.members=7"], None, "give --members N"),
        (["--output", "o", "--exceed", "10,-5", "--dry-run"], None, "downscaling.exceed = -5"),
        (["--output", "o", "--set", "training.batch=3"], None, "does not heed training.batch"),
        (["--output", "o.nc4"], None, ".nc4 is no format"),
        (["--output", ""], None, "name a Zarr store"),
        (
            ["--output", "o", "--set", "downscaling.scratch=/nope"],
            None,
            "downscaling.scratch = /nope: not a folder",
        ),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(downscale, store, tmp_path, arguments, given, message):
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "letter.txt").write_text("keep me")
    before = sorted(path for path in tmp_path.rglob("*") if "model" not in path.parts)
    options = {} if given is None else {"given": [store.url if one == "STORE" else one for one in given]}
    status, _, error = downscale(*arguments, **options)
    assert status == 2
    assert len(error) == 1, error
    assert message in error[0]
    after = sorted(path for path in tmp_path.rglob("*") if "model" not in path.parts)
    assert [path for path in after if path.suffix != ".lock"] == before


def test_other_settings_are_refused_and_overwrite_replaces(downscale, tmp_path):
    assert downscale("--output", "fine.zarr")[0] == 0
    before = content(tmp_path / "fine.zarr")
    status, _, error = downscale("--output", "fine.zarr", "--seed", "5")
    assert status == 2
    assert "seed 0 (now 5)" in error[-1]
    assert "--overwrite" in error[-1]
    assert content(tmp_path / "fine.zarr") == before
    assert downscale("--output", "fine.zarr", "--seed", "5", "--overwrite")[0] == 0
    assert content(tmp_path / "fine.zarr") != before


def test_dry_run_writes_nothing(downscale, tmp_path):
    status, said, _ = downscale("--output", "fine.zarr", "--dry-run")
    assert status == 0
    assert any(line.startswith("tiles: 9 of 24 x 24 pixels, every 16") for line in said)
    assert not (tmp_path / "fine.zarr").exists()


@pytest.mark.parametrize(
    ("given", "last"),
    [
        ("2010-08-26T00:20", "2 times"),
        ("2010-08-26T00:25", "2 times"),
        ("2010-08-26", "64 times"),
        ("2010-08-26:2010-08-27", "64 times"),
        ("2010-08-26T00:10/2010-08-26T00:36", "6 times"),
    ],
)
def test_forms_of_the_period(downscale, given, last):
    status, said, error = downscale("--output", "fine.zarr", "--dry-run", "--time", given)
    assert status == 0, error
    assert any(f" at {last} on " in line for line in said), said
    if last == "2 times":  # the coarse frame from 00:15 to 00:25
        assert any("2010-08-26T00:25:00 to 2010-08-26T00:25:00" in line for line in said), said


def test_a_card_that_says_less_takes_what_is_known_otherwise(downscale, finished_model):
    path = Path(finished_model) / "model.json"
    card = json.loads(path.read_text())
    for change in ({"data": {}}, {"data": {"settings": None}, "sampling": None}, {"data": None}):
        path.write_text(json.dumps(card | change))
        status, _, error = downscale("--output", "fine.zarr", "--dry-run")
        assert (status, len(error)) == (2, 1), error
        assert "--tile N" in error[0]
    less = {key: value for key, value in card.items() if key not in ("data", "sampling", "scores", "family")}
    path.write_text(json.dumps(less))
    status, said, error = downscale("--output", "fine.zarr", "--dry-run", "--tile", "24", "--exceed", "1")
    assert status == 0, error
    assert any(line.startswith("tiles: 9 of 24 x 24 pixels, every 16") for line in said)
    status, _, error = downscale("--output", "fine.zarr", "--dry-run", "--tile", "24", "--exceed", "-1")
    assert (status, len(error)) == (2, 1)  # the units are known once the input is open
    assert "downscaling.exceed = -1" in error[0]


def test_the_schedule_is_the_model_s_own(downscale, finished_model):
    path = Path(finished_model) / "model.json"
    card = json.loads(path.read_text())
    card["settings"]["noise_steps"] = 50
    path.write_text(json.dumps(card))
    assert downscale("--output", "fine.zarr", "--dry-run", "--steps", "50")[0] == 0
    status, _, error = downscale("--output", "fine.zarr", "--dry-run", "--steps", "51")
    assert (status, len(error)) == (2, 1)
    assert "model.noise_steps = 50" in error[0]


@pytest.mark.cluster
@pytest.mark.slow
def test_on_a_cluster_it_is_the_same_and_a_worker_may_die(store, finished_model, tmp_path):
    command = [
        sys.executable, JOB, "--model", finished_model, "--input", store.url, "--coarsen", "--members", "2",
        "--steps", "2",
    ]  # fmt: skip
    environ = os.environ | {"RAY_TMPDIR": f"/tmp/ds-{os.getpid()}"}
    for name, more in (("one.zarr", []), ("two.zarr", ["--workers", "2"])):
        done = subprocess.run(
            [*command, "--output", name, *more], cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env=environ,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = (xr.open_zarr(tmp_path / name).precipitation for name in ("one.zarr", "two.zarr"))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
