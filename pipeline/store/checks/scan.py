"""One pass over the values of a field store: a row of figures per frame, two maps and a histogram.

Time blocks of one chunk's depth are read one after the other, so memory holds one block of the field and of
each dynamic covariate, and the maps, whatever the store's length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline.store.field_store import FieldStore
from pipeline.store.manifest import frame_digest, one_line

# Of the histogram: ten classes per decade of intensity, in the store's units.
EDGES = 10.0 ** np.linspace(-3, 4, 71)
WET = 0.1  # in the store's units, as in its statistics


@dataclass(frozen=True)
class Series:
    """One variable, a figure per frame; what counts none is 0, and a bound of none is NaN.

    Attributes
    ----------
    valid, infinite, outside, wet : np.ndarray
        (T,) int64, number of pixels: not NaN; infinite; not within the plausible range (infinite ones not
        counted); above 0.1 in the store's units.
    total : np.ndarray
        (T,) float64, sum of the finite values.
    least, most : np.ndarray
        (T,) float64, bounds of the finite values.
    repeats : np.ndarray
        (T,) bool: the same to the bit as the frame before, NaN for NaN.
    unreadable : np.ndarray
        (T,) bool: the store holds bytes that cannot be decoded.
    error : str
        What the first of these came to; empty if all could be read.
    """

    valid: np.ndarray
    infinite: np.ndarray
    outside: np.ndarray
    wet: np.ndarray
    total: np.ndarray
    least: np.ndarray
    most: np.ndarray
    repeats: np.ndarray
    unreadable: np.ndarray
    error: str = ""

    @classmethod
    def empty(cls, frames: int) -> Series:
        """Make room for `frames`."""
        valid, infinite, outside, wet = (np.zeros(frames, np.int64) for _ in range(4))
        least, most = (np.full(frames, np.nan) for _ in range(2))
        repeats, unreadable = (np.zeros(frames, bool) for _ in range(2))
        return cls(valid, infinite, outside, wet, np.zeros(frames), least, most, repeats, unreadable)

    def repeated(self, frame: int, values: np.ndarray, before: np.ndarray | None) -> None:
        """Note whether a frame is the one before again; most are told apart by their sums."""
        if before is not None and self.total[frame] == self.total[frame - 1]:
            self.repeats[frame] = np.array_equal(values, before, equal_nan=True)

    @property
    def mean(self) -> np.ndarray:
        """(T,) mean of the finite values, NaN where there are none."""
        finite = self.valid - self.infinite
        return np.where(finite > 0, self.total / np.maximum(finite, 1), np.nan)


@dataclass(frozen=True)
class Scan:
    """What a pass over a store has found. Frames in recorded gaps were not looked at.

    Attributes
    ----------
    present : np.ndarray
        (T,) bool: not in a recorded gap.
    field : Series
    dynamics : mapping of str to Series
    digests : np.ndarray
        (T, 32) uint8, computed from the values; zeros in gaps and where a value could not be read.
    counted : np.ndarray
        (H, W) int64, in how many frames a pixel is valid.
    sums : np.ndarray
        (H, W) float64, sum of a pixel's finite values.
    histogram : np.ndarray
        (len(EDGES) - 1,) int64, values between `EDGES`.
    """

    present: np.ndarray
    field: Series
    dynamics: Mapping[str, Series]
    digests: np.ndarray
    counted: np.ndarray
    sums: np.ndarray
    histogram: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """(T,) bool: present, and could be read."""
        return self.present & ~self.field.unreadable


def scan(
    store: FieldStore,
    low: float = -np.inf,
    high: float = np.inf,
    advance: Callable[[int], None] | None = None,
) -> Scan:
    """Read a store once.

    Parameters
    ----------
    store : FieldStore
    low, high : float
        Plausible range of the field, in its units.
    advance : callable, optional
        Told how many more frames were read.
    """
    frames, *grid = store.shape
    present = np.ones(frames, bool)
    for first, count in store.info.gaps:
        present[max(first, 0) : max(first + count, 0)] = False
    names = [store.info.variable, *store.info.dynamics]
    series = {name: Series.empty(frames) for name in names}
    errors = dict.fromkeys(names, "")
    found = Scan(
        present=present,
        field=series[names[0]],
        dynamics={name: series[name] for name in names[1:]},
        digests=np.zeros((frames, 32), np.uint8),
        counted=np.zeros(grid, np.int64),
        sums=np.zeros(grid),
        histogram=np.zeros(len(EDGES) - 1, np.int64),
    )
    depth = store.chunks[0]
    before: np.ndarray | None = None  # the frame before, of the field
    for start in range(0, frames, depth):
        stop = min(start + depth, frames)
        blocks: dict[str, np.ndarray] = {}
        for name in names if present[start:stop].any() else ():
            try:
                blocks[name] = store.read(start, stop, variable=name)
            except Exception as error:  # every codec has exceptions of its own for bad bytes
                series[name].unreadable[start:stop] = present[start:stop]
                errors[name] = errors[name] or one_line(error)
        for t in range(stop - start):
            if not present[start + t] or names[0] not in blocks:
                before = None
            for name, block in blocks.items() if present[start + t] else ():
                limits = (low, high) if name == names[0] else (-np.inf, np.inf)
                finite = _add(series[name], start + t, block[t], *limits)
                if name == names[0]:
                    _map(found, block[t], finite)
                    found.field.repeated(start + t, block[t], before)
                    before = block[t]
            if present[start + t] and len(blocks) == len(names):
                digest = frame_digest(*(blocks[name][t] for name in names))
                found.digests[start + t] = np.frombuffer(digest, np.uint8)
        before = None if before is None else before.copy()  # a view would keep the whole block
        if advance is not None:
            advance(stop - start)
    named = {name: replace(series[name], error=errors[name]) for name in names}
    return replace(found, field=named[names[0]], dynamics={name: named[name] for name in names[1:]})


def _add(series: Series, frame: int, values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Enter one (H, W) frame's figures; gives its finite values."""
    finite = values[np.isfinite(values)]
    infinite = int(np.isinf(values).sum()) if finite.size < values.size else 0
    series.infinite[frame], series.valid[frame] = infinite, finite.size + infinite
    if finite.size:
        least, most = float(finite.min()), float(finite.max())
        series.least[frame], series.most[frame] = least, most
        series.total[frame] = finite.sum(dtype=np.float64)
        series.wet[frame] = (finite > WET).sum()
        if least < low or most > high:
            series.outside[frame] = ((finite < low) | (finite > high)).sum()
    return finite


def _map(found: Scan, values: np.ndarray, finite: np.ndarray) -> None:
    """Enter one (H, W) frame into the maps and the histogram."""
    found.counted[...] += ~np.isnan(values)
    np.add(found.sums, values, out=found.sums, where=np.isfinite(values))
    positive = finite[finite >= EDGES[0]]
    found.histogram[...] += np.histogram(np.log10(positive), np.log10(EDGES))[0]
