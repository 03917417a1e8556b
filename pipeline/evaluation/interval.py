"""How sure a model's CRPS is, by a bootstrap over blocks of windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.config import ScoringSettings
from pipeline.data.windows import Windows
from pipeline.evaluation.bootstrap import block_of, crps_difference
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.statistics import Statistics

_LEVEL = 0.9
_DAY_SECONDS = 86_400
_LONG_DAYS = 5  # with fewer days no interval could be had from them


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
    return interval_of(evaluation.statistics, blocks, scoring.resamples, seed, _LEVEL)


def interval_of(statistics: Statistics, blocks: Tensor, resamples: int, seed: int, level: float) -> Interval:
    """Give the interval of the CRPS for given blocks.

    Parameters
    ----------
    statistics : Statistics
        Of N windows.
    blocks : Tensor
        (N,) int64, as `Blocks.rows`.
    resamples, seed : int
    level : float
    """
    # The CRPS is a ratio of sums, like the comparison of two models: here to one that is off by 1 everywhere.
    unit = replace(statistics, crps=statistics.weight)
    generator = torch.Generator().manual_seed(seed)
    ratio = crps_difference(statistics, unit, blocks, resamples=resamples, generator=generator, level=level)
    return Interval(1 + ratio.low, 1 + ratio.high, level, ratio.blocks)


@dataclass(frozen=True)
class Blocks:
    """Which windows the bootstrap draws together.

    Attributes
    ----------
    rows : Tensor
        (N,) int64, the block of each window, from 0 without a gap.
    rule : {"box", "day"}
        What a block is.
    """

    rows: Tensor
    rule: Literal["box", "day"]

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return int(self.rows.max()) + 1

    def described(self, scoring: ScoringSettings) -> str:
        """Say in words what a block is."""
        if self.rule == "day":
            return "windows of one calendar day"
        side = f"{scoring.block_patches} x {scoring.block_patches} patches"
        return f"windows in a box of {scoring.block_frames} fine frames and {side}"


def blocks_of(
    windows: Windows,
    times: np.ndarray,
    scoring: ScoringSettings,
    rule: Literal["auto", "box", "day"],
) -> Blocks:
    """Tell which windows see the same weather.

    Parameters
    ----------
    windows : Windows
    times : ndarray
        (T,) datetime64, of every frame of the store.
    scoring : ScoringSettings
        Size of a box.
    rule : str
        box: windows in the same box of time and space. day: windows whose first frame is on the same calendar
        day (UTC), wherever they are. auto: boxes if the windows span, or fall on, fewer than 5 days.
    """
    first = times[windows.places[:, 0]].astype("datetime64[s]").astype(np.int64)
    days = np.unique(first // _DAY_SECONDS, return_inverse=True)[1].reshape(-1)
    if rule == "auto":
        few = np.ptp(first) < _LONG_DAYS * _DAY_SECONDS or days.max() + 1 < _LONG_DAYS
        rule = "box" if few else "day"
    if rule == "box":
        rows = block_of(windows.places, scoring.block_frames, scoring.block_patches * windows.patch)
        return Blocks(rows, "box")
    return Blocks(torch.from_numpy(days.astype(np.int64)), "day")
