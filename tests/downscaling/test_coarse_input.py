"""What goes into a downscaling is what training has seen, wherever it comes from, whatever part is taken."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from pipeline import FactorPair, UserError
from pipeline.data.covariates import Covariate, Covariates
from pipeline.data.splits import Segment
from pipeline.data.view import FieldView
from pipeline.data.windows import Windows
from pipeline.downscaling.coarse_input import open_input
from pipeline.downscaling.opening import InputRequest
from pipeline.ingest.inputs import Request
from pipeline.model_file import describe_data
from pipeline.sources.readers import Selection
from pipeline.store.field_store import FieldStore, write_store

STATICS = (Covariate(name="orography", mean=280.0, spread=70.0),)
DYNAMICS = (Covariate(name="humidity", mean=0.5, spread=2.0), Covariate(name="u10", mean=1.0, spread=3.0))
BATCH = ("coarse", "coarse_mask", "statics", "dynamics")


@pytest.fixture(scope="module")
def fine(store, rain, tmp_path_factory):
    """The shared rain with missing pixels, and covariates, of which the dynamic ones have holes too."""
    rng = np.random.default_rng(3)
    dynamics = {name: rng.normal(size=rain.shape).astype("f4") for name in ("humidity", "u10")}
    dynamics["u10"][:20, 20:30, 20:30] = np.nan
    rain = rain.copy()
    rain[10:17, 16:, :] = np.nan
    return write_store(
        str(tmp_path_factory.mktemp("fine") / "fine.zarr"), rain, times=store.times, y=store.y[::-1],
        x=store.x, name="fine", statics={"orography": store.static("orography")}, dynamics=dynamics,
        attributes={"y": {"units": "m"}, "x": {"units": "m"}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def make_model(fine, tiny, make_spec):
    """A specification and a card, as a training on the fine store leaves them."""

    def make(pair=(4, 2), context=3, statics=STATICS, dynamics=DYNAMICS, **data):
        spec = replace(make_spec(context=context), pair=FactorPair(*pair), statics=statics, dynamics=dynamics)
        known = describe_data(fine, tiny) | data
        card = {"data": {key: value for key, value in known.items() if value is not None}}
        return SimpleNamespace(spec=spec, card=card)

    return make


@pytest.fixture
def opened(tmp_path):
    def opened(model, *paths, selection=None, statics=None, coarsen=False, overwrite=False, **request):
        wanted = InputRequest(
            Request(tuple(map(str, paths)), selection=selection, **request),
            str(tmp_path / "out.zarr.input"),
            None if statics is None else str(statics),
            coarsen,
            overwrite,
        )
        return open_input(wanted, model.spec, model.card)

    return opened


@pytest.fixture(scope="module")
def coarse(fine, tmp_path_factory):
    """The fine store's means over 4 x 4 pixels and 2 frames, as an archive of their own."""

    def mean(field):
        blocks = field.reshape(32, 2, 12, 4, 12, 4)
        known = np.isfinite(blocks).sum(axis=(1, 3, 5))
        values = np.nansum(blocks.astype("f8"), axis=(1, 3, 5)) / np.maximum(known, 1)
        return np.where(known >= 16, values, np.nan).astype("f4")

    return write_store(
        str(tmp_path_factory.mktemp("coarse") / "coarse.zarr"), mean(fine.read(0, 64)), name="coarse",
        times=fine.times[1::2], y=fine.y.reshape(12, 4).mean(axis=1), x=fine.x.reshape(12, 4).mean(axis=1),
        dynamics={name: mean(fine.read(0, 64, variable=name)) for name in fine.info.dynamics},
        attributes={"y": {"units": "m"}, "x": {"units": "m"}},
    )  # fmt: skip


@pytest.mark.parametrize("factors", [(4, 2), (3, 4), (1, 3), (8, 1)])
@pytest.mark.parametrize("context", [1, 3])
def test_a_coarsened_field_gives_the_batches_of_training(fine, make_model, opened, factors, context):
    model = make_model(factors, context)
    found = opened(model, fine.url, coarsen=True)
    s, tau = factors
    corners = [(0, 0), (0, 24), (24, 0), (s, 2 * s)]
    frames = range(context - 1, len(found), 5)
    places = [(k * tau, y, x) for k in frames for y, x in corners]
    windows = Windows(
        FieldView.load(fine, Segment(0, 64), 4.0), FactorPair(*factors), context, 24, np.array(places),
        covariates=Covariates(STATICS, DYNAMICS),
    )  # fmt: skip
    trained = windows.batch(list(range(len(places))))
    assert not trained.coarse_mask.all()
    parts = [found.batch(i, corners, (24, 24)) for i in frames]
    for name in BATCH:
        torch.testing.assert_close(torch.cat([getattr(part, name) for part in parts]), getattr(trained, name))
    position = torch.cat([part.position for part in parts])
    assert torch.equal(position - position[0], trained.position - trained.position[0])
    for part in parts:
        assert part.fine.shape == part.mask.shape == (4, tau, 24, 24)
        assert not part.fine.any()
        assert part.mask.all()
        assert part.weights.tolist() == [1, 1, 1, 1]


