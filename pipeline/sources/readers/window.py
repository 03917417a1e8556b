"""Which frames, rows and columns of a file a selection leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError
from pipeline.sources.readers.base import Selection


@dataclass(frozen=True)
class Window:
    """A part of a grid.

    Attributes
    ----------
    rows : slice
    columns : tuple of slice
        One, or two that are joined where the part crosses the seam of a globe.
    y, x : np.ndarray
        Coordinates of the part.
    """

    rows: slice
    columns: tuple[slice, ...]
    y: np.ndarray
    x: np.ndarray

    def read(self, get: Callable[[slice, slice], np.ndarray]) -> np.ndarray:
        """Read the part by a function of rows and columns, and join it along the last axis."""
        parts = [get(self.rows, columns) for columns in self.columns]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def window(y: np.ndarray, x: np.ndarray, selection: Selection | None, path: str) -> Window:
    """Find the pixels whose centres lie within the box.

    Longitudes that go once around the globe are cut where the box begins, so that a box across the meridian
    where the file begins (-5 to 10 in a file of 0 to 360) is one piece.

    Raises
    ------
    UserError
        If no pixel lies within, or coordinates are missing.
    """
    for name, axis in (("y", y), ("x", x)):
        if not np.isfinite(axis).all():
            raise UserError(f"{path}: its {name} has missing values; a grid needs all of them")
    if selection is None or selection.bbox is None:
        return Window(slice(0, len(y)), (slice(0, len(x)),), y, x)
    x0, y0, x1, y1 = selection.bbox
    rows = np.flatnonzero((y >= y0) & (y <= y1))
    first = 0
    if _circles(x) and (x0 < x.min() or x1 > x.max()):
        turned = (x - x0) % 360 + x0
        first = int(np.argmin(turned))
        x = np.roll(turned, -first)
    columns = np.flatnonzero((x >= x0) & (x <= x1))
    if not len(rows) or not len(columns):
        raise UserError(
            f"{path}: no pixel within --bbox {x0:g},{y0:g},{x1:g},{y1:g}; x runs from {x.min():g} to "
            f"{x.max():g}, y from {y.min():g} to {y.max():g}"
        )
    start, stop = int(columns[0]) + first, int(columns[-1]) + 1 + first
    total = len(x)
    if stop <= total:
        parts: tuple[slice, ...] = (slice(start, stop),)
    elif start >= total:
        parts = (slice(start - total, stop - total),)
    else:
        parts = (slice(start, total), slice(0, stop - total))
    row = slice(int(rows[0]), int(rows[-1]) + 1)
    return Window(row, parts, y[row], x[columns])


def _circles(x: np.ndarray) -> bool:
    """Tell whether these are ascending longitudes once around the globe."""
    steps = np.diff(x)
    if len(x) < 4 or steps.min() <= 0:
        return False
    return bool(np.isclose(x[-1] - x[0] + steps.mean(), 360, rtol=0, atol=0.5 * steps.mean()))


def frames(times: np.ndarray, selection: Selection | None) -> np.ndarray:
    """Find the frames whose times are selected, as indices in the file's order."""
    keep = np.ones(len(times), bool)
    if selection is not None and selection.start is not None:
        keep &= times >= selection.start
    if selection is not None and selection.stop is not None:
        keep &= times <= selection.stop
    return np.flatnonzero(keep)
