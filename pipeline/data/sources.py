"""Readers of foreign files: KNMI's HDF5 radar composites, NetCDF and Zarr, all alike to `ingest`.

A source knows its header and hands out its frames in blocks; no file stays open in between, so that a year of
one-frame files is no problem. Whatever the libraries underneath raise becomes one line that names the file.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import axes, manifest
from pipeline.errors import UserError

if TYPE_CHECKING:
    import h5py
    import xarray as xr

DEFAULT_VARIABLE = "precipitation"
_BLOCK_BYTES = 2**28  # read at once; 24 frames of a national radar grid are a fifth of it


@dataclass(frozen=True)
class Header:
    """What a source says about itself.

    Attributes
    ----------
    variable, units : str
        As in the file.
    times : np.ndarray
        (n,) datetime64[s], in the file's order.
    y, x : np.ndarray
        (H,) and (W,) coordinates of pixel centres.
    crs : str or None
        Map projection, PROJ or WKT.
    interval_seconds : float or None
        Time one value of a sum stands for, where the file says so.
    attributes : mapping
        CF attributes of the arrays `variable`, `y`, `x`, `crs`, and of the file under `""`.
    """

    variable: str
    units: str
    times: np.ndarray
    y: np.ndarray
    x: np.ndarray
    crs: str | None = None
    interval_seconds: float | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.y), len(self.x)


class Source(ABC):
    """One file or Zarr group."""

    def __init__(self, path: str, header: Header) -> None:
        self.path = path
        self.header = header

    def blocks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Read frames `start` to `stop` as (n, H, W) blocks in the file's units, NaN for missing.

        Raises
        ------
        UserError
            If the file cannot be read.
        """
        with explained(self.path):
            yield from self._blocks(start, stop)

    @abstractmethod
    def _blocks(self, start: int, stop: int) -> Iterator[np.ndarray]: ...

    def static(self, name: str) -> np.ndarray:
        """Read a covariate, (H, W) float32.

        Raises
        ------
        UserError
            If the file has none of that name.
        """
        raise UserError(f"{self.path}: this kind of file has no static covariate {name!r}")


def open_source(path: str, variable: str | None = None) -> Source:
    """Read the header of a file and choose its reader by its content.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of a KNMI HDF5 file, a NetCDF-4 file or a Zarr group.
    variable : str, optional
        Which one; needed where a file has several and none is called `precipitation`.

    Raises
    ------
    UserError
        If the file cannot be read, or has no such variable.
    """
    with explained(path):
        kind = _kind(path)
        if kind == "knmi":
            return KnmiSource(path, variable)
        return GridSource(path, variable, engine="zarr" if kind == "zarr" else "h5netcdf")


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what a reading library raises (they agree on no exception) into one line about the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({manifest.one_line(error)})") from error


def _kind(path: str) -> str:
    import fsspec
    import h5py

    fs, inside = fsspec.core.url_to_fs(path)
    if not fs.exists(inside):
        raise UserError(f"{path}: no such file")
    if fs.isdir(inside):
        if any(fs.exists(f"{inside}/{name}") for name in ("zarr.json", ".zgroup", ".zmetadata")):
            if manifest.state(path) == "incomplete":
                manifest.read_info(path)  # raises
            return "zarr"
        raise UserError(
            f"{path}: a folder, not a Zarr group; give the files in it, as in {path.rstrip('/')}/*"
        )
    with fs.open(inside, "rb") as stream:
        start = stream.read(8)
    if start.startswith(b"CDF"):
        raise UserError(
            f"{path}: NetCDF 3, only NetCDF 4 is read; convert it with: nccopy -k nc4 {path} NEW.nc"
        )
    if start != b"\x89HDF\r\n\x1a\n":
        raise UserError(
            f"{path}: cannot be read (neither HDF5, NetCDF 4 nor Zarr; its first bytes are {start!r})"
        )
    with _binary(path) as stream, h5py.File(stream) as file:
        return "knmi" if "image1/image_data" in file and "overview" in file else "netcdf"


@contextlib.contextmanager
def _binary(path: str) -> Iterator[Any]:
    """Give h5py a local path as it is, and an open file for anything else."""
    import fsspec

    if "://" not in path:
        yield path
    else:
        with fsspec.open(path, "rb") as stream:
            yield stream


class KnmiSource(Source):
    """KNMI HDF5: one frame of counts with their calibration, projection and period beside them."""

    def __init__(self, path: str, variable: str | None) -> None:
        import h5py

        if variable not in (None, DEFAULT_VARIABLE):
            raise UserError(f"{path}: no variable {variable!r}; it has: {DEFAULT_VARIABLE}")
        with _binary(path) as stream, h5py.File(stream) as file:
            end = _knmi_time(_text(file["overview"], "product_datetime_end"))
            begin = _knmi_time(_text(file["overview"], "product_datetime_start"))
            unit = re.search(r"\[(.+?)\]", _text(file["image1"], "image_geo_parameter"))
            y, x, crs, attributes = _knmi_grid(file["geographic"], file["image1/image_data"].shape)
            attributes[DEFAULT_VARIABLE] = {
                "long_name": "precipitation rate",
                "cell_methods": "time: mean",
                "comment": "time is the end of the interval",
            }
            attributes[""] = {
                "source": f"KNMI radar composite {_text(file['overview'], 'product_group_name')}"
            }
        header = Header(
            variable=DEFAULT_VARIABLE,
            units=unit[1].lower() if unit else "",
            times=np.array([end], "datetime64[s]"),
            y=y,
            x=x,
            crs=crs,
            interval_seconds=float((end - begin).astype("int64")) or None,
            attributes=attributes,
        )
        super().__init__(path, header)

    def _blocks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        import h5py

        with _binary(self.path) as stream, h5py.File(stream) as file:
            calibration = file["image1/calibration"]
            formula = _text(calibration, "calibration_formulas").replace(" ", "").replace("+-", "-")
            match = re.fullmatch(r"GEO=([-+\d.eE]+)\*PV([-+][\d.eE+-]+)?", formula)
            if match is None:
                raise UserError(f"{self.path}: calibration {formula!r} is not of the form GEO=a*PV+b")
            counts = file["image1/image_data"][()]
            codes = [
                int(np.ravel(calibration.attrs[name])[0])
                for name in ("calibration_missing_data", "calibration_out_of_image")
                if name in calibration.attrs
            ]
        values = float(match[1]) * counts.astype(np.float64) + float(match[2] or 0)
        values[np.isin(counts, codes)] = np.nan
        yield values[None][start:stop]


