"""A downscaling's output in a bucket: carried on, looked at, copied."""

import contextlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from pipeline import UserError
from pipeline.downscaling.netcdf import to_netcdf
from pipeline.downscaling.output import writing
from pipeline.downscaling.record import state

outputs = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "downscaling" / "outputs.py")))


def test_an_output_in_a_bucket_is_carried_on_and_read(folder, tmp_path):
    url, plan = (
        f"{folder}/fine.zarr",
        outputs.plan(y=0.5 + np.arange(16), members=1, quantiles=(), exceed=(0.1,)),
    )
    with contextlib.suppress(RuntimeError), writing(url, plan) as (output, record):
        with pytest.raises(UserError, match="another downscaling"), writing(url, plan):
            pass
        outputs.write_part(output, 0, 0)
        record.mark(0, 0)
        raise RuntimeError
    assert state(url) == "incomplete"
    assert outputs.complete(url, plan) == 5
    assert state(url) == "complete"
    to_netcdf(url, str(tmp_path / "fine.nc"))
    with xr.open_zarr(url, chunks=None) as fine, xr.open_dataset(tmp_path / "fine.nc") as copied:
        xr.testing.assert_identical(fine.load(), copied.load())
        np.testing.assert_array_equal(fine.precipitation[0, 6:], outputs.field(2, 0, 16))
