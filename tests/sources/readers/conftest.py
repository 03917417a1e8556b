"""Tiny files of every format that is read, made here."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import xarray as xr

STEREOGRAPHIC = "+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752"


def knmi(
    path, counts, end="26-AUG-2010;00:05:00.000", start="26-AUG-2010;00:00:00.000", formula="GEO=0.01*PV+0.0"
):
    """Write the parts of KNMI's layout that are read; out of image is 65534, to tell it from missing."""
    rows, columns = counts.shape
    with h5py.File(path, "w") as file:
        file["image1/image_data"] = counts.astype("u2")
        file["image1"].attrs["image_geo_parameter"] = np.bytes_("ACCUMULATED_PRECIPITATION_[MM]")
        calibration = file.create_group("image1/calibration").attrs
        calibration["calibration_formulas"] = np.bytes_(formula)
        calibration["calibration_missing_data"] = np.array([65535], "i4")
        calibration["calibration_out_of_image"] = np.array([65534], "i4")
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
        projection["projection_proj4_params"] = np.bytes_(STEREOGRAPHIC)
    return str(path)


def dataset(frames=4, shape=(5, 6), unit="mm/h", name="precipitation", start="2020-01-01", seed=0):
    values = np.random.default_rng(seed).gamma(0.5, 2, (frames, *shape)).astype("f4")
    return xr.Dataset(
        {name: (("time", "y", "x"), values, {"units": unit})},
        coords={
            "time": np.datetime64(start, "ns") + np.arange(frames) * np.timedelta64(300, "s"),
            "y": ("y", np.arange(shape[0]) * 1.0, {"units": "km"}),
            "x": ("x", np.arange(shape[1]) * 1.0, {"units": "km"}),
        },
    )


def save(data, path):
    data.to_netcdf(path, engine="h5netcdf")
    return str(path)


def geotiff(path, numbers, **profile):
    """Write bands (or one band) with 250 m pixels, the upper left corner at (1000, 9000) in EPSG:3067."""
    import rasterio
    from rasterio.transform import from_origin

    bands = numbers if numbers.ndim == 3 else numbers[None]
    profile = {"crs": "EPSG:3067", "transform": from_origin(1000, 9000, 250, 250)} | profile
    shape = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        file.write(bands)
    return str(path)


def odim(
    path,
    quantities,
    projdef="+proj=laea +lat_0=55 +lon_0=10 +x_0=1950000 +y_0=-2100000 +units=m +ellps=WGS84",
    left_top=(1000000.0, 500000.0),
    pixel=2000.0,
    kind="COMP",
    end="001500",
    begin="000000",
):
    """Write a composite: {quantity: (image, gain, offset)}, nodata the greatest number, undetect 0."""
    import pyproj

    rows, columns = next(iter(quantities.values()))[0].shape
    project = pyproj.Proj(projdef)
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = np.bytes_("ODIM_H5/V2_4")
        what = file.create_group("what").attrs
        for key, value in {"object": kind, "date": "20200101", "time": "000000", "source": "ORG:247"}.items():
            what[key] = np.bytes_(value)
        where = file.create_group("where").attrs
        where["projdef"] = np.bytes_(projdef)
        where.update({"xsize": columns, "ysize": rows, "xscale": pixel, "yscale": pixel})
        for name, i, j in (("UL", 0, 0), ("LR", rows, columns)):
            place = project(left_top[0] + j * pixel, left_top[1] - i * pixel, inverse=True)
            where[f"{name}_lon"], where[f"{name}_lat"] = place
        for number, (quantity, (image, gain, offset)) in enumerate(quantities.items(), 1):
            group = f"dataset{number}"
            what = file.create_group(f"{group}/what").attrs
            for key, value in {"startdate": "20200101", "starttime": begin, "enddate": "20200101",
                               "endtime": end, "quantity": quantity}.items():  # fmt: skip
                what[key] = np.bytes_(value)
            nodata = np.iinfo(image.dtype).max
            what.update({"gain": gain, "offset": offset, "nodata": float(nodata), "undetect": 0.0})
            file[f"{group}/data1/data"] = image
    return str(path)


def grib(path, messages):
    """Write messages: GRIB keys and `values`, 0.25 degrees apart from 50 N 0 E on."""
    import pyproj  # noqa: F401, I001  before eccodes: the other way round the process crashes when it ends
    import eccodes

    with open(path, "wb") as file:
        for message in messages:
            values = message["values"]
            rows, columns = values.shape
            handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
            keys = {"Ni": columns, "Nj": rows, "latitudeOfFirstGridPointInDegrees": 50.0,
                    "latitudeOfLastGridPointInDegrees": 50 - 0.25 * (rows - 1),
                    "longitudeOfFirstGridPointInDegrees": 0.0,
                    "longitudeOfLastGridPointInDegrees": 0.25 * (columns - 1),
                    "iDirectionIncrementInDegrees": 0.25, "jDirectionIncrementInDegrees": 0.25}  # fmt: skip
            for key, value in (keys | message | {"bitsPerValue": 16}).items():
                if key != "values":
                    eccodes.codes_set(handle, key, value)
            eccodes.codes_set_values(handle, values.ravel())
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return str(path)


def read(source, variable=None):
    return np.concatenate(list(source.blocks(0, len(source.header.times), variable)))


@pytest.fixture(scope="session")
def make():
    return SimpleNamespace(knmi=knmi, dataset=dataset, save=save, geotiff=geotiff, odim=odim, grib=grib)


@pytest.fixture(scope="session", name="read")
def read_all():
    return read
