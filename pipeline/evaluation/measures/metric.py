"""What a metric is: a function of sums, with what a table, a figure or a reader needs to know."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Sums = Mapping[str, Tensor]
"""From "statistic.sum" to (..., its own dimensions): any leading dimensions, such as bootstrap resamples."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name : str
    title : str
    unit : str
        "" for a ratio, "units" for the field's own units, or a unit such as "dB".
    better : str
        "lower", "higher", "one" or "zero"; "none" for a curve that only describes, such as a spectrum.
    formula : str
        As plain text.
    source : str
        Citation with DOI.
    compute : callable
        From sums with any leading dimensions to (..., *dimensions).
    needs : tuple of str
        The sums that it reads.
    dimensions : tuple of str
        Of one field's result: () for a number, ("threshold",), ("threshold", "scale"), ...
    coordinates : dict
        For each dimension its values; one that depends on the windows' size or the ensemble's (`rank`,
        `wavenumber`, `frequency`) is missing here: `coordinate` gives it.
    ensemble_only : bool
        Without meaning for a field without uncertainty.
    perfect : float or None
        The value of a perfect field, to which a skill refers; none where there is no such value.
    inflated : bool
        A distance along a curve, to which noise can only add: resampling adds more of it.
    """

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher", "one", "zero", "none"]
    formula: str
    source: str
    compute: Callable[[Sums], Tensor]
    needs: tuple[str, ...]
    dimensions: tuple[str, ...] = ()
    coordinates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ensemble_only: bool = False
    perfect: float | None = 0.0
    inflated: bool = False

    def applies(self, sums: Sums, *, ensemble: bool) -> bool:
        """Whether it can be computed: its sums are there, and the field is an ensemble if it must be."""
        return (ensemble or not self.ensemble_only) and all(key in sums for key in self.needs)

    def coordinate(self, dimension: str, size: int) -> tuple[float, ...]:
        """Give the values along a dimension of a result that has `size` of them."""
        if dimension in self.coordinates:
            return self.coordinates[dimension]
        first = 0 if dimension == "rank" else 1
        return tuple(float(first + i) for i in range(size))

    def distance(self, value: Tensor) -> Tensor:
        """How far a value is from a perfect field's, never negative; NaN where there is no such value."""
        return (value - (math.nan if self.perfect is None else self.perfect)).abs()


def ratio(numerator: Tensor, denominator: Tensor, *, both_zero: float) -> Tensor:
    """Divide; 0 / 0 gives `both_zero` and x / 0 is infinite, so no score is NaN unless a valid value is."""
    return torch.where((numerator == 0) & (denominator == 0), both_zero, numerator / denominator)
