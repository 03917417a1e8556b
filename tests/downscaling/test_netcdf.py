"""An output as one NetCDF file."""

import os

import h5netcdf
import pytest
import xarray as xr

from pipeline import UserError
from pipeline.downscaling.netcdf import refuse_netcdf, to_netcdf
from pipeline.downscaling.output import writing


def test_netcdf_holds_the_same(done, tmp_path):
    path = str(tmp_path / "out" / "fine.nc")
    to_netcdf(done, path)
    with xr.open_zarr(done, chunks=None) as zarred, xr.open_dataset(path, engine="h5netcdf") as copied:
        xr.testing.assert_identical(zarred.load(), copied.load())
        assert copied.precipitation.encoding["_FillValue"] != copied.precipitation.encoding["_FillValue"]
    assert os.listdir(tmp_path / "out") == ["fine.nc"]


def test_netcdf_of_the_same_output_stays_and_another_file_is_kept(done, tmp_path, one_line):
    path = tmp_path / "fine.nc"
    to_netcdf(done, str(path))
    before = path.stat().st_mtime_ns
    to_netcdf(done, str(path))
    assert path.stat().st_mtime_ns == before
    path.write_bytes(b"a thesis")
    with pytest.raises(UserError) as raised:
        to_netcdf(done, str(path))
    one_line(raised, str(path), "another file", "--overwrite")
    assert path.read_bytes() == b"a thesis"
    to_netcdf(done, str(path), overwrite=True)
    with h5netcdf.File(path) as file:
        assert file.variables["precipitation"].shape == (2, 8, 1032, 24)


def test_netcdf_is_refused_where_it_would_not_do(outputs, done, tmp_path, one_line):
    with pytest.raises(UserError) as raised:
        to_netcdf(done, str(tmp_path / "fine.nc"), limit=1000)
    one_line(raised, "fine.nc", "GiB", "Zarr")
    plan = outputs.plan(times=outputs.times(range(10_000)))
    with pytest.raises(UserError, match=r"12.9 GiB is more than the 2 GiB"):
        refuse_netcdf(plan.nbytes, "fine.nc")
    with pytest.raises(UserError, match="local path"):
        refuse_netcdf(1, "memory://bucket/fine.nc")
    half = str(tmp_path / "half")
    with writing(half, outputs.plan()), pytest.raises(UserError, match="not complete"):
        to_netcdf(half, str(tmp_path / "fine.nc"))
    assert not (tmp_path / "fine.nc").exists()
