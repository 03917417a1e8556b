"""From the times of many files to one even time axis: order, duplicates, gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError

# One wrong date would otherwise ask for millions of empty frames.
_MOST_FILLED = 20


@dataclass(frozen=True)
class Timeline:
    """An even time axis, and which frame of which source stands at each time.

    Attributes
    ----------
    times : np.ndarray
        (T,) datetime64[s].
    origin : np.ndarray
        (T, 2) source and frame within it; (-1, -1) where no source has the time.
    cadence_seconds : int
    gaps : tuple of (str, str, int)
        Last time before a gap, first one after it, frames missing in between.
    """

    times: np.ndarray
    origin: np.ndarray
    cadence_seconds: int
    gaps: tuple[tuple[str, str, int], ...]

    @property
    def filled(self) -> int:
        """Frames that no source has."""
        return sum(frames for _, _, frames in self.gaps)


def build(times: Sequence[np.ndarray], names: Sequence[str]) -> Timeline:
    """Put the frames of all sources in order.

    Parameters
    ----------
    times : sequence of np.ndarray
        Per source, (n,) datetime64[s], in any order.
    names : sequence of str
        Per source, for messages.

    Raises
    ------
    UserError
        If there are fewer than two times, a time comes twice, or the spacing is uneven.
    """
    seconds = np.concatenate([t.astype("datetime64[s]").astype("int64") for t in times])
    origin = np.concatenate(
        [np.stack([np.full(len(t), i), np.arange(len(t))], 1) for i, t in enumerate(times)]
    )
    order = np.argsort(seconds, kind="stable")
    seconds, origin = seconds[order], origin[order]
    if len(seconds) < 2:
        raise UserError(
            f"{names[0]}: one time only; a field needs at least two to have a cadence, give more files"
        )
    steps = np.diff(seconds)
    for index in np.flatnonzero(steps == 0)[:1]:
        first, second = (names[origin[i, 0]] for i in (index, index + 1))
        both = f"{first} and {second}" if first != second else first
        raise UserError(f"time {_iso(seconds[index])} comes twice (in {both}); leave one of them out")

    values, counts = np.unique(steps, return_counts=True)
    cadence = int(values[np.argmax(counts)])  # the most common step, the shortest of equally common ones
    for index in np.flatnonzero(steps % cadence)[:1]:
        raise UserError(
            f"uneven time axis: {_iso(seconds[index + 1])} (in {names[origin[index + 1, 0]]}) follows "
            f"{_iso(seconds[index])}, no multiple of the cadence of {cadence} s; "
            "leave it out or resample first"
        )
    missing = steps // cadence - 1
    gaps = tuple((_iso(seconds[i]), _iso(seconds[i + 1]), int(missing[i])) for i in np.flatnonzero(missing))
    if missing.sum() > _MOST_FILLED * len(seconds):
        before, after, frames = max(gaps, key=lambda gap: gap[2])
        raise UserError(
            f"gap of {frames} frames between {before} and {after}, but only {len(seconds)} frames in all; "
            "check the dates, or ingest the periods into stores of their own"
        )
    total = int((seconds[-1] - seconds[0]) // cadence) + 1
    even = seconds[0] + cadence * np.arange(total)
    where = np.full((total, 2), -1)
    where[(seconds - seconds[0]) // cadence] = origin
    return Timeline(even.astype("datetime64[s]"), where, cadence, gaps)


def _iso(seconds: np.integer) -> str:
    return str(np.datetime64(int(seconds), "s"))
