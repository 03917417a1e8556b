"""The same command given twice, and what refused commands and dry runs leave: nothing."""

import os

import numpy as np
import pytest
import torch
import xarray as xr


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock")


@pytest.fixture
def files_of(store, pair, tmp_path):
    """Write coarse files of the shared store, (name, first, last frame), and give the command for them."""
    fine = store.to_xarray().precipitation.isel(time=slice(0, 24)).fillna(0).load()
    s, tau = pair.space, pair.time
    means = fine.values.reshape(12, tau, 48 // s, s, 48 // s, s).mean(axis=(1, 3, 5))
    y, x = (fine[axis].values.reshape(-1, s).mean(axis=1) for axis in ("y", "x"))
    data = xr.Dataset(
        {"precipitation": (("time", "y", "x"), means.astype("f4"), {"units": "mm/h"})},
        {"time": fine.time.values[tau - 1 :: tau], "y": y, "x": x},
    )

    def files_of(name, first=0, last=12, factor=1.0):
        part = data.isel(time=slice(first, last))
        part = part.assign(precipitation=(part.precipitation * factor).assign_attrs(units="mm/h"))
        part.to_netcdf(tmp_path / name, engine="h5netcdf")
        return ("--input", name, "--statics", store.url, "--members", "2", "--steps", "2")

    return files_of


def test_a_netcdf_is_all_that_is_left_and_is_known_again(downscale, files_of, tmp_path):
    given = files_of("lr.nc")
    before = tree(tmp_path)
    status, said, error = downscale("--output", "fine.nc", given=given)
    assert status == 0, error
    assert tree(tmp_path) == sorted([*before, "fine.nc"])
    made = (tmp_path / "fine.nc").stat().st_mtime_ns
    status, said, _ = downscale("--output", "fine.nc", given=given)
    assert (status, said[-2]) == (0, "already there, complete and with the same settings")
    assert (tmp_path / "fine.nc").stat().st_mtime_ns == made
    status, _, error = downscale("--output", "fine.nc", "--seed", "5", given=given)
    assert (status, len(error)) == (2, 1)
    assert "fine.nc: it was made with other settings" in error[0]
    with xr.open_dataset(tmp_path / "fine.nc") as file:
        first = file.precipitation.load()
    status, _, error = downscale("--output", "fine.nc", "--seed", "5", "--overwrite", given=given)
    assert status == 0, error
    with xr.open_dataset(tmp_path / "fine.nc") as file:
        assert np.nanmax(np.abs(file.precipitation - first)) > 0.01
    assert tree(tmp_path) == sorted([*before, "fine.nc"])


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_file_of_somebody_else_is_refused_before_anything_is_drawn(downscale, files_of, tmp_path, more):
    given = files_of("lr.nc")
    (tmp_path / "fine.nc").write_bytes(b"a thesis")
    before = tree(tmp_path)
    status, said, error = downscale("--output", "fine.nc", *more, given=given)
    assert (status, len(error), said) == (2, 1, [])
    assert "something else is there already" in error[0]
    assert (tmp_path / "fine.nc").read_bytes() == b"a thesis"
    assert tree(tmp_path) == before


def test_a_netcdf_on_an_object_store_is_refused_first(downscale, files_of):
    status, said, error = downscale("--output", "memory://bucket/fine.nc", given=files_of("lr.nc"))
    assert (status, said) == (2, [])
    assert "NetCDF is written to a local path only" in error[0]


def test_a_dry_run_on_files_writes_nothing(downscale, files_of, tmp_path):
    given = files_of("lr.nc")
    before = tree(tmp_path)
    status, said, error = downscale("--output", "fine.zarr", "--dry-run", given=given)
    assert status == 0, error
    assert any(line.startswith("input: 2 coarse frames of 12 x 12 cells from lr.nc, ") for line in said)
    moment = ("--time", "2010-08-26T00:20")  # inside the frame that ends at 00:25, which is read then
    status, said, error = downscale("--output", "fine.zarr", "--dry-run", *moment, given=given)
    assert status == 0, error
    assert any(line.startswith("input: 1 coarse frames") and "to 2010-08-26T00:25" in line for line in said)
    assert tree(tmp_path) == before


def test_a_foreign_output_is_refused_before_files_are_ingested(downscale, files_of, tmp_path):
    given = files_of("lr.nc")
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "letter.txt").write_text("keep me")
    before = tree(tmp_path)
    status, _, error = downscale("--output", "busy", given=given)
    assert status == 2
    assert "something else is there already" in error[0]
    assert tree(tmp_path) == before


def test_what_a_refused_command_has_ingested_is_replaced_by_the_next(downscale, files_of, tmp_path):
    bad = files_of("long.nc")[:2]  # without the static covariates
    assert downscale("--output", "fine.zarr", given=bad)[0] == 2
    assert (tmp_path / "fine.zarr.input").exists()
    good = files_of("short.nc", 1, 12, factor=2.0)
    status, _, error = downscale("--output", "fine.zarr", given=good)
    assert status == 0, error
    fresh = downscale("--output", "fresh.zarr", given=good)
    assert fresh[0] == 0
    one, two = (xr.open_zarr(tmp_path / name).precipitation for name in ("fine.zarr", "fresh.zarr"))
    np.testing.assert_array_equal(one, two)
    status, _, error = downscale("--output", "fine.zarr", given=files_of("other.nc", 1, factor=3.0))
    assert status == 2  # now fine.zarr needs them
    assert "other values in the store; leave the file out, or add --overwrite" in error[0]


def test_messages_offer_no_flag_of_another_job(downscale, files_of, store, tmp_path):
    given = list(files_of("a.nc"))
    files_of("b.nc", factor=2.0)
    status, _, error = downscale("--output", "fine.zarr", given=["--input", "a.nc", "b.nc", *given[2:]])
    assert (status, len(error)) == (2, 1)
    assert "comes twice" in error[0]
    assert "--keep" not in error[0]
    (tmp_path / "b.nc").write_bytes(b"no NetCDF")
    status, _, error = downscale("--output", "fine.zarr", given=["--input", "a.nc", "b.nc", *given[2:]])
    assert (status, len(error)) == (2, 1)
    assert "--skip" not in error[0]
    status, _, error = downscale("--output", "o.zarr", "--time", "2030-01-01/2030-01-02", given=given)
    assert status == 2
    assert error[0].endswith("change --time")


def test_actors_without_a_gpu_get_the_cpu_whatever_this_machine_has(downscale, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    many = ("--output", "o.zarr", "--workers", "2", "--dry-run")
    assert any(line.endswith("evaluations on cpu") for line in downscale(*many)[1])
    each = ("--set", "downscaling.gpus_per_worker=0.5")
    assert any(line.endswith("evaluations on cuda") for line in downscale(*many, *each)[1])
    status, _, error = downscale(*many, "--device", "cuda")
    assert status == 2
    assert "downscaling.gpus_per_worker" in error[0]


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="no folder where nothing can be made")
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_folder_where_nothing_can_be_made_is_one_line(downscale, more):
    status, said, error = downscale("--output", "/proc/x.zarr", *more)
    assert (status, len(error), said) == (2, 1, []), error
    assert "/proc" in error[0]
