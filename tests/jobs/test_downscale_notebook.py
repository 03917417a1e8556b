"""`pipeline.downscale`, as in a notebook."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import pipeline
from pipeline import UserError
from pipeline.cli import add_config_flags, job_parser, registered_folder
from pipeline.model_file import load_card
from pipeline.tracking import SWEEP, Tracker


def test_from_a_notebook(finished_model, store, pair):
    data = store.to_xarray().precipitation.isel(time=slice(0, 12)).fillna(0).load()
    settings = {"members": 2, "steps": 2, "coarsen": True, "statics": store.url}
    found = pipeline.downscale(finished_model, data, **settings, exceed=[1.0])
    assert found.precipitation.shape == (2, 12, 48, 48)
    assert set(found) >= {"precipitation", "precipitation_exceedance", "precipitation_mean"}
    whole = pipeline.downscale(finished_model, store.url, **settings | {"members": 1}, bbox=None)
    assert whole.precipitation.sizes["time"] == 64
    with pytest.raises(UserError, match="members"):
        pipeline.downscale(finished_model, data, members=1, coarsen=True, exceed=[1.0])


def test_a_registered_model_and_part_of_a_store_and_a_file(finished_model, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = Tracker(uri, "registry", str(tmp_path), {SWEEP: "s"})
    name = "finescale-rain-4x2"
    tracker.register(tracker.start("study", "study"), finished_model, name, crps=0.5, scored_on="f")
    assert tracker.flush(60)
    settings = {"members": 1, "steps": 2, "coarsen": True, "time": ("2010-08-26T00:10", "2010-08-26T00:30")}
    one = pipeline.downscale(f"models:/{name}@champion", store.url, **settings, tracking_uri=uri)
    assert one.precipitation.sizes == {"member": 1, "time": 4, "y": 48, "x": 48}
    written = settings | {"time": "2010-08-26T00:10/2010-08-26T00:30", "bbox": box_of(store)}
    two = pipeline.downscale(Path(finished_model), Path(store.url), **written, output=Path("two.nc"))
    np.testing.assert_array_equal(one.precipitation, two.precipitation)
    two.close()
    assert not list(tmp_path.glob("two.nc.*"))
    parser = job_parser("job", "", "")
    add_config_flags(parser, {"--tracking-uri": ("tracking.uri", "MLflow")})
    found = registered_folder(f"models:/{name}@champion", parser.parse_args(["--tracking-uri", uri]))
    assert found == f"{tmp_path}/runs/registered/{name}-champion"
    assert load_card(found) == load_card(finished_model)
    with pytest.raises(UserError, match="it was made with other settings"):
        pipeline.downscale(finished_model, store.url, **settings, output="two.nc", seed=1)
    other = pipeline.downscale(finished_model, store.url, **settings, output="two.nc", seed=1, overwrite=True)
    assert np.nanmax(np.abs(other.precipitation - one.precipitation)) > 0.01
    other.close()


def box_of(store):
    return f"{store.x.min()},{store.y.min()},{store.x.max()},{store.y.max()}"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "tpu"}, "give cpu, cuda or auto"),
        ({"device": "cuda"}, "finds no GPU here"),
        ({"bbox": (5.0, 0.0, 1.0, 2.0)}, "x0 must be below x1"),
        ({"bbox": (5.0, 0.0, 1.0)}, "four numbers"),
        ({"bbox": "100,5"}, "bbox 100,5: four numbers"),
        ({"bbox": 5}, "bbox: int 5 was given"),
        ({"bbox": (1e8, 1e8, 2e8, 2e8)}, "bbox 1e+08,1e+08,2e+08,2e+08: no cell"),
        ({"time": ("2010-08-27", "2010-08-26")}, "ends before it begins"),
        ({"time": "yesterday"}, "time yesterday: not a period"),
        ({"time": ("2010-08-26", "2010-08-27", "2010-08-28")}, "time: tuple was given; give (first, last)"),
        ({"time": datetime(2010, 8, 26)}, "time: datetime"),
        ({"time": "2030"}, "time 2030-01-01T00:00:00/2030-12-31T23:59:59: no coarse frame"),
        ({"coarse": np.zeros((2, 12, 12))}, "coarse: ndarray was given; give an xarray.DataArray"),
        ({"coarse": None}, "coarse: NoneType None was given"),
        ({"model": 3}, "model: int 3 was given"),
        ({"output": "event.tif"}, ".tif is no format"),
        ({"exceed": [-1.0]}, "with exceed"),
    ],
)
def test_mistakes_in_a_notebook(finished_model, store, monkeypatch, wrong, message, one_line):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError) as raised:
        pipeline.downscale(**{"model": finished_model, "coarse": store.url, "coarsen": True} | wrong)
    one_line(raised, message)
    assert "--" not in str(raised.value)


def test_a_field_of_other_dimensions_is_refused(finished_model):
    field = xr.DataArray(np.zeros((2, 3, 4)), dims=("time", "lat", "lon"))
    with pytest.raises(UserError, match="time, y and x are wanted"):
        pipeline.downscale(finished_model, field)