def test_bands_make_no_difference(fine, make_model, opened, monkeypatch):
    model = make_model()
    found = opened(model, fine.url, coarsen=True).batch(7, [(0, 0)], (48, 48))
    monkeypatch.setattr("pipeline.downscaling.archive._BAND_VALUES", 5000)
    banded = opened(model, fine.url, coarsen=True).batch(7, [(0, 0)], (48, 48))
    assert all(torch.equal(getattr(found, name), getattr(banded, name)) for name in BATCH)


def test_an_archive_gives_what_its_fine_field_does(fine, coarse, make_model, opened):
    model = make_model()
    one, other = opened(model, coarse.url, statics=fine.url), opened(model, fine.url, coarsen=True)
    assert one.grid == other.grid == (12, 12)
    assert one.origin == other.origin
    assert one.frames.tolist() == other.frames.tolist()
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_allclose(one.fine_y, fine.y, rtol=1e-12)
    np.testing.assert_array_equal(other.fine_y, fine.y)
    np.testing.assert_allclose(one.fine_x, fine.x, rtol=1e-12)
    for i in (0, 1, 12, 31):
        assert one.fine_times(i).tolist() == fine.times[2 * i : 2 * i + 2].tolist()
        batches = [found.batch(i, [(0, 0), (16, 24)], (32, 24)) for found in (one, other)]
        for name in (*BATCH, "position"):
            torch.testing.assert_close(*(getattr(batch, name) for batch in batches))


def test_frames_before_the_first_are_missing(fine, coarse, make_model, opened):
    found = opened(make_model(), coarse.url, statics=fine.url)
    batch = found.batch(1, [(0, 0)], (48, 48))
    assert batch.coarse_mask.flatten(2).any(dim=2).tolist() == [[False, True, True]]
    assert not batch.coarse[:, 0].any()
    assert not batch.dynamics[:, 0].any()
    assert batch.dynamics[:, 1].any()


def test_a_part_of_an_archive_lies_where_it_does_in_the_whole(fine, coarse, make_model, opened):
    model = make_model()
    whole = opened(model, coarse.url, statics=fine.url)
    box = (float(coarse.x[2]), float(coarse.y[9]), float(coarse.x[8]) + 10, float(coarse.y[3]))
    selection = Selection(coarse.times[10], coarse.times[12], box)
    part = opened(model, coarse.url, statics=fine.url, selection=selection)
    assert (part.rows, part.columns) == (slice(3, 10), slice(2, 9))
    assert part.times.tolist() == coarse.times[10:13].tolist()
    assert part.position(1, 4, 8) == whole.position(11, 16, 16)
    np.testing.assert_array_equal(part.fine_y, whole.fine_y[12:40])
    one, other = part.batch(1, [(4, 8)], (16, 20)), whole.batch(11, [(16, 16)], (16, 20))
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in (*BATCH, "position"))


def test_noise_is_keyed_by_times_since_1970(fine, coarse, make_model, opened):
    found = opened(make_model(), coarse.url, statics=fine.url)
    first = fine.times[6].astype("int64") // 300
    assert found.position(3, 0, 0)[0] == first
    assert found.position(4, 0, 0)[0] == first + 2


def test_the_frame_that_is_refined(fine, coarse, make_model, opened):
    found = opened(make_model(), coarse.url, statics=fine.url)
    values, known = found.last(6, slice(2, 9), slice(0, 5))
    stored = coarse.read(6, 7, slice(2, 9), slice(0, 5))[0]
    assert not known.all()
    np.testing.assert_array_equal(known, np.isfinite(stored))
    np.testing.assert_array_equal(values, np.nan_to_num(stored))


