"""From the times of many files to places on one even time axis: order, gaps, late and repeated times.

The rule: a store starts with its first time and grows forward. A gap is filled when a file brings its time,
however late. A time that is there already changes nothing if its values are the same, else it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError

# One wrong date would otherwise ask for millions of empty frames.
_MOST_EMPTY = 20


@dataclass(frozen=True)
class Timeline:
    """An even time axis, and the frames of the sources that have a place on it.

    Attributes
    ----------
    start : np.datetime64
        Time of place 0, in seconds.
    cadence_seconds : int
    frames : int
        Length of the axis: what is in the store and what comes.
    entries : np.ndarray
        (n, 3) int: place, source, frame within the source; by place, then in the order of the sources.
    """

    start: np.datetime64
    cadence_seconds: int
    frames: int
    entries: np.ndarray

    def time(self, place: int) -> np.datetime64:
        """Give the time of a place."""
        return self.start + np.timedelta64(int(place) * self.cadence_seconds, "s")

    def runs(self) -> list[tuple[int, int, int, np.ndarray]]:
        """Give (source, first frame, stop, places) of frames that stand next to each other in one source."""
        place, source, frame = self.entries.T
        follows = (np.diff(source) == 0) & (np.diff(frame) == 1)
        cuts = np.flatnonzero(~follows) + 1
        return [
            (int(source[part[0]]), int(frame[part[0]]), int(frame[part[-1]]) + 1, place[part])
            for part in np.split(np.arange(len(place)), cuts)
            if len(part)
        ]


@dataclass(frozen=True)
class Axis:
    """The time axis of a store that is there already.

    Attributes
    ----------
    start : np.datetime64
    cadence_seconds : int
    present : np.ndarray
        (T,) bool: not in a gap.
    """

    start: np.datetime64
    cadence_seconds: int
    present: np.ndarray

    def has(self, times: np.ndarray) -> np.ndarray:
        """Tell of each time whether it is there."""
        steps = (times.astype("datetime64[s]") - self.start).astype("int64")
        places = np.clip(steps // self.cadence_seconds, 0, len(self.present) - 1)
        return (steps == places * self.cadence_seconds) & self.present[places]


def build(times: Sequence[np.ndarray], names: Sequence[str], axis: Axis | None = None) -> Timeline:
    """Give the frames of all sources their places.

    Parameters
    ----------
    times : sequence of np.ndarray
        Per source, (n,) datetime64[s], in any order; NaT for frames that are passed over.
    names : sequence of str
        Per source, for messages.
    axis : Axis, optional
        That of the store to be added to; none: the sources make their own.

    Raises
    ------
    UserError
        If there is no cadence to be seen, or a time fits the axis nowhere.
    """
    moments = np.concatenate([t.astype("datetime64[s]") for t in times])
    source = np.concatenate([np.full(len(t), i) for i, t in enumerate(times)])
    frame = np.concatenate([np.arange(len(t)) for t in times])
    order = np.argsort(moments, kind="stable")
    order = order[~np.isnat(moments[order])]
    seconds, source, frame = moments[order].astype("int64"), source[order], frame[order]
    if axis is not None and not len(order):
        return Timeline(axis.start, axis.cadence_seconds, len(axis.present), np.zeros((0, 3), int))
    held_by = [names[i] for i in source]
    if axis is None:
        cadence = _cadence(seconds, held_by[0])
        start, there = _first_even(seconds, cadence), 0
    else:
        start, cadence, there = int(axis.start.astype("int64")), axis.cadence_seconds, len(axis.present)
    _check(seconds, held_by, start, cadence)
    places = (seconds - start) // cadence
    frames = max(there, int(places[-1]) + 1)
    _refuse_wide_gaps(np.unique(places), there, frames, start, cadence)
    entries = np.stack([places, source, frame], axis=1)
    return Timeline(np.datetime64(start, "s"), cadence, frames, entries)


def _cadence(seconds: np.ndarray, name: str) -> int:
    """Take the most common step, the shortest of equally common ones."""
    steps = np.diff(np.unique(seconds))
    if not len(steps):
        raise UserError(
            f"{name}: one time only; a field needs at least two to have a cadence, give more files"
        )
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])


def _first_even(seconds: np.ndarray, cadence: int) -> int:
    """Give the first of the times that most others are whole steps away from."""
    remainders, counts = np.unique(seconds % cadence, return_counts=True)
    return int(seconds[seconds % cadence == remainders[np.argmax(counts)]][0])


def _check(seconds: np.ndarray, names: Sequence[str], start: int, cadence: int) -> None:
    for index in np.flatnonzero((seconds - start) % cadence)[:1]:
        raise UserError(
            f"{names[index]}: {_iso(seconds[index])} does not fit the cadence: a frame every {cadence} s "
            f"from {_iso(start)}; leave it out, resample it, or ingest it into a store of its own"
        )
    for index in np.flatnonzero(seconds < start)[:1]:
        raise UserError(
            f"{names[index]}: {_iso(seconds[index])} lies before the store's first time, {_iso(start)}; "
            "a store grows forward only: ingest the longer period into a new store, or leave the file out"
        )


def _refuse_wide_gaps(places: np.ndarray, there: int, frames: int, start: int, cadence: int) -> None:
    have = len(places) + there
    if frames - have <= _MOST_EMPTY * have:
        return
    around = np.concatenate([[there - 1] if there else [], places[places >= there]]).astype(int)
    widest = int(np.argmax(np.diff(around)))
    before, after = (_iso(start + around[widest + k] * cadence) for k in (0, 1))
    raise UserError(
        f"gap of {int(np.diff(around).max()) - 1} frames between {before} and {after}, but only {have} "
        "frames in all; check the dates, or ingest the periods into stores of their own"
    )


def describe_gaps(gaps: Sequence[tuple[int, int]], start: np.datetime64, cadence_seconds: int) -> str:
    """Say how many frames are missing, and where the first of them are."""
    if not gaps:
        return "none"
    first, count = gaps[0]
    base = int(start.astype("datetime64[s]").astype("int64"))
    after, before = _iso(base + (first - 1) * cadence_seconds), _iso(base + (first + count) * cadence_seconds)
    more = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    total = sum(frames for _, frames in gaps)
    return f"{total} frames that no file has, missing ({count} between {after} and {before}{more})"


def _iso(seconds: int | np.integer) -> str:
    return str(np.datetime64(int(seconds), "s"))
