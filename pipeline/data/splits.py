"""Training, validation and test: three stretches of time that share no frame, not even as context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config import SplitSettings
from pipeline.errors import UserError
from pipeline.factors import FactorPair

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Segment:
    """Fine frames [start, stop) of the store; every window of the split lies inside, its context too."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def split_time(frames: int, settings: SplitSettings) -> dict[SplitName, Segment]:
    """Cut the time axis, in time order.

    Parameters
    ----------
    frames : int
        Fine frames in the store.
    settings : SplitSettings
        Shares.

    Raises
    ------
    UserError
        If a split would be empty.
    """
    first = round(frames * settings.train)
    second = round(frames * (settings.train + settings.validation))
    segments: dict[SplitName, Segment] = {
        "train": Segment(0, first),
        "validation": Segment(first, second),
        "test": Segment(second, frames),
    }
    for name, segment in segments.items():
        if len(segment) < 1:
            raise UserError(
                f"store: {frames} frames leave none for {name}; give a longer period or change data.split"
            )
    return segments


def longest_context(segments: dict[SplitName, Segment], pair: FactorPair, wanted: int) -> int:
    """Give the largest L <= `wanted` whose past takes at most half of the shortest split.

    The first targets of a split then start after this many frames for every smaller L too, so that trials
    with different L are scored on the same targets.

    Raises
    ------
    UserError
        If not even one coarse frame fits.
    """
    shortest = min(len(segment) for segment in segments.values())
    if shortest < pair.time:
        raise UserError(
            f"factor pair {pair}: a split has only {shortest} fine frames, fewer than one coarse frame needs "
            f"({pair.time}); give a longer period or change data.split"
        )
    return max(1, min(wanted, 1 + (shortest // 2) // pair.time))
