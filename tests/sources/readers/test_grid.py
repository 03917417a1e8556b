from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline import UserError
from pipeline.ingest.inputs import Request
from pipeline.ingest.run import Target, ingest
from pipeline.sources.readers import Selection, open_source
from pipeline.sources.rules import OtherVariable, SourceRules, TimeRules
from pipeline.store.field_store import write_store


@pytest.mark.parametrize(
    "kind", ["netcdf4", "netcdf3", "zarr2", "zarr3", "zarr2 consolidated", "zarr3 consolidated"]
)
def test_grids_are_transposed_to_time_y_x(make, read, tmp_path, kind):
    data = make.dataset()
    turned = data.transpose("x", "time", "y").rename(time="valid_time", y="latitude", x="lon")
    path = str(tmp_path / "a")
    if kind == "netcdf4":
        make.save(turned, path)
    elif kind == "netcdf3":
        turned.to_netcdf(path, engine="scipy")
    else:
        turned.to_zarr(path, zarr_format=int(kind[4]), consolidated="consolidated" in kind)
    source = open_source(path)
    np.testing.assert_array_equal(read(source), data.precipitation.values)
    np.testing.assert_array_equal(next(iter(source.blocks(2, 3))), data.precipitation.values[2:3])
    np.testing.assert_array_equal(source.header.times, data.time.values.astype("datetime64[s]"))
    assert source.header.grid == (5, 6)
    assert source.header.attributes["y"]["units"] == "km"


def test_long_series_come_in_blocks(make, read, tmp_path):
    data = make.dataset(30)
    source = open_source(make.save(data, tmp_path / "a.nc"))
    assert [len(block) for block in source.blocks(1, 30)] == [24, 5]
    np.testing.assert_array_equal(read(source), data.precipitation.values)


def test_axes_by_cf_attributes_where_names_say_nothing(make, tmp_path):
    data = make.dataset().rename(y="a", x="b", time="c")
    data.a.attrs["standard_name"] = "projection_y_coordinate"
    data.b.attrs["axis"] = "X"
    path = make.save(data.transpose("b", "a", "c"), tmp_path / "a.nc")
    assert open_source(path).header.grid == (5, 6)


def test_single_frame_with_scalar_time_and_a_dimension_of_one(make, read, tmp_path):
    data = make.dataset(1).isel(time=0).expand_dims("height")
    assert read(open_source(make.save(data, tmp_path / "a.nc"))).shape == (1, 5, 6)


def test_packed_values_and_fill_are_decoded(make, read, tmp_path):
    data = make.dataset()
    data.precipitation[1, 2, 3] = np.nan
    encoding = {"precipitation": {"dtype": "i2", "scale_factor": 0.01, "_FillValue": -1}}
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=encoding)
    values = read(open_source(str(tmp_path / "a.nc")))
    np.testing.assert_allclose(values, data.precipitation.values, atol=0.0051)
    assert np.isnan(values).sum() == 1


def test_grid_mapping_is_kept(make, tmp_path):
    data = make.dataset()
    data["projection"] = ((), 0, {"grid_mapping_name": "latitude_longitude", "crs_wkt": "GEOGCS[...]"})
    data.precipitation.attrs["grid_mapping"] = "projection"
    header = open_source(make.save(data, tmp_path / "a.nc")).header
    assert header.crs == "GEOGCS[...]"
    assert header.attributes["crs"]["grid_mapping_name"] == "latitude_longitude"


def test_times_are_rounded_to_the_second(make, tmp_path):
    data = make.dataset()
    data["time"] = data.time - np.timedelta64(1, "us")
    header = open_source(make.save(data, tmp_path / "a.nc")).header
    assert str(header.times[1]) == "2020-01-01T00:05:00"


def test_field_store_is_a_source(make, read, tmp_path):
    data = make.dataset()
    write_store(
        str(tmp_path / "s"),
        data.precipitation.values,
        times=data.time.values,
        y=data.y.values,
        x=data.x.values,
        name="s",
        crs="+proj=utm",
        statics={"orography": np.eye(5, 6)},
    )
    source = open_source(str(tmp_path / "s"), selection=Selection(bbox=(1, 1, 5, 3)))
    np.testing.assert_array_equal(read(source), data.precipitation.values[:, 1:4, 1:])
    np.testing.assert_array_equal(source.static("orography"), np.eye(5, 6)[1:4, 1:])
    assert source.header.crs == "+proj=utm"
    with pytest.raises(UserError, match=r"no variable 'slope' on \(y, x\); it has: orography"):
        source.static("slope")


