"""GeoTIFF: one image per file; its time and what its numbers mean come from the rules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.sources import axes
from pipeline.sources.readers.base import DEFAULT_NAME, needed
from pipeline.sources.readers.calibration import Calibration, Found
from pipeline.sources.readers.image import Image, ImageSource, units_of
from pipeline.sources.readers.window import Window
from pipeline.sources.rules import SourceRules


class GeotiffSource(ImageSource):
    """One band of a GeoTIFF."""

    def _image(self, rules: SourceRules) -> Image:
        self._only_variable(rules.name or DEFAULT_NAME)
        with self._band(rules) as data:
            if data.rio.transform().b or data.rio.transform().d:
                raise ValueError("the image is rotated against its map")
            crs = data.rio.crs
            coordinates = [np.asarray(data[axis].values, np.float64) for axis in ("y", "x")]
            units = str(data.attrs.get("units", ""))
        attributes: dict[str, dict[str, Any]] = {}
        if crs is not None:
            attributes = axes.cf_of_crs(crs.to_wkt(), self._place.path)
        return Image(
            y=coordinates[0],
            x=coordinates[1],
            units=units_of(rules, units),
            crs=None if crs is None else crs.to_wkt(),
            attributes=attributes,
        )

    def _numbers(self, part: Window) -> tuple[np.ndarray, Calibration]:
        with self._band(self.rules) as data:
            numbers = part.read(lambda rows, columns: np.asarray(data[rows, columns].values))
            missing = data.attrs.get("_FillValue")
            found: Found = {
                "gain": float(data.attrs.get("scale_factor", 1)),
                "offset": float(data.attrs.get("add_offset", 0)),
                "missing": () if missing is None or np.isnan(missing) else (float(missing),),
            }
        return numbers, Calibration.of(self.rules, found)

    @contextlib.contextmanager
    def _band(self, rules: SourceRules) -> Iterator[Any]:
        """Open the file, as a data array (y, x) that has not been read, and close it again."""
        rioxarray = needed("rioxarray", "geotiff", self._place.path)
        with self._place.local() as path, rioxarray.open_rasterio(path, cache=False, lock=False) as data:
            yield axes.select(data, rules.select or {"band": 1}, self._place.path)