def test_a_copy_in_another_process_reads_anew(fine, coarse, make_model, opened):
    found = opened(make_model(), coarse.url, statics=fine.url)
    before = found.batch(5, [(0, 0)], (48, 48))
    copy = pickle.loads(pickle.dumps(found))
    assert not copy._kept
    assert "values" not in vars(copy.statics)
    after = copy.batch(5, [(0, 0)], (48, 48))
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in (*BATCH, "position"))
    assert copy.fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("corner", "side"), [((2, 0), (8, 8)), ((0, 0), (8, 10)), ((-4, 0), (8, 8)), ((0, 44), (8, 8))]
)
def test_a_window_is_of_whole_cells_of_the_domain(fine, coarse, make_model, opened, corner, side):
    found = opened(make_model(), coarse.url, statics=fine.url)
    with pytest.raises(ValueError, match="window"):
        found.batch(0, [(0, 0), corner], side)


@pytest.mark.parametrize(("units", "by"), [("mm/h", 1), ("kg m-2 s-1", 3600), ("mm", 6)])
def test_values_come_in_the_models_units(coarse, make_model, opened, tmp_path, units, by):
    """A sum of 10 minutes is six times as much in an hour."""
    other = write_store(
        str(tmp_path / "other.zarr"), coarse.read(0, 32), times=coarse.times, y=coarse.y, x=coarse.x,
        name="other", units=units,
    )  # fmt: skip
    found = opened(make_model(statics=(), dynamics=()), other.url)
    assert found.units == "mm/h"
    batch = found.batch(20, [(0, 0)], (48, 48))
    np.testing.assert_allclose(batch.last[0, 0], by * np.nan_to_num(coarse.read(20, 21)[0]), rtol=1e-6)
    assert batch.statics.shape == (1, 0, 48, 48)
    assert batch.dynamics.shape == (1, 3, 0, 12, 12)


def write_statics(path, fine, *, rows=slice(None), shift=0.0, values=None):
    values = fine.static("orography") if values is None else values
    data = xr.Dataset(
        {"orography": (("lat", "lon"), values[rows])},
        coords={"lat": fine.y[rows] + shift, "lon": fine.x.astype("f4")},
    )
    data.to_netcdf(path, engine="h5netcdf")
    return path


def test_static_fields_of_a_file_upside_down(fine, coarse, make_model, opened, tmp_path):
    model = make_model()
    path = write_statics(tmp_path / "o.nc", fine, rows=slice(None, None, -1))
    one, other = (opened(model, coarse.url, statics=place) for place in (path, fine.url))
    batches = [found.batch(3, [(4, 8)], (40, 40)) for found in (one, other)]
    assert torch.equal(batches[0].statics, batches[1].statics)
    expected = (fine.static("orography")[4:44, 8:48] - 280) / 70
    np.testing.assert_allclose(batches[0].statics[0, 0], expected, rtol=1e-5, atol=1e-6)
    assert one.fingerprint == other.fingerprint


def test_static_values_that_are_missing_are_told(fine, coarse, make_model, opened, tmp_path):
    values = fine.static("orography").copy()
    values[:12] = np.nan
    found = opened(make_model(), coarse.url, statics=write_statics(tmp_path / "o.nc", fine, values=values))
    assert any("orography" in note and "25.0%" in note for note in found.notes)
    assert not found.batch(0, [(0, 0)], (12, 48)).statics.any()


@pytest.mark.parametrize("change", [{"rows": slice(0, 40)}, {"shift": 300.0}, {"rows": slice(0, 1)}])
def test_static_fields_of_another_grid_are_refused(
    fine, coarse, make_model, opened, tmp_path, change, one_line
):
    path = write_statics(tmp_path / "o.nc", fine, **change)
    with pytest.raises(UserError) as raised:
        opened(make_model(), coarse.url, statics=path)
    one_line(raised, str(path), "y from")


def write_archive(path, coarse, frames, **more):
    """Write frames of the coarse store as a NetCDF file."""
    fields = {
        name: (("time", "y", "x"), np.concatenate([coarse.read(k, k + 1, variable=name) for k in frames]))
        for name in (coarse.info.variable, *coarse.info.dynamics)
    }
    data = xr.Dataset(
        fields,
        coords={
            "time": coarse.times[frames].astype("datetime64[ns]"),
            "y": ("y", coarse.y, {"units": "m"}),
            "x": ("x", coarse.x, {"units": "m"}),
        },
    )
    data[coarse.info.variable].attrs["units"] = "mm/h"
    data.to_netcdf(path, engine="h5netcdf")
    return path


