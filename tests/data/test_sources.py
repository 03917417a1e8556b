from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from pipeline import UserError
from pipeline.data import timeline, units
from pipeline.data.sources import open_source
from pipeline.data.store import write_store

KNMI = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "knmi"
MISSING = 65535


def write_knmi(
    path, counts, end="26-AUG-2010;00:05:00.000", start="26-AUG-2010;00:00:00.000", formula="GEO=0.01*PV+0.0"
):
    """Write the parts of KNMI's layout that are read; out of image is 65534, to tell it from missing."""
    rows, columns = counts.shape
    with h5py.File(path, "w") as file:
        file["image1/image_data"] = counts.astype("u2")
        file["image1"].attrs["image_geo_parameter"] = np.bytes_("ACCUMULATED_PRECIPITATION_[MM]")
        calibration = file.create_group("image1/calibration").attrs
        calibration["calibration_formulas"] = np.bytes_(formula)
        calibration["calibration_missing_data"] = np.array([MISSING], "i4")
        calibration["calibration_out_of_image"] = np.array([MISSING - 1], "i4")
        overview = file.create_group("overview").attrs
        overview["product_datetime_start"] = np.array([start.encode()])
        overview["product_datetime_end"] = np.array([end.encode()])
        overview["product_group_name"] = np.bytes_("RAD_TEST")
        geographic = file.create_group("geographic").attrs
        values = {"geo_number_rows": rows, "geo_number_columns": columns, "geo_pixel_size_x": 2.0,
                  "geo_pixel_size_y": -1.0, "geo_row_offset": 3650.0, "geo_column_offset": 10.0}  # fmt: skip
        for key, value in values.items():
            geographic[key] = np.array([value], "f4")
        projection = file.create_group("geographic/map_projection").attrs
        projection["projection_proj4_params"] = np.bytes_(
            "+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752"
        )
    return str(path)


def make_dataset(frames=4, shape=(5, 6), unit="mm/h", name="precipitation", start="2020-01-01", seed=0):
    values = np.random.default_rng(seed).gamma(0.5, 2, (frames, *shape)).astype("f4")
    return xr.Dataset(
        {name: (("time", "y", "x"), values, {"units": unit})},
        coords={
            "time": np.datetime64(start, "ns") + np.arange(frames) * np.timedelta64(300, "s"),
            "y": ("y", np.arange(shape[0]) * 1.0, {"units": "km"}),
            "x": ("x", np.arange(shape[1]) * 1.0, {"units": "km"}),
        },
    )


def read_all(source):
    return np.concatenate(list(source.blocks(0, len(source.header.times))))


def save(dataset, path):
    dataset.to_netcdf(path, engine="h5netcdf")
    return str(path)


# KNMI


def test_knmi_calibration_codes_time_and_grid_come_from_the_file(tmp_path):
    counts = np.array([[0, 1, 250], [MISSING, MISSING - 1, 65000]])
    source = open_source(write_knmi(tmp_path / "a.h5", counts, formula="GEO = 0.5*PV + -0.5"))
    np.testing.assert_array_equal(read_all(source)[0], [[-0.5, 0, 124.5], [np.nan, np.nan, 32499.5]])
    header = source.header
    assert (header.units, header.interval_seconds, header.grid) == ("mm", 300, (2, 3))
    np.testing.assert_array_equal(header.times, np.array(["2010-08-26T00:05:00"], "datetime64[s]"))
    np.testing.assert_array_equal(header.y, [-3650.5, -3651.5])
    np.testing.assert_array_equal(header.x, [21, 23, 25])
    assert header.crs.startswith("+proj=stere")
    words = header.attributes["crs"]
    assert (words["grid_mapping_name"], words["standard_parallel"]) == ("polar_stereographic", 60)
    assert words["semi_major_axis"] == 6378137


def test_knmi_unknown_calibration(tmp_path):
    source = open_source(write_knmi(tmp_path / "a.h5", np.zeros((2, 2)), formula="GEO=LOG(PV)"))
    with pytest.raises(UserError, match=r"a\.h5: calibration 'GEO=LOG\(PV\)' is not of the form"):
        read_all(source)


