"""Finding time, y, x and the map projection in an xarray data set that others wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

_STANDARD_NAMES = {
    "T": {"time"},
    "Y": {"latitude", "projection_y_coordinate", "grid_latitude"},
    "X": {"longitude", "projection_x_coordinate", "grid_longitude"},
}
_NAMES = {
    "T": {"time", "valid_time", "t", "date", "datetime"},
    "Y": {"y", "lat", "latitude", "north", "northing", "rlat", "yc", "row", "rows", "south_north"},
    "X": {"x", "lon", "longitude", "east", "easting", "rlon", "xc", "column", "columns", "west_east"},
}


def _axis_of(data: xr.DataArray, dimension: str) -> str | None:
    """Tell which axis a dimension (or scalar coordinate) is: `T`, `Y`, `X` or none of them."""
    coordinate = data.coords.get(dimension)
    attributes = {} if coordinate is None else coordinate.attrs
    if str(attributes.get("axis", "")).upper() in _NAMES:
        return str(attributes["axis"]).upper()
    if coordinate is not None and np.issubdtype(coordinate.dtype, np.datetime64):
        return "T"
    for axis, names in _NAMES.items():
        if attributes.get("standard_name") in _STANDARD_NAMES[axis] or dimension.lower() in names:
            return axis
    return None


def find(data: xr.DataArray, path: str, *, needs_time: bool = True) -> tuple[str, str, str]:
    """Name the time, y and x coordinates of a variable; time may be a scalar coordinate of a single frame.

    Parameters
    ----------
    data : xr.DataArray
    path : str
        For messages.
    needs_time : bool
        Without it, the name of the time is empty where there is none.

    Raises
    ------
    UserError
        If they are not all there, or a further dimension is longer than 1.
    """
    found: dict[str, str] = {}
    for name in map(str, data.dims):
        axis = _axis_of(data, name)
        if axis is not None and axis not in found:
            found[axis] = name
        elif data.sizes[name] > 1:
            raise UserError(
                f"{path}: {data.name} has {data.sizes[name]} values of {name!r} besides time, y, x; "
                f"select one of them first (in the rules: select: {{{name}: VALUE}})"
            )
    if "T" not in found:
        scalars = [str(name) for name, coordinate in data.coords.items() if coordinate.ndim == 0]
        candidates = [name for name in scalars if _axis_of(data, name) == "T"]
        # GRIB has two: a forecast's start is not the time of its values.
        candidates.sort(key=lambda name: ("valid_time", "time", name).index(name))
        found |= {"T": candidates[0]} if candidates else {}
    lacking = [word for axis, word in (("T", "time"), ("Y", "y"), ("X", "x")) if axis not in found]
    if "T" in found and found["T"] not in data.coords:
        lacking.append("the times")
    if not needs_time:
        lacking = [word for word in lacking if word in ("y", "x")]
    if lacking:
        present = ", ".join(map(str, data.dims))
        raise UserError(
            f"{path}: {data.name} has dimensions ({present}), and {lacking[0]} cannot be told from them; "
            "name or mark them as CF does (axis or standard_name)"
        )
    return found.get("T", ""), found["Y"], found["X"]


def select(data: xr.DataArray, wanted: Mapping[str, float | str], path: str) -> xr.DataArray:
    """Take one value of each further dimension, without reading.

    Parameters
    ----------
    data : xr.DataArray
    wanted : mapping
        Dimension to value; to index, where the dimension has no coordinate.
    path : str
        For messages.

    Raises
    ------
    UserError
        If there is no such dimension or value; the message lists what is.
    """
    for name, value in wanted.items():
        if name not in data.dims:
            scalar = data.coords.get(name)
            if scalar is not None and scalar.ndim == 0 and _equal(scalar.values, value):
                continue  # a file that holds this one only
            raise UserError(
                f"{path}: {data.name} has no dimension {name!r} to select from; it has: "
                f"{', '.join(map(str, data.dims))}"
            )
        present = data.coords[name].values if name in data.coords else np.arange(data.sizes[name])
        places = np.flatnonzero(_equal(present, value))
        if not len(places):
            listed = ", ".join(map(str, present[:40]))
            shown = value if isinstance(value, str) else f"{value:g}"
            raise UserError(f"{path}: {data.name} has no {name} = {shown}; it has: {listed}")
        data = data.isel({name: int(places[0])})
    return data


def _equal(present: np.ndarray, value: float | str) -> np.ndarray:
    if np.issubdtype(present.dtype, np.number) and not isinstance(value, str):
        return np.isclose(present, value, rtol=1e-6, atol=0)
    return np.asarray(present.astype(str) == str(value))


def standard_order(data: xr.DataArray, path: str) -> xr.DataArray:
    """Transpose to (time, y, x), without reading; further dimensions of length 1 are dropped."""
    time, y, x = find(data, path, needs_time=False)
    if time not in data.dims:
        time = time or "time"
        data = data.expand_dims(time)
    data = data.squeeze([name for name in data.dims if name not in (time, y, x)], drop=True)
    return data.transpose(time, y, x)


def choose_variable(dataset: xr.Dataset, wanted: str | None, default: str, path: str) -> str:
    """Find the variable: the wanted one, else the one of the default name, else the only one on a map.

    Raises
    ------
    UserError
        If it is not there, or there are several; the message lists what is.
    """
    present = [str(name) for name, data in dataset.data_vars.items() if data.ndim >= 2]
    listed = ", ".join(present) or "none"
    if wanted is not None:
        if wanted not in dataset.data_vars:
            raise UserError(f"{path}: no variable {wanted!r}; it has: {listed}")
        return wanted
    if default in present:
        return default
    if not present:
        raise UserError(f"{path}: no variable on a map; if its data lie deeper, name the rules with --source")
    if len(present) != 1:
        raise UserError(f"{path}: which variable? It has: {listed}; choose one with --variable NAME")
    return present[0]


def times(coordinate: xr.DataArray, path: str) -> np.ndarray:
    """Read times to the nearest second.

    Raises
    ------
    UserError
        If they are no dates of the usual calendar.
    """
    values = np.atleast_1d(coordinate.values)
    if not np.issubdtype(values.dtype, np.datetime64) or np.isnat(values).any():
        calendar = coordinate.encoding.get("calendar", "none")
        raise UserError(
            f"{path}: {coordinate.name} holds no dates (calendar {calendar}); give it CF units "
            "such as 'seconds since 1970-01-01' and the standard calendar"
        )
    milliseconds = values.astype("datetime64[ms]").astype("int64")
    return ((milliseconds + 500) // 1000).astype("datetime64[s]")


def coordinate(data: xr.DataArray, name: str) -> np.ndarray:
    """Read a dimension's coordinate, or its index where it has none, as float64."""
    if name not in data.coords:
        return np.arange(data.sizes[name], dtype=np.float64)
    return np.asarray(data.coords[name].values, np.float64)


