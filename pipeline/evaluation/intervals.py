"""How sure a metric is, and whether two fields differ in it, by a paired bootstrap over blocks of windows.

Blocks are drawn with replacement, the sums of those drawn are added, and the metric is computed from them,
for all resamples at once. The ends are quantiles over the resamples, further out than the level says where
blocks are few (the expanded percentile interval of Hesterberg, 2015, doi:10.1080/00031305.2015.1089789).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pipeline.evaluation.bootstrap import FEWEST_BLOCKS, expanded_tail
from pipeline.evaluation.measures.metric import Metric
from pipeline.evaluation.sums import WINDOWS, total


class Estimate(NamedTuple):
    """A value with its interval.

    Attributes
    ----------
    value, low, high : Tensor
        (*dimensions), float64; the ends are NaN with fewer than 5 blocks or where the value is NaN.
    """

    value: Tensor
    low: Tensor
    high: Tensor


def draws(blocks: int, resamples: int, generator: torch.Generator) -> Tensor:
    """Draw blocks with replacement: how often each is in each resample, (resamples, blocks), float64."""
    drawn = torch.randint(blocks, (resamples, blocks), generator=generator)
    counts = torch.zeros(resamples, blocks, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def intervals(
    sums: Mapping[str, Tensor],
    metric: Metric,
    *,
    resamples: int,
    generator: torch.Generator,
    level: float = 0.9,
) -> Estimate:
    """Give a metric of one field and its interval.

    Parameters
    ----------
    sums : mapping
        Of `BlockSums`. Blocks without windows are left out.
    metric : Metric
    resamples : int
    generator : torch.Generator
        On the CPU.
    level : float
        Share of the resamples inside the interval.
    """
    rows = _rows(metric, sums)
    value = metric.compute(total(rows))
    blocks = len(rows[WINDOWS])
    if blocks < FEWEST_BLOCKS:
        return _unsure(value)
    values = metric.compute(_resampled(rows, draws(blocks, resamples, generator)))
    found = _ends(value, values, blocks, level)
    return _reflected(found) if metric.inflated else found


def paired_intervals(
    sums: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    metric: Metric,
    *,
    kind: Literal["difference", "skill"],
    resamples: int,
    generator: torch.Generator,
    level: float = 0.9,
) -> Estimate:
    """Compare two fields on the same windows; both are computed from the same draws.

    Parameters
    ----------
    sums, reference : mapping
        Of `BlockSums` of the same windows in the same blocks.
    metric : Metric
    kind : str
        difference: metric(field) - metric(reference). skill: 1 - d(field) / d(reference), d the distance from
        a perfect field's value, so 1 is perfect and 0 no better; NaN for a metric without such a value, 0 if
        both are perfect.
    resamples, generator, level
        As for `intervals`.

    Raises
    ------
    ValueError
        If the windows differ.
    """
    if not torch.equal(sums[WINDOWS], reference[WINDOWS]):
        raise ValueError("the two fields were not scored on the same windows")
    rows, others = _rows(metric, sums), _rows(metric, reference)
    value = _compare(metric, metric.compute(total(rows)), metric.compute(total(others)), kind)
    blocks = len(rows[WINDOWS])
    if blocks < FEWEST_BLOCKS:
        return _unsure(value)
    weights = draws(blocks, resamples, generator)
    ours, theirs = (metric.compute(_resampled(part, weights)) for part in (rows, others))
    return _ends(value, _compare(metric, ours, theirs, kind), blocks, level)


def _compare(metric: Metric, ours: Tensor, theirs: Tensor, kind: str) -> Tensor:
    if kind == "difference":
        return torch.where(ours == theirs, 0.0, ours - theirs)  # also of two that are infinite
    ours, theirs = metric.distance(ours), metric.distance(theirs)
    return torch.where(ours == theirs, 0.0, 1 - ours / theirs)


def _rows(metric: Metric, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the sums that a metric reads, of the blocks that have windows."""
    there = sums[WINDOWS] > 0
    return {key: sums[key][there] for key in (*metric.needs, WINDOWS)}


def _resampled(rows: Mapping[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
    """Add up the blocks of each resample: (blocks, ...) to (resamples, ...)."""
    return {
        key: (weights @ values.flatten(1)).reshape(len(weights), *values.shape[1:]) if values.ndim > 1
        else weights @ values
        for key, values in rows.items()
    }  # fmt: skip


def _ends(value: Tensor, values: Tensor, blocks: int, level: float) -> Estimate:
    tail = expanded_tail((1 - level) / 2, blocks)
    # Outwards to a resample, not between two: some may be infinite. One without events has no value.
    low = torch.nanquantile(values, tail, dim=0, interpolation="lower")
    high = torch.nanquantile(values, 1 - tail, dim=0, interpolation="higher")
    unknown = value.isnan()
    return Estimate(value, low.masked_fill(unknown, torch.nan), high.masked_fill(unknown, torch.nan))


def _reflected(found: Estimate) -> Estimate:
    """Put an interval as far below the value as it is above; a distance, so from 0 on."""
    value = found.value
    low = torch.minimum((2 * value - found.high).clamp(min=0), value)
    high = torch.maximum(2 * value - found.low, value)
    endless = value.isinf()  # and so are resamples: there is nothing to reflect
    return Estimate(value, torch.where(endless, found.low, low), torch.where(endless, found.high, high))


def _unsure(value: Tensor) -> Estimate:
    return Estimate(value, torch.full_like(value, torch.nan), torch.full_like(value, torch.nan))