@pytest.mark.skipif(not KNMI.is_dir(), reason="no KNMI sample here")
def test_knmi_sample():
    source = open_source(str(KNMI / "RAD_NL25_RAP_5min_201008260410.h5"))
    assert source.header.grid == (765, 700)
    assert str(source.header.times[0]) == "2010-08-26T04:10:00"
    frame = read_all(source)[0]
    with h5py.File(source.path) as file:
        counts = file["image1/image_data"][()]
    np.testing.assert_array_equal(np.isnan(frame), counts == MISSING)
    np.testing.assert_allclose(frame[counts != MISSING], counts[counts != MISSING] * 0.01)
    # The file gives the corners' latitude: check ours by the ellipsoid-free projection, good to a few km.
    rho = np.hypot(source.header.x[0] - 0.5, source.header.y[0] + 0.5)
    latitude = 90 - 2 * np.degrees(np.arctan(rho / (6378.137 * (1 + np.sin(np.radians(60))))))
    assert latitude == pytest.approx(55.97, abs=0.15)


# NetCDF and Zarr


@pytest.mark.parametrize("kind", ["netcdf", "zarr2", "zarr3"])
def test_grids_are_transposed_to_time_y_x(tmp_path, kind):
    data = make_dataset()
    turned = data.transpose("x", "time", "y").rename(time="valid_time", y="latitude", x="lon")
    path = str(tmp_path / "a")
    if kind == "netcdf":
        save(turned, path)
    else:
        turned.to_zarr(path, zarr_format=int(kind[-1]), consolidated=False)
    source = open_source(path)
    np.testing.assert_array_equal(read_all(source), data.precipitation.values)
    np.testing.assert_array_equal(next(iter(source.blocks(2, 3))), data.precipitation.values[2:3])
    np.testing.assert_array_equal(source.header.times, data.time.values.astype("datetime64[s]"))
    assert source.header.grid == (5, 6)
    assert source.header.attributes["y"]["units"] == "km"


def test_axes_by_cf_attributes_where_names_say_nothing(tmp_path):
    data = make_dataset().rename(y="a", x="b", time="c")
    data.a.attrs["standard_name"] = "projection_y_coordinate"
    data.b.attrs["axis"] = "X"
    assert open_source(save(data.transpose("b", "a", "c"), tmp_path / "a.nc")).header.grid == (5, 6)


def test_single_frame_with_scalar_time_and_a_dimension_of_one(tmp_path):
    data = make_dataset(1).isel(time=0).expand_dims("height")
    source = open_source(save(data, tmp_path / "a.nc"))
    assert read_all(source).shape == (1, 5, 6)


def test_packed_values_and_fill_are_decoded(tmp_path):
    data = make_dataset()
    data.precipitation[1, 2, 3] = np.nan
    encoding = {"precipitation": {"dtype": "i2", "scale_factor": 0.01, "_FillValue": -1}}
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=encoding)
    values = read_all(open_source(str(tmp_path / "a.nc")))
    np.testing.assert_allclose(values, data.precipitation.values, atol=0.0051)
    assert np.isnan(values).sum() == 1


def test_grid_mapping_is_kept(tmp_path):
    data = make_dataset()
    data["projection"] = ((), 0, {"grid_mapping_name": "latitude_longitude", "crs_wkt": "GEOGCS[...]"})
    data.precipitation.attrs["grid_mapping"] = "projection"
    header = open_source(save(data, tmp_path / "a.nc")).header
    assert header.crs == "GEOGCS[...]"
    assert header.attributes["crs"]["grid_mapping_name"] == "latitude_longitude"


def test_times_are_rounded_to_the_second(tmp_path):
    data = make_dataset()
    data["time"] = data.time - np.timedelta64(1, "us")
    header = open_source(save(data, tmp_path / "a.nc")).header
    assert str(header.times[1]) == "2020-01-01T00:05:00"


def test_field_store_is_a_source(tmp_path):
    data = make_dataset()
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
    source = open_source(str(tmp_path / "s"))
    np.testing.assert_array_equal(read_all(source), data.precipitation.values)
    np.testing.assert_array_equal(source.static("orography"), np.eye(5, 6))
    assert source.header.crs == "+proj=utm"
    with pytest.raises(UserError, match=r"no variable 'slope' on \(y, x\); it has: orography"):
        source.static("slope")


def test_variable_choice(tmp_path):
    two = xr.merge([make_dataset(name="pr"), make_dataset(name="tas")])
    path = save(two, tmp_path / "a.nc")
    assert open_source(path, "pr").header.variable == "pr"
    with pytest.raises(UserError, match=r"a\.nc: which variable\? It has: pr, tas; .*--variable"):
        open_source(path)
    with pytest.raises(UserError, match=r"a\.nc: no variable 'rain'; it has: pr, tas"):
        open_source(path, "rain")
    assert open_source(save(two[["tas"]], tmp_path / "b.nc")).header.variable == "tas"


def bad_text(tmp_path):
    (tmp_path / "bad").write_text("hello")