def test_gaps_of_a_field_store_are_no_frames(make, read, tmp_path):
    data = make.dataset(9)
    for part, name in ((slice(0, 3), "a.nc"), (slice(6, 9), "b.nc")):
        make.save(data.isel(time=part), tmp_path / name)
    ingest(
        Request((str(tmp_path / "a.nc"), str(tmp_path / "b.nc"))),
        Target(str(tmp_path / "s")),
        lambda what, total: lambda count: None,
    )
    source = open_source(str(tmp_path / "s"))
    there = [0, 1, 2, 6, 7, 8]
    np.testing.assert_array_equal(read(source), data.precipitation.values[there])
    np.testing.assert_array_equal(source.header.times, data.time.values[there].astype("datetime64[s]"))


def test_rules_about_bare_numbers_do_not_go_with_a_packed_file(make, tmp_path):
    encoding = {"precipitation": {"dtype": "i2", "scale_factor": 0.01, "_FillValue": -1}}
    make.dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=encoding)
    rules = SourceRules(description="test", gain=0.01, missing=65535)
    with pytest.raises(UserError, match=r"packed \(scale_factor\).*leave gain, missing out of the rules"):
        open_source(str(tmp_path / "a.nc"), rules)
    clipped = SourceRules(description="test", clip_below=0.01, accumulation="5min")
    assert open_source(str(tmp_path / "a.nc"), clipped).header.interval_seconds == 300


def test_variable_choice(make, tmp_path):
    two = xr.merge([make.dataset(name="pr"), make.dataset(name="tas")])
    path = make.save(two, tmp_path / "a.nc")
    rules = SourceRules(description="test", variable="tas", name="temperature")
    assert open_source(path, variable="pr").header.variable == "pr"
    assert open_source(path, rules).header.variable == "temperature"
    assert open_source(path, rules, variable="pr").header.units == "mm/h"
    with pytest.raises(UserError, match=r"a\.nc: which variable\? It has: pr, tas; .*--variable"):
        open_source(path)
    with pytest.raises(UserError, match=r"a\.nc: no variable 'rain'; it has: pr, tas"):
        open_source(path, variable="rain")
    assert open_source(make.save(two[["tas"]], tmp_path / "b.nc")).header.variable == "tas"


def test_codes_gain_and_clipping_by_rules(make, read, tmp_path):
    data = make.dataset(1, (1, 5))
    data.precipitation[0, 0] = np.array([-999.9, -1e-7, -1e-3, 0.5, -1], "f4")
    path = make.save(data, tmp_path / "a.nc")
    rules = SourceRules(
        description="test",
        missing=-999.9,
        dry=-1,
        gain=1000,
        clip_below=1e-3,
        units="mm",
        accumulation="5min",
    )
    source = open_source(path, rules)
    np.testing.assert_allclose(read(source)[0, 0], [np.nan, 0, -1, 500, 0], rtol=1e-6)
    assert (source.header.units, source.header.interval_seconds) == ("mm", 300)
    plain = SourceRules(description="nothing to do")
    np.testing.assert_array_equal(read(open_source(path, plain)), data.precipitation.values)


def test_starts_of_intervals_are_shifted_to_their_ends(make, tmp_path):
    path = make.save(make.dataset(), tmp_path / "a.nc")
    rules = SourceRules(description="test", accumulation="5min", time=TimeRules(stamp="start"))
    late = Selection(start=np.datetime64("2020-01-01T00:10"), stop=np.datetime64("2020-01-01T00:15"))
    times = open_source(path, rules, late).header.times
    assert times.astype(str).tolist() == ["2020-01-01T00:10:00", "2020-01-01T00:15:00"]


def test_time_from_the_name(make, read, tmp_path):
    data = make.dataset(1)
    rules = SourceRules(description="test", time=TimeRules(pattern=r"(\d{8})", format="%Y%m%d"))
    for frame in (data.isel(time=0, drop=True), data):
        path = make.save(frame, tmp_path / f"rain_2021030{frame.sizes.get('time', 2)}.nc")
        source = open_source(path, rules)
        np.testing.assert_array_equal(read(source), data.precipitation.values)
        assert str(source.header.times[0])[:9] == "2021-03-0"
    with pytest.raises(UserError, match="4 frames, and one time in its name"):
        open_source(make.save(make.dataset(4), tmp_path / "rain_20210303.nc"), rules)


