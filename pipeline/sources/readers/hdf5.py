"""HDF5 files with one image, by rules that say where things lie in them (KNMI's, for one)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.sources import axes
from pipeline.sources.readers.base import DEFAULT_NAME
from pipeline.sources.readers.calibration import Calibration, Found
from pipeline.sources.readers.image import Image, ImageSource, units_of
from pipeline.sources.readers.times import moment_of
from pipeline.sources.readers.window import Window
from pipeline.sources.rules import Hdf5Rules, SourceRules

if TYPE_CHECKING:
    import h5py

_FORMULA = re.compile(r"GEO=([-+\d.eE]+)\*PV([-+][\d.eE+-]+)?")


class Hdf5Source(ImageSource):
    """One image of counts, with its calibration, projection and period beside it."""

    def _image(self, rules: SourceRules) -> Image:
        import h5py

        where = self._where = _section(rules)
        self._only_variable(rules.name or DEFAULT_NAME)
        with self._place.binary() as stream, h5py.File(stream) as file:
            self._refuse_unlike(file, rules)
            y, x = _grid(file, where)
            crs = None if where.projection is None else _text(file, where.projection)
            units = "" if where.units is None else _units(_text(file, where.units))
            begin, end = (
                moment_of(_text(file, path), where.time_format or "") if path else None
                for path in (where.start, where.end)
            )
            product = _text(file, where.product) if where.product else ""
        attributes: dict[str, dict[str, Any]] = {
            axis: {"standard_name": f"projection_{axis}_coordinate", "units": where.coordinate_units}
            for axis in ("y", "x")
        }
        if rules.source is not None:
            attributes[""] = {"source": rules.source.replace("{product}", product)}
        if crs is not None:
            attributes["crs"] = axes.cf_of_stereographic(crs)
        return Image(
            y=y,
            x=x,
            time=end,
            units=units_of(rules, units),
            crs=crs,
            interval_seconds=float((end - begin).astype("int64")) or None if begin and end else None,
            attributes=attributes,
        )

    def _refuse_unlike(self, file: h5py.File, rules: SourceRules) -> None:
        """Refuse a file that lacks what the rules look for: it is of another kind."""
        where = self._where
        grid = (where.image, where.projection, *(where.shape or ()), *where.pixel_size, *where.first_pixel)
        numbers = (where.calibration, where.gain, where.offset, where.units)
        for path in (*grid, *numbers, where.start, where.end, where.product):
            if path and not _has(file, path):
                raise UserError(
                    f"{self._place.path}: has no {path}, where the rules ({rules.description}) look; choose "
                    "others with --source"
                )

    def _numbers(self, part: Window) -> tuple[np.ndarray, Calibration]:
        import h5py

        where = self._where
        with self._place.binary() as stream, h5py.File(stream) as file:
            found: Found = {"missing": _codes(file, where.missing), "dry": _codes(file, where.dry)}
            if where.calibration is not None:
                formula = _text(file, where.calibration).replace(" ", "").replace("+-", "-")
                match = _FORMULA.fullmatch(formula)
                if match is None:
                    raise UserError(f"{self.path}: calibration {formula!r} is not of the form GEO=a*PV+b")
                found |= {"gain": float(match[1]), "offset": float(match[2] or 0)}
            if where.gain is not None:
                found["gain"] = _number(file, where.gain)
            if where.offset is not None:
                found["offset"] = _number(file, where.offset)
            numbers = part.read(lambda rows, columns: file[where.image][rows, columns])
        return numbers, Calibration.of(self.rules, found)


def _section(rules: SourceRules) -> Hdf5Rules:
    if rules.hdf5 is None:
        raise TypeError("rules of the reader hdf5 have a section hdf5")
    return rules.hdf5


def _grid(file: h5py.File, where: Hdf5Rules) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres from the projection's origin: offsets count pixels, and sizes are signed."""
    shape = file[where.image].shape
    if where.shape is not None:
        declared = tuple(int(_number(file, path)) for path in where.shape)
        if declared != shape:
            raise ValueError(f"image of {shape} pixels, {declared} declared")
    y, x = (
        _number(file, size) * (_number(file, first) + 0.5 + np.arange(pixels))
        for size, first, pixels in zip(where.pixel_size, where.first_pixel, shape, strict=True)
    )
    return y, x


def _value(file: h5py.File, path: str) -> Any:
    """Read `group/dataset`, or `group@attribute`: the first value of it."""
    place, at, attribute = path.partition("@")
    return np.ravel(file[place or "/"].attrs[attribute] if at else file[place][()])[0]


def _codes(file: h5py.File, paths: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(_number(file, path) for path in paths if _has(file, path))


def _has(file: h5py.File, path: str) -> bool:
    place, at, attribute = path.partition("@")
    return (place or "/") in file and (not at or attribute in file[place or "/"].attrs)


def _number(file: h5py.File, path: str) -> float:
    return float(_value(file, path))


def _text(file: h5py.File, path: str) -> str:
    value = _value(file, path)
    return value.decode() if isinstance(value, bytes) else str(value)


def _units(text: str) -> str:
    """Find the unit in `ACCUMULATED_PRECIPITATION_[MM]`; without brackets it is the text, unless a name."""
    bracketed = re.search(r"\[(.+?)\]", text)
    if bracketed:
        return bracketed[1].lower()
    return "" if "_" in text else text
