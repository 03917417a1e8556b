"""NetCDF, Zarr and GRIB, through xarray: dimensions by their CF attributes or usual names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.sources import axes
from pipeline.sources.readers import grib
from pipeline.sources.readers.base import DEFAULT_NAME, Header, Selection, Source, explained
from pipeline.sources.readers.calibration import Calibration
from pipeline.sources.readers.image import units_of
from pipeline.sources.readers.places import Kind, Place
from pipeline.sources.readers.times import ends, required_name_times
from pipeline.sources.readers.window import frames, window
from pipeline.sources.rules import OtherVariable, SourceRules
from pipeline.store import layout, manifest
from pipeline.store.engines import load_xarray
from pipeline.store.frame_rows import present_in

if TYPE_CHECKING:
    import xarray as xr

_BLOCK_BYTES = 2**28  # read at once; 24 frames of a national radar grid are a fifth of it


class GridSource(Source):
    """A data set with time, y and x; further dimensions by the rules."""

    def __init__(
        self, path: str, rules: SourceRules, selection: Selection | None, variable: str | None, kind: Kind
    ) -> None:
        self._place = Place.of(path, rules)
        self._kind = kind
        self._checked: set[str] = set()
        self._calibration = Calibration.of(rules)
        with explained(path):
            wanted = variable or rules.variable
            with self._dataset(wanted) as dataset:
                self._name = axes.choose_variable(dataset, wanted, DEFAULT_NAME, path)
                data = axes.select(dataset[self._name], rules.select, path)
                self._refuse_packed(data, rules)
                header = self._header(dataset, data, rules, selection)
            further = {}
            self._dynamic_frames: dict[str, np.ndarray] = {}
            for name, other in rules.dynamics.items():
                with self._dataset(other.variable) as dataset:
                    further[name] = self._dynamic(dataset, name, other)
            header = replace(header, attributes={**header.attributes, **further})
        super().__init__(path, rules, header)

    def _refuse_packed(self, data: xr.DataArray, rules: SourceRules) -> None:
        """Refuse rules about bare numbers where the file's own packing has been undone already."""
        packing = [key for key in ("scale_factor", "add_offset") if key in data.encoding]
        given = [key for key in ("gain", "offset", "missing", "dry") if getattr(rules, key) not in (None, ())]
        if packing and given:
            raise UserError(
                f"{self._place.path}: {self._name} is packed ({', '.join(packing)}) and is unpacked before "
                f"the rules see it; leave {', '.join(given)} out of the rules"
            )

    def _header(
        self, dataset: xr.Dataset, data: xr.DataArray, rules: SourceRules, selection: Selection | None
    ) -> Header:
        path = self._place.path
        named = required_name_times(path, rules)
        time, y, x = axes.find(data, path, needs_time=named is None)
        self._axes = (y, x)
        self._shape = (data.sizes[y], data.sizes[x])
        if named is None:
            stamps = axes.times(data.coords[time], path)
            times = ends(stamps, rules)
            self._frames = frames(times, selection)
            self._frames = self._frames[_within(stamps[self._frames], dataset.attrs, rules, path)]
        else:
            stamps = times = named
            if time in data.dims and data.sizes[time] != 1:
                raise UserError(f"{path}: {data.sizes[time]} frames, and one time in its name")
            self._frames = frames(times, selection)
        self._times = stamps[self._frames]  # as written in the file, where further fields have the same
        self._window = window(axes.coordinate(data, y), axes.coordinate(data, x), selection, path)
        crs, crs_attributes = axes.projection(dataset, data)
        name = rules.name or self._name
        attributes = {name: axes.plain(data.attrs) | rules.attributes, "": axes.plain(dataset.attrs)}
        attributes |= {"crs": crs_attributes} if crs_attributes else {}
        for axis, dimension in (("y", y), ("x", x)):
            if dimension in data.coords:
                attributes[axis] = axes.plain(data.coords[dimension].attrs)
        if rules.source is not None:
            attributes[""]["source"] = rules.source
        return Header(
            variable=name,
            units=rules.units or units_of(rules, str(data.attrs.get("units", ""))),
            times=times[self._frames],
            y=self._window.y,
            x=self._window.x,
            crs=crs,
            interval_seconds=rules.interval_seconds,
            attributes=attributes,
            dynamics=tuple(sorted(rules.dynamics)),
        )

    def _dynamic(self, dataset: xr.Dataset, name: str, other: OtherVariable) -> dict[str, Any]:
        """Find the frames of a further field, which must lie on the same grid and have the same times."""
        path = self._place.path
        who = f"{other.variable} ({name} in the rules)"
        data = self._other(dataset, other)
        time, y, x = axes.find(data, path)
        if (y, x) != self._axes or (data.sizes[y], data.sizes[x]) != self._shape:
            raise UserError(f"{path}: {who} is not on the grid of {self._name}")
        theirs = {moment: index for index, moment in enumerate(axes.times(data.coords[time], path).tolist())}
        lacking = [moment for moment in self._times.tolist() if moment not in theirs]
        if lacking:
            raise UserError(
                f"{path}: {who} lacks {len(lacking)} of the {len(self._times)} times of {self._name}, the "
                f"first is {lacking[0]:%Y-%m-%dT%H:%M:%S}"
            )
        self._dynamic_frames[name] = np.array([theirs[moment] for moment in self._times.tolist()], np.intp)
        return axes.plain(data.attrs) | ({"units": other.units} if other.units else {})

    def _other(self, dataset: xr.Dataset, other: OtherVariable) -> xr.DataArray:
        if other.variable not in dataset:
            listed = ", ".join(map(str, dataset.data_vars)) or "none"
            raise UserError(f"{self._place.path}: no variable {other.variable!r}; it has: {listed}")
        return axes.select(dataset[other.variable], other.select, self._place.path)

    @contextlib.contextmanager
    def _dataset(self, variable: str | None) -> Iterator[xr.Dataset]:
        """Open the file, for GRIB only the messages of one variable, and close it again."""
        with contextlib.ExitStack() as stack:
            if self._kind == "grib":
                local = stack.enter_context(self._place.local())
                name = variable
                if name is None or name not in self._checked:  # once: it reads the heads of all messages
                    name = grib.choose_variable(local, variable, self._place.path)
                    self._checked.add(name)
                dataset = grib.open_grib(local, name)
            elif self._kind == "zarr":
                dataset = _open(self._place.zarr(), "zarr")
            else:
                place = stack.enter_context(self._place.binary())
                dataset = _open(place, "scipy" if self._kind == "netcdf3" else "h5netcdf")
            yield _only_present(stack.enter_context(dataset), self._place.path)

    def _blocks(self, start: int, stop: int, variable: str | None) -> Iterator[np.ndarray]:
        other = None if variable is None else self.rules.dynamics[variable]
        rows, columns = self.header.grid
        depth = max(1, min(24, _BLOCK_BYTES // (8 * rows * columns)))
        wanted = (self._frames if variable is None else self._dynamic_frames[variable])[start:stop]
        if not len(wanted):
            return
        with self._dataset(self._name if other is None else other.variable) as dataset:
            if other is None:
                data = axes.select(dataset[self._name], self.rules.select, self.path)
                calibration = self._calibration
            else:
                data = self._other(dataset, other)
                calibration = Calibration(other.gain, other.offset)
            data = axes.standard_order(data, self.path)
            for first in range(0, len(wanted), depth):
                block = data[_runs(wanted[first : first + depth])]
                yield calibration.apply(self._window.read(partial(_values, block)))

    def static(self, name: str) -> np.ndarray:
        """Read a covariate by its name in the rules or in the file, (H, W) float32."""
        other = self.rules.statics.get(name, OtherVariable(variable=name))
        with explained(self.path), self._dataset(other.variable) as dataset:
            y, x = self._axes
            fits = other.variable in dataset
            data = self._other(dataset, other) if fits else None
            if data is not None and name in self.rules.statics:
                data = _first_time(data, self.path)
            if data is None or set(data.dims) != {y, x}:
                fitting = [str(key) for key, other in dataset.variables.items() if set(other.dims) == {y, x}]
                raise UserError(
                    f"{self.path}: no variable {other.variable!r} on ({y}, {x}); it has: "
                    f"{', '.join(fitting) or 'none'}"
                )
            data = data.transpose(y, x)
            values = self._window.read(partial(_values, data))
            return Calibration(other.gain, other.offset).apply(values).astype(np.float32)


def _open(place: Any, engine: str) -> xr.Dataset:
    with layout.quiet():
        return load_xarray().open_dataset(place, engine=engine, chunks=None, decode_timedelta=False)


def _only_present(dataset: xr.Dataset, path: str) -> xr.Dataset:
    """Leave out, of a field store of ours, the frames that no file had: they are gaps, not fields of NaN."""
    if layout.DIGESTS not in dataset.variables:
        return dataset
    return dataset.isel(time=np.flatnonzero(present_in(manifest.read_info(path))))


def _values(data: xr.DataArray, rows: slice, columns: slice) -> np.ndarray:
    return np.asarray(data[..., rows, columns].values)


def _first_time(data: xr.DataArray, path: str) -> xr.DataArray:
    """Take the first frame of a static field that was stored with a time axis."""
    time, _, _ = axes.find(data, path, needs_time=False)
    return data.isel({time: 0}) if time in data.dims else data


def _runs(index: np.ndarray) -> slice | np.ndarray:
    """Write neighbouring frames as a slice, which every library reads best."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _within(times: np.ndarray, attributes: Mapping[str, Any], rules: SourceRules, path: str) -> np.ndarray:
    """Tell which times lie in the period that the file's own attributes call valid."""
    if rules.time.valid is None:
        return np.ones(len(times), bool)
    limits = []
    for name, last in zip(rules.time.valid, (False, True), strict=True):
        text = str(attributes.get(name, ""))
        try:
            limit = np.datetime64(datetime.fromisoformat(text), "s")
        except ValueError:
            raise UserError(
                f"{path}: attribute {name} ({text!r}) is no date; change time.valid in the rules"
            ) from None
        whole_day = last and len(text) == len("2020-01-01")
        limits.append(limit + np.timedelta64(86399, "s") if whole_day else limit)
    return (times >= limits[0]) & (times <= limits[1])
