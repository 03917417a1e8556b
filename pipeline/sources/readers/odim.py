"""ODIM_H5, the OPERA data information model: cartesian composites (Michelson et al. 2021, version 2.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.sources import axes
from pipeline.sources.readers.base import needed
from pipeline.sources.readers.calibration import Calibration, Found
from pipeline.sources.readers.image import Image, ImageSource
from pipeline.sources.readers.times import moment_of
from pipeline.sources.readers.window import Window
from pipeline.sources.rules import DbzRules, SourceRules
from pipeline.units import WANTED

if TYPE_CHECKING:
    import h5py

_UNITS = {"RATE": WANTED, "ACRR": "mm"}
_REFLECTIVITY = ("DBZH", "TH", "DBZV", "TV", "DBZHC")
_PREFERRED = ("RATE", "ACRR", *_REFLECTIVITY)
_TIME = "%Y%m%d%H%M%S"
_COMPOSITES = ("COMP", "IMAGE")


@dataclass(frozen=True)
class _Found:
    """Where a quantity lies: the names of its data set and data groups."""

    quantity: str
    dataset: str
    data: str


class OdimSource(ImageSource):
    """One quantity of a composite: the first data set that has it."""

    def _image(self, rules: SourceRules) -> Image:
        import h5py

        path = self._place.path
        with self._place.binary() as stream, h5py.File(stream) as file:
            kind = _text(file, ("what",), "object")
            if kind not in _COMPOSITES:
                raise UserError(
                    f"{path}: an ODIM {kind or 'file without what/object'}; only composites on a map "
                    f"({', '.join(_COMPOSITES)}) are read"
                )
            self._found = found = _choose(file, self._wanted, path)
            y, x, crs = _grid(file, found, path)
            begin, end = _interval(file, found)
            nominal = moment_of("".join(_text(file, ("what",), word) for word in ("date", "time")), _TIME)
            origin = _text(file, ("what",), "source")
        interval = None
        if found.quantity == "ACRR" and begin is not None and end is not None:
            interval = float((end - begin).astype("int64")) or None
        attributes = axes.cf_of_crs(crs, path)
        attributes[""] = {"source": f"ODIM composite {origin}".strip()}
        units = WANTED if found.quantity in _REFLECTIVITY else _UNITS.get(found.quantity, "")
        return Image(
            y=y,
            x=x,
            time=end if interval is not None else nominal,
            units=units,
            crs=crs,
            interval_seconds=interval,
            attributes=attributes,
        )

    def _numbers(self, part: Window) -> tuple[np.ndarray, Calibration]:
        import h5py

        found = self._found
        where = (f"{found.dataset}/{found.data}/what", f"{found.dataset}/what", "what")
        with self._place.binary() as stream, h5py.File(stream) as file:
            codes = [_attribute(file, where, name) for name in ("nodata", "undetect")]
            missing, dry = (() if code is None else (float(code),) for code in codes)
            known: Found = {"missing": missing, "dry": dry}
            if (gain := _attribute(file, where, "gain")) is not None:
                known["gain"] = float(gain)
            if (offset := _attribute(file, where, "offset")) is not None:
                known["offset"] = float(offset)
            image = file[f"{found.dataset}/{found.data}/data"]
            numbers = part.read(lambda rows, columns: image[rows, columns])
        # Rates and sums are what they are; the rules' power law is for reflectivity only.
        dbz = (self.rules.dbz or DbzRules()) if found.quantity in _REFLECTIVITY else None
        return numbers, Calibration.of(self.rules.model_copy(update={"dbz": dbz}), known)


def _choose(file: h5py.File, wanted: str | None, path: str) -> _Found:
    """Find the wanted quantity, else the first of the usual ones, else the only one."""
    present: list[_Found] = []
    for dataset in _numbered(file, "dataset"):
        for data in _numbered(file[dataset], "data"):
            quantity = _text(file, (f"{dataset}/{data}/what", f"{dataset}/what"), "quantity")
            present.append(_Found(quantity, dataset, data))
    quantities = list(dict.fromkeys(found.quantity for found in present))
    order = [wanted] if wanted is not None else [*_PREFERRED, *(quantities if len(quantities) == 1 else [])]
    for quantity in order:
        for found in present:
            if found.quantity == quantity:
                return found
    listed = ", ".join(quantities) or "none"
    if wanted is not None:
        raise UserError(f"{path}: no quantity {wanted!r}; it has: {listed}")
    raise UserError(f"{path}: which quantity? It has: {listed}; choose one with --variable NAME")


def _numbered(group: h5py.Group, word: str) -> list[str]:
    """Names such as dataset1, dataset2 in the order of their numbers."""
    names = [name for name in group if re.fullmatch(rf"{word}\d+", name)]
    return sorted(names, key=lambda name: int(name.removeprefix(word)))


def _grid(file: h5py.File, found: _Found, path: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Pixel centres in the projection's coordinates, from the corner of the image and the size of a pixel."""
    where = (f"{found.dataset}/where", "where")
    crs = _text(file, where, "projdef")
    rows, columns = file[f"{found.dataset}/{found.data}/data"].shape
    declared = (int(_need(file, where, "ysize")), int(_need(file, where, "xsize")))
    if declared != (rows, columns):
        raise ValueError(f"image of {rows} x {columns} pixels, {declared[0]} x {declared[1]} declared")
    width, height = _need(file, where, "xscale"), _need(file, where, "yscale")
    project = needed("pyproj", "odim", path).Proj(crs)

    def corner(name: str) -> tuple[float, float]:
        return project(_need(file, where, f"{name}_lon"), _need(file, where, f"{name}_lat"))

    left, top = corner("UL")
    right, bottom = corner("LR")
    wrong = (abs(right - left - columns * width) / width, abs(top - bottom - rows * height) / height)
    if max(wrong) > 2:  # corners are often given to a few digits only
        raise ValueError(
            f"corners lie {(right - left) / width:.1f} x {(top - bottom) / height:.1f} pixels apart, "
            f"the image has {columns} x {rows}"
        )
    return top - height * (np.arange(rows) + 0.5), left + width * (np.arange(columns) + 0.5), crs


def _interval(file: h5py.File, found: _Found) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    where = (f"{found.dataset}/{found.data}/what", f"{found.dataset}/what")
    texts = [
        _text(file, where, f"{word}date") + _text(file, where, f"{word}time") for word in ("start", "end")
    ]
    begin, end = (moment_of(text, _TIME) if text else None for text in texts)
    return begin, end


def _attribute(file: h5py.File, places: tuple[str, ...], name: str) -> Any:
    """Read an attribute from the first of these groups that has it: ODIM lets groups inherit."""
    for place in places:
        if place in file and name in file[place].attrs:
            return np.ravel(file[place].attrs[name])[0]
    return None


def _need(file: h5py.File, places: tuple[str, ...], name: str) -> float:
    value = _attribute(file, places, name)
    if value is None:
        raise ValueError(f"no attribute {name} in {' or '.join(places)}")
    return float(value)


def _text(file: h5py.File, places: tuple[str, ...], name: str) -> str:
    value = _attribute(file, places, name)
    return "" if value is None else value.decode() if isinstance(value, bytes) else str(value)
