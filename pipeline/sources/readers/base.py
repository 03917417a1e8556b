"""What all readers have in common: header, selection, and a source that hands out frames in blocks."""

from __future__ import annotations

import contextlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.errors import TroubleError, UserError
from pipeline.sources.rules import SourceRules
from pipeline.storage import cloud
from pipeline.store import manifest

DEFAULT_NAME = "precipitation"


@dataclass(frozen=True)
class Selection:
    """The part of the data that is wanted.

    Attributes
    ----------
    start, stop : np.datetime64 or None
        First and last time, both included, as in the header (ends of intervals).
    bbox : tuple of float or None
        (x0, y0, x1, y1) in the units of the file's x and y; pixels whose centres lie within are kept.
    """

    start: np.datetime64 | None = None
    stop: np.datetime64 | None = None
    bbox: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Header:
    """What a source says about itself, after its rules and the selection.

    Attributes
    ----------
    variable, units : str
        Name of the field in the store, and the units in which `blocks` gives it.
    times : np.ndarray
        (n,) datetime64[s], the ends of the intervals, in the file's order; n is 0 where nothing is selected.
    y, x : np.ndarray
        (H,) and (W,) coordinates of pixel centres.
    crs : str or None
        Map projection, PROJ or WKT.
    interval_seconds : float or None
        Time one value of a sum stands for, where the file or the rules say so.
    attributes : mapping
        CF attributes of the arrays `variable`, `y`, `x`, `crs` and the dynamics, and of the file under `""`.
    dynamics : tuple of str
        Further fields in time that `blocks` gives, by their names in the store.
    """

    variable: str
    units: str
    times: np.ndarray
    y: np.ndarray
    x: np.ndarray
    crs: str | None = None
    interval_seconds: float | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dynamics: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.y), len(self.x)


class Source(ABC):
    """One file or Zarr group. No file stays open between two calls."""

    path: str
    header: Header

    def __init__(self, path: str, rules: SourceRules, header: Header) -> None:
        self.path = path
        self.rules = rules
        self.header = header

    def blocks(self, start: int, stop: int, variable: str | None = None) -> Iterator[np.ndarray]:
        """Read frames `start` to `stop` of the header's times.

        Parameters
        ----------
        start, stop : int
        variable : str, optional
            One of the header's dynamics; the field itself unless given.

        Yields
        ------
        np.ndarray
            (n, H, W) float64 or float32, NaN for missing: the field in the header's units, a dynamic in
            its own.

        Raises
        ------
        UserError
            If the file cannot be read, or has no such variable.
        """
        if variable is not None and variable not in self.header.dynamics:
            known = ", ".join(self.header.dynamics) or "none"
            raise UserError(f"{self.path}: no further field {variable!r}; the rules name: {known}")
        with explained(self.path):
            yield from self._blocks(start, stop, variable)

    @abstractmethod
    def _blocks(self, start: int, stop: int, variable: str | None) -> Iterator[np.ndarray]: ...

    def static(self, name: str) -> np.ndarray:
        """Read a covariate, (H, W) float32.

        Raises
        ------
        UserError
            If the file has none of that name.
        """
        raise UserError(f"{self.path}: this kind of file has no static covariate {name!r}")


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what a reading library raises (they agree on no exception) into one line about the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if (trouble := cloud.explained(error, path)) is not None:
            raise TroubleError(trouble) from error
        raise UserError(f"{path}: cannot be read ({manifest.one_line(error)})") from error


def needed(module: str, extra: str, path: str) -> ModuleType:
    """Import a library that not every user has.

    Raises
    ------
    UserError
        If it is not there; the line says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{path}: needs {module}: pip install 'finescale[{extra}]'") from error
