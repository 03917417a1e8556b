"""Importance sampling of wet windows, after Ravuri et al. (2021), doi:10.1038/s41586-021-03854-z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Importance:
    """Probabilities of windows, and what each then counts.

    A window n is drawn with p_n in proportion to q_min + mean(1 - exp(-x / s)) over its coarse frame x, and
    its loss is multiplied by 1 / (N p_n): the expected loss is that of uniform sampling.

    Attributes
    ----------
    chances : ndarray
        (N,) float64, sum 1.
    """

    chances: np.ndarray

    @classmethod
    def of(cls, wetness: np.ndarray, floor: float) -> Importance:
        """Make the probabilities.

        Parameters
        ----------
        wetness : ndarray
            (N,) means of 1 - exp(-x / s).
        floor : float
            q_min.
        """
        amounts = wetness.astype(np.float64) + floor
        return cls(amounts / amounts.sum())

    def draw(self, offset: float) -> np.ndarray:
        """Draw N windows by systematic resampling: n comes N p_n times, rounded up or down.

        Parameters
        ----------
        offset : float
            In [0, 1), the only random number there is; the draw is unbiased over it.

        Returns
        -------
        ndarray
            (N,) int32, ascending.
        """
        count = len(self.chances)
        ends = np.cumsum(self.chances) * count
        ends[-1] = count  # against rounding
        marks = np.arange(count) + offset
        return np.searchsorted(ends, marks, side="right").clip(max=count - 1).astype(np.int32)

    def weights(self, indices: np.ndarray) -> np.ndarray:
        """Give what windows (B,) count: 1 / (N p), float32."""
        return (1 / (len(self.chances) * self.chances[indices])).astype(np.float32)
