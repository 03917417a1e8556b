"""Files that hold one image each: what GeoTIFF, KNMI's HDF5 and ODIM composites have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.sources.readers.base import DEFAULT_NAME, Header, Selection, Source, explained
from pipeline.sources.readers.calibration import Calibration
from pipeline.sources.readers.places import Place
from pipeline.sources.readers.times import ends, required_name_times
from pipeline.sources.readers.window import Window, frames, window
from pipeline.sources.rules import SourceRules
from pipeline.units import WANTED


@dataclass(frozen=True)
class Image:
    """What a file says about its image, before rules and selection.

    Attributes
    ----------
    y, x : np.ndarray
        Coordinates of pixel centres.
    time : np.datetime64 or None
        End of the interval.
    units : str
    crs : str or None
    interval_seconds : float or None
    attributes : mapping
        Of the arrays `y`, `x`, `crs`, and of the file under `""`.
    """

    y: np.ndarray
    x: np.ndarray
    time: np.datetime64 | None = None
    units: str = ""
    crs: str | None = None
    interval_seconds: float | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ImageSource(Source):
    """A file with one image."""

    def __init__(
        self, path: str, rules: SourceRules, selection: Selection | None, variable: str | None
    ) -> None:
        self._place = Place.of(path, rules)
        self._wanted = variable or rules.variable
        name = rules.name or DEFAULT_NAME
        with explained(path):
            named = required_name_times(path, rules)
            image = self._image(rules)
            if named is None:
                if image.time is None:
                    raise UserError(f"{path}: does not say its time; give time.pattern in the rules")
                named = ends(np.array([image.time]), rules)
            self._window = window(image.y, image.x, selection, path)
        attributes = {key: dict(values) for key, values in image.attributes.items()}
        attributes[name] = dict(rules.attributes)
        if rules.source is not None and "source" not in attributes.get("", {}):
            attributes[""] = attributes.get("", {}) | {"source": rules.source}
        header = Header(
            variable=name,
            units=rules.units or image.units,
            times=named[frames(named, selection)],
            y=self._window.y,
            x=self._window.x,
            crs=image.crs,
            interval_seconds=rules.interval_seconds or image.interval_seconds,
            attributes=attributes,
        )
        super().__init__(path, rules, header)

    def _only_variable(self, name: str) -> None:
        """Refuse another variable than the one that these files hold."""
        if self._wanted not in (None, name):
            raise UserError(f"{self._place.path}: no variable {self._wanted!r}; it has: {name}")

    @abstractmethod
    def _image(self, rules: SourceRules) -> Image:
        """Read what the file says about its image."""

    @abstractmethod
    def _numbers(self, part: Window) -> tuple[np.ndarray, Calibration]:
        """Read a part of the image as it is stored, and what its numbers mean."""

    def _blocks(self, start: int, stop: int, variable: str | None) -> Iterator[np.ndarray]:
        if not len(self.header.times[start:stop]):
            return
        numbers, calibration = self._numbers(self._window)
        yield calibration.apply(numbers)[None]


def units_of(rules: SourceRules, found: str) -> str:
    """Tell the units after the rules: mm/h where they turn reflectivity into rain."""
    return WANTED if rules.dbz is not None else found
