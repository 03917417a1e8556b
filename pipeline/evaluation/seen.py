"""Whether a model has seen what it is to be scored on, as far as the dates on its card tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.config import SplitSettings
from pipeline.data.splits import Segment, SplitName, longest_context, split_time
from pipeline.errors import UserError
from pipeline.factors import FactorPair
from pipeline.store.manifest import StoreInfo

Seen = Literal["unseen", "elsewhere", "chosen", "unknown"]
"""unseen: neither training nor tuning had a frame of these days. elsewhere: they had, of other data by its
name. chosen: tuning chose the model by scores on them. unknown: the card has no dates."""

_DATES = ("start", "end", "cadence_seconds")
_WORDS: dict[Seen, str] = {
    "unseen": "which training and tuning have not seen",
    "elsewhere": "of other data than the models were trained on, to judge by its name",
    "chosen": "which training has not seen but by which tuning chose, so scores are better than on new data",
    "unknown": "of which the models' cards do not tell whether training has seen it",
}


@dataclass(frozen=True)
class Period:
    """Stretch of time [start, stop), context of the windows included."""

    start: np.datetime64
    stop: np.datetime64

    @classmethod
    def of(cls, segment: Segment, start: str, cadence_seconds: float) -> Period:
        """Give when the frames of a segment were; each lasts until the next."""

        def time(frame: int) -> np.datetime64:
            return np.datetime64(start, "s") + np.timedelta64(round(frame * cadence_seconds), "s")

        return cls(time(segment.start), time(segment.stop))

    def overlaps(self, other: Period) -> bool:
        """Whether they share any moment."""
        return bool(self.start < other.stop and other.start < self.stop)

    def __str__(self) -> str:
        return f"{self.start} to {self.stop}".replace("T", " ")


def seen(data: Mapping[str, Any], info: StoreInfo, split: SplitName, settings: SplitSettings) -> Seen:
    """Tell whether training or tuning have seen a split of a store.

    Parameters
    ----------
    data : mapping
        What the model's card says about its training data.
    info : StoreInfo
    split : {"validation", "test"}
        That is to be scored.
    settings : SplitSettings
        That cut the store.

    Raises
    ------
    UserError
        If frames of the training would be scored, or, on the test split, frames by which tuning chose.
    """
    if not {*_DATES} <= data.keys() or "split" not in data.get("settings", {}):
        return "unknown"
    theirs = _periods(data)
    ours = Period.of(split_time(info.shape[0], settings)[split], info.start, info.cadence_seconds)
    trained, chosen = ours.overlaps(theirs["train"]), ours.overlaps(theirs["validation"])
    if not (trained or chosen):
        return "unseen"
    same = info.fingerprint == data.get("fingerprint")
    if not same and any(data.get(name) != getattr(info, name) for name in ("name", "variable", "crs")):
        return "elsewhere"
    if trained or split == "test":
        what, period = ("trained on", theirs["train"]) if trained else ("chosen by", theirs["validation"])
        raise UserError(
            f"store {info.name}: its {split} split, {ours}, has frames that the model was {what} ({period}); "
            f"score days from {theirs['test'].start} on".replace("T", " ")
            + ", or the store it was trained with"
        )
    return "chosen"


def _periods(data: Mapping[str, Any]) -> dict[SplitName, Period]:
    """Give when each split of the training data was."""
    start, cadence = data["start"], float(data["cadence_seconds"])
    return {name: Period.of(segment, start, cadence) for name, segment in _segments(data).items()}


def _segments(data: Mapping[str, Any]) -> dict[SplitName, Segment]:
    length = np.datetime64(data["end"], "s") - np.datetime64(data["start"], "s")
    frames = round(length / np.timedelta64(1, "s") / float(data["cadence_seconds"])) + 1
    return split_time(frames, SplitSettings.model_validate(data["settings"]["split"]))


def longest_trained(data: Mapping[str, Any], pair: FactorPair) -> int | None:
    """Give the largest L that the splits of a training had room for; None if the card does not tell.

    Parameters
    ----------
    data : mapping
        What the model's card says about its training data.
    pair : FactorPair
    """
    if not {*_DATES, "max_context"} <= data.keys() or "split" not in data.get("settings", {}):
        return None
    return longest_context(_segments(data), pair, int(data["max_context"]))


def in_words(found: Iterable[Seen]) -> str:
    """Say of a split what its models know of it; the least favourable of several."""
    there = set(found)
    worst: tuple[Seen, ...] = ("unknown", "chosen", "elsewhere", "unseen")
    return next(_WORDS[one] for one in worst if one in there)