def bad_empty(tmp_path):
    (tmp_path / "bad").write_bytes(b"")


def bad_truncated(tmp_path):
    content = Path(save(make_dataset(40), tmp_path / "good.nc")).read_bytes()
    (tmp_path / "bad").write_bytes(content[: len(content) // 2])


def bad_folder(tmp_path):
    (tmp_path / "bad").mkdir()


def bad_netcdf3(tmp_path):
    (tmp_path / "bad").write_bytes(b"CDF\x01" + bytes(100))


def bad_no_time(tmp_path):
    save(make_dataset(1).isel(time=0, drop=True), tmp_path / "bad")


def bad_extra_dimension(tmp_path):
    save(make_dataset().expand_dims(member=3), tmp_path / "bad")


def bad_times(tmp_path):
    save(make_dataset().assign_coords(time=np.arange(4)), tmp_path / "bad")


def bad_calendar(tmp_path):
    data = make_dataset()
    data["time"] = ("time", np.arange(4.0), {"units": "days since 2000-02-28", "calendar": "360_day"})
    save(data, tmp_path / "bad")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp_path: None, "no such file"),
        (bad_text, "neither HDF5, NetCDF 4 nor Zarr"),
        (bad_empty, "neither HDF5"),
        (bad_truncated, "cannot be read"),
        (bad_folder, "a folder, not a Zarr group"),
        (bad_netcdf3, "nccopy"),
        (bad_no_time, "time cannot be told"),
        (bad_extra_dimension, "3 values of 'member'"),
        (bad_times, "holds no dates"),
        (bad_calendar, "holds no dates|cannot be read"),
    ],
)
def test_bad_file_is_one_line_that_names_it(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        open_source(str(tmp_path / "bad"))
    assert str(caught.value).startswith(str(tmp_path / "bad"))
    assert "\n" not in str(caught.value)


# Units


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("mm/h", 1), ("mm h-1", 1), ("mm hr-1", 1), ("mm h**-1", 1), ("mm h^-1", 1),
        ("mm.hour-1", 1), ("MM/HR", 1),
        ("kg m-2 s-1", 3600), ("kg/m2/s", 3600), ("kg m**-2 s**-1", 3600), ("s-1 kg m-2", 3600),
        ("mm s-1", 3600), ("m s-1", 3.6e6), ("m h-1", 1000), ("mm/day", 1 / 24), ("mm d-1", 1 / 24),
        ("mm/min", 60), ("mm", 12), ("kg m-2", 12),
    ],
)  # fmt: skip
def test_units_become_mm_per_hour(text, factor):
    assert units.to_mm_per_hour(text, 300, "file") == pytest.approx(factor)


@pytest.mark.parametrize("text", ["dBZ", "", "K", "mm h", "kg m-1 s-1", "5 mm", "m2 s-1"])
def test_unknown_units_are_refused(text):
    with pytest.raises(UserError, match=r"a\.nc: units .*--units UNITS"):
        units.to_mm_per_hour(text, 300, "a.nc")


# Time axis


def at(*minutes):
    return np.datetime64("2020-01-01T00:00", "s") + np.array(minutes) * np.timedelta64(60, "s")


def test_timeline_orders_interleaves_and_fills():
    line = timeline.build([at(20, 0), at(5, 10, 30)], ["a", "b"])
    np.testing.assert_array_equal(line.times, at(0, 5, 10, 15, 20, 25, 30))
    assert line.origin.tolist() == [[0, 1], [1, 0], [1, 1], [-1, -1], [0, 0], [-1, -1], [1, 2]]
    assert line.cadence_seconds == 300
    assert line.gaps == (
        ("2020-01-01T00:10:00", "2020-01-01T00:20:00", 1),
        ("2020-01-01T00:20:00", "2020-01-01T00:30:00", 1),
    )
    assert line.filled == 2


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([at(0, 5), at(5, 10)], r"2020-01-01T00:05:00 comes twice \(in a and b\)"),
        ([at(0, 5, 5)], r"2020-01-01T00:05:00 comes twice \(in a\)"),
        (
            [at(0, 5, 10, 12, 15), at(20)],
            r"00:12:00 \(in a\) follows 2020-01-01T00:10:00, no multiple .* 300 s",
        ),
        ([at(0)], "a: one time only"),
        ([at(0, 5, 10), at(600_000)], r"gap of 119997 frames between 2020-01-01T00:10:00"),
    ],
)
def test_timeline_refuses(times, message):
    with pytest.raises(UserError, match=message):
        timeline.build(times, ["a", "b"])