def projection(dataset: xr.Dataset, data: xr.DataArray) -> tuple[str | None, dict[str, Any]]:
    """Find the grid mapping: one text for it, and its attributes."""
    reference = str(data.attrs.get("grid_mapping") or data.encoding.get("grid_mapping") or "")
    name = re.split(r"[:\s]", reference.strip())[0]
    if not name or name not in dataset.variables:
        return None, {}
    attributes = plain(dataset.variables[name].attrs)
    for key in (
        "proj_text",
        "proj4",
        "proj4_params",
        "proj4_string",
        "crs_wkt",
        "spatial_ref",
        "grid_mapping_name",
    ):
        if attributes.get(key):
            return str(attributes[key]), attributes
    return None, attributes


def plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Keep the attributes that JSON can hold, but those that speak of the source's own storage."""
    dropped = {"grid_mapping", "coordinates", "history", "Conventions", "_FillValue", "missing_value"}
    kept = {}
    for key, value in attributes.items():
        value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        finite = not isinstance(value, float) or np.isfinite(value)
        if key not in dropped and isinstance(value, str | int | float | list) and finite:
            kept[str(key)] = value
    return kept


def cf_of_stereographic(proj: str) -> dict[str, Any]:
    """Say a polar stereographic PROJ text in CF's words as well; nothing for other projections."""
    given = dict(re.findall(r"\+(\w+)=(\S+)", proj))
    if given.get("proj") != "stere" or abs(float(given.get("lat_0", 0))) != 90:
        return {}
    # With the ellipsoid's axes in km the coordinates are in km too; CF wants the axes in metres.
    to_metres = 1000 if float(given.get("a", 6.4e6)) < 1e5 else 1
    words = {
        "grid_mapping_name": "polar_stereographic",
        "latitude_of_projection_origin": float(given["lat_0"]),
        "straight_vertical_longitude_from_pole": float(given.get("lon_0", 0)),
        "standard_parallel": float(given.get("lat_ts") or given["lat_0"]),
        "false_easting": float(given.get("x_0", 0)),
        "false_northing": float(given.get("y_0", 0)),
    }
    for key, name in (("a", "semi_major_axis"), ("b", "semi_minor_axis")):
        if key in given:
            words[name] = float(given[key]) * to_metres
    return words


def cf_of_crs(text: str, path: str) -> dict[str, dict[str, Any]]:
    """Say a map projection (PROJ or WKT) in CF's words: attributes of `crs`, `y` and `x`.

    Raises
    ------
    UserError
        If pyproj is not there.
    """
    from pipeline.sources.readers.base import needed

    crs = needed("pyproj", "geotiff", path).CRS.from_user_input(text)
    attributes = {"crs": plain(crs.to_cf())}
    for axis in crs.cs_to_cf():
        name = str(axis.get("axis", "")).lower()
        if name in ("x", "y"):
            attributes[name] = {key: value for key, value in plain(axis).items() if key != "axis"}
    return attributes
