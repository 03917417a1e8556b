"""Distributions as counts in fixed bins: they add up over batches, and quantiles are read from them.

Bins are equally wide in the logarithm, so a quantile is known to the same share of itself everywhere: to less
than a bin's ratio, 2.3 % with 100 bins per decade. Made for rain, which is not negative: all below the first
edge is one bin, whose values are given as 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.evaluation.measures.counting import count_per_window


@dataclass(frozen=True)
class LogBins:
    """Bins of equal ratio, one below the first edge and one from the last edge on.

    Attributes
    ----------
    first, last : float
        In the field's units.
    per_decade : int
    """

    first: float
    last: float
    per_decade: int = 100

    @property
    def size(self) -> int:
        """How many bins, the two open ones included."""
        return round(math.log10(self.last / self.first) * self.per_decade) + 2

    def edges(self) -> Tensor:
        """Give all edges, (size - 1,), float64; bin j > 0 is from edge j - 1 up to, not including, edge j."""
        steps = torch.arange(self.size - 1, dtype=torch.float64)
        return self.first * 10 ** (steps / self.per_decade)

    def count(self, values: Tensor, counted: Tensor) -> Tensor:
        """Count values per window: (B, ...) and a bool mask of that shape to (B, size), int64."""
        edges = self.edges().to(values)
        return count_per_window(torch.bucketize(values.contiguous(), edges, right=True), counted, self.size)

    def quantiles(self, counts: Tensor, levels: Tensor) -> Tensor:
        """Read quantiles from counts, interpolated within a bin in the logarithm.

        Parameters
        ----------
        counts : Tensor
            (..., size), float64; need not be whole numbers.
        levels : Tensor
            (Q,), each above 0 and below 1.

        Returns
        -------
        Tensor
            (..., Q), float64: 0 in the lowest bin, the last edge in the highest; NaN without any count.
        """
        levels = levels.double()
        cumulative = counts.cumsum(dim=-1)
        wanted = cumulative[..., -1:] * levels  # (..., Q)
        found = torch.searchsorted(cumulative.contiguous(), wanted.contiguous()).clamp(max=self.size - 1)
        inside = counts.gather(-1, found)
        part = 1 - (cumulative.gather(-1, found) - wanted) / inside.clamp(min=1e-300)
        value = self.first * 10 ** ((found - 1 + part.clamp(0, 1)) / self.per_decade)
        value = torch.where(found == 0, 0.0, value.clamp(max=self.last))
        return torch.where(cumulative[..., -1:] > 0, value, torch.nan)
