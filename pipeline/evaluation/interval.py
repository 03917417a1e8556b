"""How sure a model's CRPS is, by a bootstrap over blocks of windows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pipeline.config import ScoringSettings
from pipeline.data.windows import Windows
from pipeline.evaluation.bootstrap import block_of, crps_difference
from pipeline.evaluation.evaluate import Evaluation

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


def crps_interval(evaluation: Evaluation, windows: Windows, scoring: ScoringSettings, seed: int) -> Interval:
    """Give the interval of the ensemble's CRPS by a bootstrap over blocks of windows.

    Parameters
    ----------
    evaluation : Evaluation
    windows : Windows
        That were scored.
    scoring : ScoringSettings
        Size of the blocks, number of resamples.
    seed : int
    """
    blocks = block_of(windows.places, scoring.block_frames, scoring.block_patches * windows.patch)
    # The CRPS is a ratio of sums, like the comparison of two models: here to one that is off by 1 everywhere.
    unit = replace(evaluation.statistics, crps=evaluation.statistics.weight)
    ratio = crps_difference(
        evaluation.statistics,
        unit,
        blocks,
        resamples=scoring.resamples,
        generator=torch.Generator().manual_seed(seed),
        level=_LEVEL,
    )
    return Interval(1 + ratio.low, 1 + ratio.high, _LEVEL, ratio.blocks)
