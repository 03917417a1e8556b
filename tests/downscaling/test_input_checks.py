"""What does not fit a model is refused in one line, or told where it cannot be known."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import FactorPair, UserError
from pipeline.data.covariates import Covariate
from pipeline.downscaling.checks import check_thresholds
from pipeline.downscaling.coarse_input import open_input
from pipeline.downscaling.destination import Destination
from pipeline.downscaling.opening import InputRequest
from pipeline.downscaling.options import period, refuse_settings
from pipeline.ingest.inputs import Request
from pipeline.sources.readers import Selection
from pipeline.store.field_store import write_store

START = np.datetime64("2020-01-01", "s")
CARD = {
    "variable": "precipitation",
    "units": "mm/h",
    "cadence_seconds": 300.0,
    "pixel": [1.0, 1.0],
    "pixel_units": ["km", "km"],
    "crs": "+proj=stere",
}


@pytest.fixture
def opened(make_spec, tmp_path):
    """Open a store of coarse frames (8, 6, 7) for the pair 4x2, both changed as wanted."""

    def opened(
        shape=(8, 6, 7), cadence=600, side=4.0, axis_units="km", values=None, pair=(4, 2), data=None,
        selection=None, coarsen=False, statics=(), dynamics=(), request=None, y=None, **store
    ):  # fmt: skip
        made = write_store(
            str(tmp_path / "s.zarr"),
            np.ones(shape, "f4") if values is None else values,
            times=START + np.arange(1, shape[0] + 1) * np.timedelta64(cadence, "s"),
            y=side * np.arange(shape[1]) if y is None else y,
            x=side * np.arange(shape[2]),
            attributes={name: {"units": axis_units} for name in ("y", "x")},
            **{"name": "s", "crs": "+proj=stere"} | store,
        )
        spec = replace(make_spec(), pair=FactorPair(*pair), statics=statics, dynamics=dynamics)
        known = {key: value for key, value in (CARD | (data or {})).items() if value is not None}
        wanted = InputRequest(
            Request((made.url,), selection=selection, **request or {}), str(tmp_path / "i"), coarsen=coarsen
        )
        return open_input(wanted, spec, {"data": known})

    return opened


def test_what_fits(opened):
    found = opened()
    assert found.notes == ()
    assert (len(found), found.grid, found.cadence_seconds) == (8, (6, 7), 300)
    assert found.origin[1:] == (-2, -2)


@pytest.mark.parametrize(
    ("first", "last", "frames"),
    [(1201, 1201, [2]), (1200, 1200, [1]), (1201, 1799, [2]), (1201, 1800, [2]), (1, 1201, [0, 1])],
)
def test_a_period_inside_a_coarse_frame_stands_for_it(opened, first, last, frames):
    found = opened(selection=Selection(START + first, START + last))
    assert found.frames.tolist() == frames


COVARIATE = (Covariate(name="orography", mean=0.0, spread=1.0),)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"cadence": 900}, ["every 15 min", "10 min (2 x 5 min)"]),
        ({"cadence": 300}, ["every 5 min", "--coarsen"]),
        ({"coarsen": True, "side": 1.0}, ["every 10 min", "leave --coarsen out"]),
        ({"cadence": 601, "data": {"cadence_seconds": None}}, ["every 601 s", "whole seconds"]),
        ({"side": 4.1}, ["4.1 km", "4 x", "1 km"]),
        ({"side": 3.9}, ["3.9 km"]),
        ({"side": 4.0, "axis_units": "m"}, ["4 m"]),
        ({"side": 4.0, "coarsen": True, "cadence": 300}, ["4 km", "pixels of 1 km"]),
        ({"y": np.array([0, 4, 8, 12, 16, 21.0])}, ["y is not evenly spaced"]),
        ({"shape": (8, 1, 7)}, ["one value of y"]),
        ({"units": "K"}, ["its units are K", "mm/h"]),
        ({"data": {"units": "K"}}, ["its units are mm/h", "the model's K"]),
        ({"statics": COVARIATE}, ["orography", "--statics"]),
        ({"statics": COVARIATE, "coarsen": True, "cadence": 300, "side": 1.0, "shape": (8, 12, 12)},
         ["orography", "it has: none"]),
        ({"dynamics": COVARIATE}, ["no dynamic covariate orography"]),
        ({"pair": (1, 2), "side": 1.0}, ["6 x 7 cells", "at least 8 x 8", "larger grid"]),
        ({"selection": Selection(bbox=(0, 0, 3, 9))}, ["3 x 1 cells", "larger --bbox"]),
        ({"selection": Selection(bbox=(1, 1, 3, 3))}, ["--bbox 1,1,3,3", "x runs from 0 to 24"]),
        ({"selection": Selection(bbox=(0, 99, 9, 100))}, ["--bbox 0,99,9,100", "y from 0 to 20"]),
        ({"selection": Selection(START, START)}, ["--time 2020-01-01T00:00:00/2020", "no coarse frame"]),
        ({"selection": Selection(START + 4801, START + 4900)}, ["no coarse frame"]),
        ({"selection": Selection(START + 9999)}, ["to 2020-01-01T01:20:00, 10 min apart"]),
        ({"coarsen": True, "cadence": 300, "side": 1.0, "pair": (4, 9), "shape": (8, 12, 12)},
         ["8 frames make no coarse one"]),
        ({"values": np.full((8, 6, 7), np.nan, "f4")}, ["missing everywhere"]),
        ({"request": {"units": "mm/h"}}, ["--units mm/h", "leave it out"]),
        ({"request": {"variable": "tp"}}, ["--variable tp", "precipitation"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_does_not_fit_is_refused(opened, one_line, changes, parts):
    with pytest.raises(UserError) as raised:
        opened(**changes)
    one_line(raised, *parts)


@pytest.mark.parametrize(
    "changes",
    [{"side": 4.03}, {"side": 3970.0, "axis_units": "m"}, {"side": 4.0, "axis_units": "Kilometres"}],
)
def test_a_hundredth_of_a_cell_does_not_matter(opened, changes):
    assert opened(**changes).notes == ()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"data": {"pixel": None}}, "older version"),
        ({"axis_units": "degrees_north", "side": 0.25}, "the store's y is in degrees_north"),
        ({"crs": "+proj=merc"}, "map projection"),
        ({"variable": "rain"}, "the store's field is rain"),
        ({"units": "mm"}, "multiplied by 6"),
    ],
)
def test_what_cannot_be_known_is_told(opened, changes, part):
    assert any(part in note and "\n" not in note for note in opened(**changes).notes)


def test_an_old_card_says_less(opened):
    found = opened(data=dict.fromkeys(CARD), units="K")
    assert (found.units, found.archive.factor) == ("K", 1)


@pytest.mark.parametrize(
    ("units", "wanted", "factor"),
    [("K", "K", 1), ("mm/h", "mm h-1", 1), ("mm", "mm", 0.5), ("mm/h", "mm", 1 / 12), ("kg m-2", "mm/h", 6)],
)
def test_units_are_turned_into_the_models(opened, units, wanted, factor):
    """A sum is one over the time between the frames of its own field: 10 minutes here, 5 in training."""
    assert opened(units=units, data={"units": wanted}).archive.factor == pytest.approx(factor, rel=1e-12)


def test_a_part_with_nothing_in_it_is_refused(opened, one_line):
    values = np.ones((8, 6, 7), "f4")
    values[4:, :, :3] = np.nan
    selection = Selection(START + 5 * 600, bbox=(0, 0, 8, 20))
    with pytest.raises(UserError) as raised:
        opened(values=values, selection=selection)
    one_line(raised, "missing everywhere", "--bbox")


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("2010-08-26T03:00", "2010-08-26T03:00:00", "2010-08-26T03:00:59"),
        ("2010-08-26", "2010-08-26T00:00:00", "2010-08-26T23:59:59"),
        ("2010-08", "2010-08-01T00:00:00", "2010-08-31T23:59:59"),
        ("2010-08-26:2010-08-27", "2010-08-26T00:00:00", "2010-08-27T23:59:59"),
        ("2010-08-26/2010-08-27", "2010-08-26T00:00:00", "2010-08-27T23:59:59"),
        ("2010-08-26T03:00/2010-08-26T06:30:15", "2010-08-26T03:00:00", "2010-08-26T06:30:15"),
        ("2010-08-26T03:00/", "2010-08-26T03:00:00", None),
        (":2010-08-26", None, "2010-08-26T23:59:59"),
        (None, None, None),
    ],
)
def test_a_period_and_its_two_ends(text, start, stop):
    found = period(text)
    expected = [None if end is None else np.datetime64(end, "s") for end in (start, stop)]
    assert [found.start, found.stop] == expected


def test_times_are_in_utc(one_line):
    with pytest.raises(UserError) as raised:
        period("2010-08-26T03:00+02:00")
    one_line(raised, "--time 2010-08-26T03:00+02:00", "times are in UTC")


@pytest.mark.parametrize(
    "text", ["2010-08-26T03:00:2010-08-26T06:00", "yesterday", "03:00", "", "/", ":", "2010/08/26", "1:2:3"]
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_period_is_told_how_to_write_one_which_is_taken(text, one_line):
    with pytest.raises(UserError) as raised:
        period(text)
    one_line(raised, f"--time {text}" if text.strip("/:") else "--time '", "A/B")
    example = str(raised.value).partition("as in ")[2].partition(",")[0]
    assert period(example).start == np.datetime64("2020-06-01T06:00", "s")


@pytest.mark.parametrize("text", ["training.batch=3", "evaluation={}", "data.patch=8", "preset=tiny"])
def test_a_setting_that_would_pass_unheeded_is_refused(text, one_line):
    with pytest.raises(UserError) as raised:
        refuse_settings([text])
    one_line(raised, f"--set {text}", f"not heed {text.partition('=')[0]}", "downscaling")


def test_settings_that_are_heeded():
    heeded = (
        "seed=1 sampling.steps=3 downscaling.tile=8 tracking.uri=u output=o ray.cpus=2 sampling={steps: 3}"
    )
    refuse_settings(heeded.replace("{steps: ", "{steps:").split())


@pytest.mark.parametrize(("units", "amount"), [("mm/h", -5), ("kg m-2", -0.1), ("K", float("nan"))])
def test_thresholds_that_no_field_can_cross(units, amount, one_line):
    check_thresholds((0.0, 10.0), units)
    check_thresholds((-5.0,), "K")
    with pytest.raises(UserError) as raised:
        check_thresholds((10.0, amount), units)
    one_line(raised, f"exceed = {amount:g}", units)


@pytest.mark.parametrize(
    ("name", "is_file"), [("x.nc", True), ("x.NC", True), ("x", False), ("a.nc.zarr", False)]
)
def test_names_of_outputs(tmp_path, name, is_file):
    found = Destination.of(f"{tmp_path}/{name}")
    assert found.is_file == is_file
    assert found.store == (f"{tmp_path}/{name}.zarr" if is_file else f"{tmp_path}/{name}")


@pytest.mark.parametrize("name", ["x.nc4", "x.netcdf", "x.TIF", "x.h5", "x.grib", "tar/x.zip/"])
def test_names_of_formats_that_are_not_written(tmp_path, name, one_line):
    with pytest.raises(UserError) as raised:
        Destination.of(f"{tmp_path}/{name}")
    one_line(raised, name.rstrip("/"), "x.zarr", "x.nc")


def test_looking_for_a_place_to_write_leaves_no_trace(tmp_path):
    before = tmp_path.stat().st_mtime_ns
    Destination.of(f"{tmp_path}/new/fine.zarr").check()
    assert (list(tmp_path.iterdir()), tmp_path.stat().st_mtime_ns) == ([], before)
