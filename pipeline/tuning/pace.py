"""How long the rest of a sweep takes, by what its trials have cost so far."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pace:
    """What trials of this run have cost, in seconds."""

    steps: int = 0
    training: float = 0.0
    scored: int = 0
    scoring: float = 0.0
    ended: int = 0
    whole: float = 0.0

    def trained(self, steps: int, seconds: float) -> Pace:
        """Count steps that were really trained."""
        return replace(self, steps=self.steps + steps, training=self.training + seconds)

    def end(self, whole: float, scoring: float | None) -> Pace:
        """Count a trial that was scored or pruned; one that was pruned has no scoring."""
        pace = replace(self, ended=self.ended + 1, whole=self.whole + whole)
        if scoring is None:
            return pace
        return replace(pace, scored=self.scored + 1, scoring=self.scoring + scoring)

    @property
    def per_scoring(self) -> float:
        """Mean seconds of a scoring; 0 before the first."""
        return self.scoring / self.scored if self.scored else 0.0

    def new(self, steps: float) -> float | None:
        """Estimate a trial that has not begun and has `steps` to train.

        The mean of those that ended says best what stages from the cache and pruning save.
        """
        if self.ended:
            return self.whole / self.ended
        return self._by_steps(steps)

    def rest(self, steps: float) -> float | None:
        """Estimate a trial that has `steps` left: no more than a whole one takes, it may yet be pruned."""
        known = [cost for cost in (self._by_steps(steps), self.new(steps)) if cost is not None]
        return min(known, default=None)

    def _by_steps(self, steps: float) -> float | None:
        return steps * self.training / self.steps + self.per_scoring if self.steps else None


def time_left(running: Sequence[float], waiting: int, each: float, at_once: int) -> float:
    """Tell when the last trial ends if each starts as soon as a place is free.

    Parameters
    ----------
    running : sequence of float
        Seconds that each running trial still takes.
    waiting : int
        Trials that have not begun.
    each : float
        Seconds of each of those.
    at_once : int
        Trials that run at once, at least 1.

    Returns
    -------
    float
        Seconds from now.
    """
    places = [*running, *[0.0] * (at_once - len(running))]
    heapq.heapify(places)
    for _ in range(waiting):
        heapq.heapreplace(places, places[0] + each)
    return max(places, default=0.0)