def levels(make):
    """A field with times in an order of its own, further fields on levels, a static with a time axis."""
    data = make.dataset().isel(time=[2, 0, 3, 1])
    rng = np.random.default_rng(1)
    data["u"] = (("time", "level", "y", "x"), rng.normal(size=(4, 2, 5, 6)), {"units": "m s-1"})
    data = data.assign_coords(level=("level", [500, 850]))
    data["z"] = (("time", "y", "x"), np.broadcast_to(np.arange(6.0), (4, 5, 6)), {"units": "m2 s-2"})
    data["slope"] = (("x", "y"), rng.normal(size=(6, 5)))
    return data


def test_dynamics_and_statics(make, read, tmp_path):
    data = levels(make)
    rules = SourceRules(
        description="test",
        dynamics={"u850": OtherVariable(variable="u", select={"level": 850}, gain=2, offset=1)},
        statics={"orography": OtherVariable(variable="z", gain=0.1, units="m")},
    )
    part = Selection(np.datetime64("2020-01-01T00:05"), np.datetime64("2020-01-01T00:10"), (1, 0, 3, 1))
    source = open_source(make.save(data, tmp_path / "a.nc"), rules, part)
    assert source.header.dynamics == ("u850",)
    assert source.header.attributes["u850"] == {"units": "m s-1"}
    np.testing.assert_array_equal(read(source), data.precipitation.values[[0, 3], :2, 1:4])
    np.testing.assert_allclose(read(source, "u850"), 2 * data.u.values[[0, 3], 1, :2, 1:4] + 1)
    orography = source.static("orography")
    assert orography.dtype == np.float32
    np.testing.assert_allclose(orography, [[0.1, 0.2, 0.3]] * 2)
    np.testing.assert_allclose(source.static("slope"), data.slope.values.T[:2, 1:4].astype("f4"))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"variable": "u"}, r"2 values of 'level' .*\(in the rules: select: \{level: VALUE\}\)"),
        ({"variable": "u", "select": {"level": 700}}, "u has no level = 700; it has: 500, 850"),
        ({"variable": "u", "select": {"height": 2}}, "u has no dimension 'height' .* time, level, y, x"),
        ({"dynamics": {"v": {"variable": "v"}}}, "no variable 'v'; it has: precipitation, u"),
        ({"dynamics": {"s": {"variable": "slope"}}}, "slope has dimensions .* time cannot be told"),
    ],
)
def test_what_rules_ask_for_is_not_there(make, tmp_path, rules, message):
    path = make.save(levels(make), tmp_path / "a.nc")
    with pytest.raises(UserError, match=message) as caught:
        open_source(path, SourceRules.model_validate({"description": "test"} | rules))
    assert str(caught.value).startswith(path)


def test_a_dynamic_on_another_grid(make, tmp_path):
    data = make.dataset()
    data["u"] = (("time", "row", "x"), np.zeros((4, 2, 6)))
    rules = SourceRules(description="test", dynamics={"wind": OtherVariable(variable="u")})
    with pytest.raises(UserError, match=r"u \(wind in the rules\) is not on the grid of precipitation"):
        open_source(make.save(data.assign_coords(row=("row", [1, 2])), tmp_path / "a.nc"), rules)


def bad_truncated(make, path):
    content = Path(make.save(make.dataset(40), path.with_name("good.nc"))).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def bad_no_time(make, path):
    make.save(make.dataset(1).isel(time=0, drop=True), path)


def bad_times(make, path):
    make.save(make.dataset().assign_coords(time=np.arange(4)), path)


def bad_calendar(make, path):
    data = make.dataset()
    data["time"] = ("time", np.arange(4.0), {"units": "days since 2000-02-28", "calendar": "360_day"})
    make.save(data, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda make, path: None, "no such file"),
        (lambda make, path: path.write_text("hello"), "neither HDF5, NetCDF, Zarr, GRIB nor GeoTIFF"),
        (lambda make, path: path.write_bytes(b""), "is empty"),
        (lambda make, path: path.mkdir(), "a folder, not a Zarr group"),
        (lambda make, path: path.write_bytes(b"CDF\x05" + bytes(100)), "nccopy"),
        (lambda make, path: path.write_bytes(b"CDF\x01" + bytes(100)), "no variable on a map"),
        (lambda make, path: make.save(make.dataset().expand_dims(member=3), path), "3 values of 'member'"),
        (bad_truncated, "cannot be read"),
        (bad_no_time, "time cannot be told"),
        (bad_times, "holds no dates"),
        (bad_calendar, "holds no dates|cannot be read"),
    ],
)
def test_bad_file_is_one_line_that_names_it(make, tmp_path, spoil, message):
    spoil(make, tmp_path / "bad")
    with pytest.raises(UserError, match=message) as caught:
        open_source(str(tmp_path / "bad"))
    assert str(caught.value).startswith(str(tmp_path / "bad"))
    assert "\n" not in str(caught.value)
