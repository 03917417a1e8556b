"""One trial as the figures see it, and what several of them share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.factors import Conservation, ScaleParameters, Scope


@dataclass(frozen=True)
class TrialPoint:
    """A trial that has ended.

    Attributes
    ----------
    number : int
    parameters : ScaleParameters
    crps : float or None
        Its final CRPS, in the data's units; only complete trials have one.
    state : {"complete", "pruned", "failed"}
    rungs : mapping
        Training step -> CRPS at that step, as far as the trial was looked at.
    spectral : float or None
        Log-spectral distance of its members from the truth, in dB.
    """

    number: int
    parameters: ScaleParameters
    crps: float | None
    state: Literal["complete", "pruned", "failed"]
    rungs: Mapping[int, float]
    spectral: float | None = None

    @property
    def final(self) -> float:
        """CRPS of a complete trial; NaN where there is none."""
        return (
            self.crps
            if self.state == "complete" and finite(self.crps) and self.crps is not None
            else math.nan
        )

    @property
    def last_rung(self) -> float:
        """CRPS at the last step at which the trial was looked at; NaN if it never was."""
        return self.rungs[max(self.rungs)] if self.rungs else math.nan


def finite(value: float | None) -> bool:
    """Whether there is a value to draw."""
    return value is not None and math.isfinite(value)


def scored(trials: Sequence[TrialPoint]) -> list[TrialPoint]:
    """Give the trials with a final CRPS, in the order of their numbers."""
    return sorted((trial for trial in trials if finite(trial.final)), key=lambda trial: trial.number)


def best_of(trials: Sequence[TrialPoint]) -> TrialPoint | None:
    """Give the trial with the lowest final CRPS; of equal ones the first."""
    return min(scored(trials), key=lambda trial: trial.final, default=None)


def kind_of_f(f: Conservation) -> str:
    """Name f by what it does to the amounts, and its scope: `identity, cell`, `taper, tile` or `none`."""
    if f.scope is Scope.NONE:
        return "none"
    return f"{'identity' if f.power == 1 and f.threshold == 0 else 'taper'}, {f.scope.value}"