def _text(group: h5py.Group, name: str) -> str:
    value = np.ravel(group.attrs[name])[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _knmi_time(text: str) -> np.datetime64:
    """Read `26-AUG-2010;00:05:00.000`, whatever the machine's language calls the month."""
    day, month, rest = text.split("-", 2)
    names = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
    moment = datetime.strptime(f"{day}-{names.index(month.upper()) + 1}-{rest}", "%d-%m-%Y;%H:%M:%S.%f")
    return np.datetime64(moment, "s")


def _knmi_grid(
    geographic: h5py.Group, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, str, dict[str, Any]]:
    """Pixel centres in km from the projection's origin, the projection, and attributes for all three."""
    wanted = [f"geo_{key}" for key in ("number_rows", "number_columns", "pixel_size_x", "pixel_size_y")]
    wanted += ["geo_row_offset", "geo_column_offset"]
    number = {key: float(np.ravel(geographic.attrs[key])[0]) for key in wanted}
    declared = (int(number["geo_number_rows"]), int(number["geo_number_columns"]))
    if declared != shape:
        raise ValueError(f"image of {shape} pixels, {declared} declared")
    crs = _text(geographic["map_projection"], "projection_proj4_params")
    # Offsets count pixels from the projection's origin to the first pixel's outer corner; sizes are signed.
    y = number["geo_pixel_size_y"] * (number["geo_row_offset"] + 0.5 + np.arange(shape[0]))
    x = number["geo_pixel_size_x"] * (number["geo_column_offset"] + 0.5 + np.arange(shape[1]))
    attributes = {
        axis: {"standard_name": f"projection_{axis}_coordinate", "units": "km"} for axis in ("y", "x")
    }
    return y, x, crs, attributes | {"crs": axes.cf_of_stereographic(crs)}


class GridSource(Source):
    """NetCDF 4 or Zarr, through xarray: dimensions by their CF attributes or usual names."""

    def __init__(self, path: str, variable: str | None, engine: str) -> None:
        self._engine = engine
        with self._dataset(path) as dataset:
            self._name = axes.choose_variable(dataset, variable, DEFAULT_VARIABLE, path)
            data = dataset[self._name]
            time, y, x = axes.find(data, path)
            crs, crs_attributes = axes.projection(dataset, data)
            attributes = {self._name: axes.plain(data.attrs), "": axes.plain(dataset.attrs)}
            attributes |= {"crs": crs_attributes} if crs_attributes else {}
            for name, dimension in (("y", y), ("x", x)):
                if dimension in data.coords:
                    attributes[name] = axes.plain(data.coords[dimension].attrs)
            header = Header(
                variable=self._name,
                units=str(data.attrs.get("units", "")),
                times=axes.times(data.coords[time], path),
                y=axes.coordinate(data, y),
                x=axes.coordinate(data, x),
                crs=crs,
                attributes=attributes,
            )
        super().__init__(path, header)

    @contextlib.contextmanager
    def _dataset(self, path: str) -> Iterator[xr.Dataset]:
        import xarray as xr

        from pipeline.data.layout import backend, quiet

        with contextlib.ExitStack() as stack:
            place = (
                backend(path, read_only=True)
                if self._engine == "zarr"
                else stack.enter_context(_binary(path))
            )
            with quiet():
                dataset = xr.open_dataset(place, engine=self._engine, chunks=None, decode_timedelta=False)
            yield stack.enter_context(dataset)

    def _blocks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        rows, columns = self.header.grid
        depth = max(1, min(24, _BLOCK_BYTES // (8 * rows * columns)))
        with self._dataset(self.path) as dataset:
            data = axes.standard_order(dataset[self._name], self.path)
            for first in range(start, stop, depth):
                yield np.asarray(data[first : min(first + depth, stop)].values)

    def static(self, name: str) -> np.ndarray:
        """Read a covariate, (H, W) float32."""
        with explained(self.path), self._dataset(self.path) as dataset:
            _, y, x = axes.find(dataset[self._name], self.path)
            if name not in dataset or set(dataset[name].dims) != {y, x}:
                fitting = [str(key) for key, other in dataset.variables.items() if set(other.dims) == {y, x}]
                raise UserError(
                    f"{self.path}: no variable {name!r} on ({y}, {x}); it has: {', '.join(fitting) or 'none'}"
                )
            return np.asarray(dataset[name].transpose(y, x).values, np.float32)