@pytest.fixture
def archives(coarse, tmp_path):
    """Two files, with frames 12 and 13 in neither of them."""
    return [
        write_archive(tmp_path / f"{name}.nc", coarse, frames)
        for name, frames in (("a", range(12)), ("b", range(14, 32)))
    ]


def test_files_are_ingested_and_gaps_are_no_frames(fine, coarse, archives, make_model, opened):
    model = make_model()
    found = opened(model, *archives, statics=fine.url)
    assert found.frames.tolist() == [k for k in range(32) if k not in (12, 13)]
    assert found.store.info.dynamics == ("humidity", "u10")
    assert opened(model, *archives, statics=fine.url).fingerprint == found.fingerprint
    whole = opened(model, coarse.url, statics=fine.url)
    one, other = found.batch(5, [(8, 4)], (24, 24)), whole.batch(5, [(8, 4)], (24, 24))
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in (*BATCH, "position"))
    after = found.batch(12, [(0, 0)], (48, 48))  # frame 14: its context is the gap
    assert after.coarse_mask.flatten(2).any(dim=2).tolist() == [[False, False, True]]
    assert not after.dynamics[:, :2].any()
    assert found.position(12, 0, 0) == whole.position(14, 0, 0)


def test_files_keep_the_frames_before_a_period(fine, coarse, archives, make_model, opened):
    box = (float(coarse.x[2]), float(coarse.y[9]), float(coarse.x[8]), float(coarse.y[3]))
    selection = Selection(coarse.times[20], coarse.times[21], box)
    found = opened(make_model(), *archives, statics=fine.url, selection=selection)
    assert found.times.tolist() == coarse.times[20:22].tolist()
    assert found.store.shape == (4, 7, 7)
    whole = opened(make_model(), coarse.url, statics=fine.url)
    one, other = found.batch(0, [(0, 0)], (28, 28)), whole.batch(20, [(12, 8)], (28, 28))
    for name in BATCH:
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    assert torch.equal(one.position, other.position)


def test_frames_of_other_files_are_not_refined_too(fine, archives, make_model, opened, one_line):
    model = make_model()
    opened(model, *archives, statics=fine.url)
    with pytest.raises(UserError) as raised:
        opened(model, archives[1], statics=fine.url)
    one_line(raised, "out.zarr.input", "12 frames", "--overwrite")
    assert len(opened(model, archives[1], statics=fine.url, overwrite=True)) == 18


def test_gaps_of_a_fine_field(fine, make_model, opened, tmp_path):
    """A coarse frame is left out where fewer than half of its fine frames are there."""
    values = fine.read(0, 24)
    keep = [k for k in range(24) if k not in (4, 5, 8, 9, 10)]
    data = xr.Dataset(
        {"precipitation": (("time", "y", "x"), values[keep], {"units": "mm/h"})},
        coords={
            "time": fine.times[keep].astype("datetime64[ns]"),
            "y": ("y", fine.y, {"units": "m"}),
            "x": ("x", fine.x, {"units": "m"}),
        },
    )
    data.to_netcdf(tmp_path / "f.nc", engine="h5netcdf")
    model = make_model((4, 4), statics=(), dynamics=())
    found = opened(model, tmp_path / "f.nc", coarsen=True)
    assert found.frames.tolist() == [0, 1, 3, 4, 5]
    assert found.times.tolist() == fine.times[[3, 7, 15, 19, 23]].tolist()
    batch = found.batch(2, [(0, 0)], (48, 48))
    assert batch.coarse_mask[0].flatten(1).any(dim=1).tolist() == [True, False, True]
    # Of a fine field all is ingested: which frames make a coarse one does not depend on the period.
    box = (float(fine.x[9]), float(fine.y[-1]), float(fine.x[-1]), float(fine.y[10]))
    part = opened(model, tmp_path / "f.nc", coarsen=True, selection=Selection(fine.times[17], bbox=box))
    assert part.times.tolist() == fine.times[[19, 23]].tolist()
    assert part.store.info.fingerprint == found.store.info.fingerprint
    assert (part.rows, part.columns) == (slice(3, 12), slice(2, 12))


def test_the_attributes_of_the_input(fine, coarse, make_model, opened):
    found = opened(make_model(), coarse.url, statics=fine.url)
    assert found.attributes["y"]["units"] == "m"
    assert found.attributes["precipitation"]["units"] == "mm/h"
    assert isinstance(found.store, FieldStore)
