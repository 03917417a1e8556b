import pytest
import torch

from pipeline.data.coarsen import block_mean
from pipeline.evaluation.sums import BlockSums, Scored, total
from pipeline.factors import FactorPair

PAIR = FactorPair(4, 3)


@pytest.fixture
def rain():
    """Make rain-like windows, half dry, with random missing pixels that hold NaN in truth and members."""

    def rain(pair=PAIR, *, windows=5, members=6, cells=6, missing=0.2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        side = cells * pair.space
        shape = (windows, members + 1, pair.time, side, side)
        fields = (torch.randn(shape, generator=generator) * 1.5).exp().sub(1).clamp(min=0)
        mask = torch.rand(windows, pair.time, side, side, generator=generator) >= missing
        truth = torch.where(mask, fields[:, 0], torch.nan)
        coarse, coarse_mask = block_mean(truth, mask, pair)
        drawn = torch.where(mask.unsqueeze(1), fields[:, 1:], torch.nan)
        return Scored(drawn, truth, mask, coarse[:, 0], coarse_mask[:, 0], pair)

    return rain


@pytest.fixture
def measured():
    """Sum one statistic over all windows of a batch and compute the metrics that can be had, by name."""

    def measured(scored, statistic, metrics):
        sums = BlockSums([statistic], 1)
        sums.add(scored, torch.zeros(len(scored.truth), dtype=torch.long))
        ready = [metric for metric in metrics if metric.applies(sums.sums, ensemble=True)]
        return {metric.name: metric.compute(total(sums.sums)) for metric in ready}

    return measured
