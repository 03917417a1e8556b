"""A small store laid out as ARCO ERA5: from north to south, longitudes to 360, hours not filled yet."""

import numpy as np
import pytest
import xarray as xr

from pipeline import UserError
from pipeline.sources.readers import Selection, open_source
from pipeline.sources.rules import OtherVariable, load_rules

HOURS, FILLED = 60, 48


def arco(**attributes):
    rng = np.random.default_rng(0)
    latitude, longitude = np.arange(90, -91, -30.0), np.arange(0, 360, 30.0)
    shape = (HOURS, len(latitude), len(longitude))
    rain = rng.gamma(0.5, 1e-3, shape).astype("f4")
    rain[FILLED:] = np.nan
    rain[5, 3, 2] = -1e-8
    return xr.Dataset(
        {
            "total_precipitation": (("time", "latitude", "longitude"), rain, {"units": "m"}),
            "u_component_of_wind": (
                ("time", "level", "latitude", "longitude"),
                rng.normal(size=(HOURS, 2, *shape[1:])).astype("f4"),
                {"units": "m s**-1"},
            ),
            "geopotential_at_surface": (("latitude", "longitude"), np.full(shape[1:], 980.665, "f4")),
            "land_sea_mask": (("latitude", "longitude"), rng.uniform(size=shape[1:]).astype("f4")),
        },
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(HOURS) * np.timedelta64(3600, "s"),
            "latitude": latitude,
            "longitude": longitude,
            "level": [500, 850],
        },
        attrs={"valid_time_start": "2020-01-01", "valid_time_stop": "2020-01-02"} | attributes,
    )


@pytest.fixture(scope="module", params=[2, 3])
def stored(request, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("arco") / "full.zarr")
    arco().to_zarr(path, zarr_format=request.param, encoding={"total_precipitation": {"chunks": (1, 7, 12)}})
    return path


def test_the_time_axis_ends_with_the_data(stored, read):
    source = open_source(stored, load_rules("era5-arco"))
    header = source.header
    assert (header.variable, header.units, header.interval_seconds) == ("precipitation", "m", 3600)
    assert header.times[[0, -1]].astype(str).tolist() == ["2020-01-01T00:00:00", "2020-01-02T23:00:00"]
    np.testing.assert_array_equal(header.y, np.arange(90, -91, -30))
    expected = arco().total_precipitation.values[:FILLED]
    expected[5, 3, 2] = 0
    np.testing.assert_array_equal(read(source), expected)


def test_a_box_across_greenwich_and_a_level(stored, read):
    wind = OtherVariable(variable="u_component_of_wind", select={"level": 850})
    rules = load_rules("era5-arco").model_copy(update={"dynamics": {"u850": wind}})
    part = Selection(np.datetime64("2020-01-02T00:00"), np.datetime64("2020-01-02T02:30"), (-60, 0, 30, 60))
    source = open_source(stored, rules, part)
    np.testing.assert_array_equal(source.header.x, [-60, -30, 0, 30])
    np.testing.assert_array_equal(source.header.y, [60, 30, 0])
    assert len(source.header.times) == 3
    whole = arco()
    columns = [10, 11, 0, 1]
    np.testing.assert_array_equal(read(source), whole.total_precipitation.values[24:27, 1:4][..., columns])
    np.testing.assert_array_equal(
        read(source, "u850"), whole.u_component_of_wind.values[24:27, 1, 1:4][..., columns]
    )
    np.testing.assert_allclose(source.static("orography"), np.full((3, 4), 100), rtol=1e-6)
    np.testing.assert_array_equal(source.static("land_sea_mask"), whole.land_sea_mask.values[1:4][:, columns])


@pytest.mark.parametrize("stop", ["2020-01-01T12:00", "2020-01-01T12:00:00"])
def test_a_moment_is_no_whole_day(tmp_path, stop):
    arco(valid_time_stop=stop).to_zarr(tmp_path / "a.zarr")
    times = open_source(str(tmp_path / "a.zarr"), load_rules("era5-arco")).header.times
    assert str(times[-1]) == "2020-01-01T12:00:00"


def test_the_end_of_the_data_cannot_be_told(tmp_path):
    arco(valid_time_stop="soon").to_zarr(tmp_path / "a.zarr")
    with pytest.raises(UserError, match=r"attribute valid_time_stop \('soon'\) is no date"):
        open_source(str(tmp_path / "a.zarr"), load_rules("era5-arco"))


def test_the_public_store_is_read_without_credentials():
    from pipeline.sources.readers.places import Place

    rules = load_rules("era5-arco")
    place = Place.of(rules.files[0], rules)
    fs, inside = place.file_system()
    assert fs.storage_options["token"] == "anon"
    assert inside.startswith("gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3")
    assert Place("gs://bucket/a.zarr").options == {}
    assert Place("s3://bucket/a.zarr", anonymous=True).file_system()[0].storage_options["anon"]
