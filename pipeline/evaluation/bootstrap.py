"""How sure the CRPS of a trial or a final model is, and whether one beats another: a paired block bootstrap.

From statistics window by window, as `evaluate` gives them; of any metric from sums by block: `intervals`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.config import ScoringSettings
from pipeline.data.windows import Windows
from pipeline.evaluation.blocks import block_of
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.statistics import Statistics

FEWEST_BLOCKS = 5
"""With fewer there is no interval."""

_LEVEL = 0.9


@dataclass(frozen=True)
class Interval:
    """Where the CRPS would lie with other weather of the same kind.

    Attributes
    ----------
    low, high : float
        In the field's units; NaN with fewer than 5 blocks.
    level : float
        Share of the resamples inside.
    blocks : int
        How many blocks of windows were drawn from.
    """

    low: float
    high: float
    level: float
    blocks: int


@dataclass(frozen=True)
class Difference:
    """By how much a reference scores worse than the tuned model.

    Attributes
    ----------
    value : float
        CRPS of the reference / CRPS of the tuned model - 1.
    low, high : float
        Interval of the value; NaN with fewer than 5 blocks, from which no interval can be had.
    blocks : int
        How many blocks were drawn from.
    """

    value: float
    low: float
    high: float
    blocks: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def crps_difference(
    reference: Statistics,
    tuned: Statistics,
    blocks: Tensor,
    *,
    resamples: int,
    generator: torch.Generator,
    level: float = 0.9,
) -> Difference:
    """Compare two models on the same windows.

    Blocks are drawn with replacement, the same ones for both models; the ends of the interval are quantiles
    over the resamples, further out than the level says where blocks are few (the expanded percentile
    interval of Hesterberg, 2015, doi:10.1080/00031305.2015.1089789): the plain one is too narrow then.

    Parameters
    ----------
    reference, tuned : Statistics
        Of the same N windows in the same order.
    blocks : Tensor
        (N,), from `block_of`.
    resamples : int
    generator : torch.Generator
    level : float
        Share of the resamples inside the interval.

    Raises
    ------
    ValueError
        If the windows differ.
    """
    if not torch.equal(reference.weight, tuned.weight) or len(blocks) != tuned.windows:
        raise ValueError("the two models were not scored on the same windows")
    count = int(blocks.max()) + 1
    # The pixels are the same, so the ratio of the means is that of the sums.
    sums = torch.zeros(2, count, dtype=torch.float64)
    sums.index_add_(1, blocks, torch.stack([reference.crps, tuned.crps]))
    value = _ratio(*sums.sum(dim=1)).item()
    if count < FEWEST_BLOCKS:
        return Difference(value, math.nan, math.nan, count)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    values = _ratio(sums[0][drawn].sum(dim=1), sums[1][drawn].sum(dim=1))
    tail = expanded_tail((1 - level) / 2, count)
    # Outwards to a resample, not between two: a perfect tuned model makes some infinite.
    low = torch.quantile(values, tail, interpolation="lower").item()
    high = torch.quantile(values, 1 - tail, interpolation="higher").item()
    return Difference(value, low, high, count)


def crps_interval(
    evaluation: Evaluation,
    windows: Windows,
    scoring: ScoringSettings,
    seed: int,
    *,
    cadence_seconds: float,
) -> Interval:
    """Give the interval of the ensemble's CRPS by a bootstrap over blocks of windows.

    Parameters
    ----------
    evaluation : Evaluation
    windows : Windows
        That were scored.
    scoring : ScoringSettings
        Size of the blocks, number of resamples.
    seed : int
    cadence_seconds : float
        Between two fine frames of the windows.
    """
    statistics = evaluation.statistics
    frames, side = scoring.block_frames(cadence_seconds), scoring.block_patches * windows.patch
    blocks = block_of(windows.places, frames, side)
    # The CRPS is a ratio of sums, like the comparison of two models: here to one that is off by 1 everywhere.
    unit = replace(statistics, crps=statistics.weight)
    generator = torch.Generator().manual_seed(seed)
    ratio = crps_difference(
        statistics, unit, blocks, resamples=scoring.resamples, generator=generator, level=_LEVEL
    )
    return Interval(1 + ratio.low, 1 + ratio.high, _LEVEL, ratio.blocks)


def expanded_tail(tail: float, count: int) -> float:
    """Give the tail whose normal quantile is the Student-t one of `count` blocks, times sqrt(n / (n - 1))."""
    from scipy.stats import norm, t

    return float(norm.cdf(math.sqrt(count / (count - 1)) * t.ppf(tail, count - 1)))


def _ratio(reference: Tensor, tuned: Tensor) -> Tensor:
    """Give reference / tuned - 1; 0 / 0 (both perfect) is no difference."""
    return torch.where(reference == tuned, 0.0, reference / tuned - 1)
