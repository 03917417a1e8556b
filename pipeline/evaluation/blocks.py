"""Which windows see the same weather: a bootstrap draws them together, as a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.config import ScoringSettings
from pipeline.data.windows import Windows

_DAY_SECONDS = 86_400
_LONG_DAYS = 5  # with fewer days no interval could be had from them


def block_of(places: np.ndarray, frames: int, pixels: int) -> Tensor:
    """Give each window's block: windows in the same box of time and space are drawn together.

    Neighbouring windows see the same rain, so drawing each by itself would make intervals too narrow.

    Parameters
    ----------
    places : ndarray
        (N, 3): first fine frame, row and column, as `Windows.places`.
    frames, pixels : int
        Size of a block in time, and in both directions of space.

    Returns
    -------
    Tensor
        (N,), int64, from 0 without a gap.
    """
    boxes = np.asarray(places) // np.array([frames, pixels, pixels])
    return torch.from_numpy(np.unique(boxes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64))


@dataclass(frozen=True)
class Blocks:
    """The blocks of some windows.

    Attributes
    ----------
    rows : Tensor
        (N,) int64, the block of each window, from 0 without a gap.
    rule : {"box", "day"}
        What a block is.
    """

    rows: Tensor
    rule: Literal["box", "day"]

    @classmethod
    def of(
        cls,
        windows: Windows,
        times: np.ndarray,
        scoring: ScoringSettings,
        rule: Literal["auto", "box", "day"],
    ) -> Blocks:
        """Tell which windows belong together.

        Parameters
        ----------
        windows : Windows
        times : ndarray
            (T,) datetime64, of every frame of the store.
        scoring : ScoringSettings
            Size of a box.
        rule : str
            box: windows in the same box of time and space. day: windows whose first frame is on the same
            calendar day (UTC), wherever they are. auto: boxes if the windows span, or fall on, fewer than 5
            days.
        """
        first = times[windows.places[:, 0]].astype("datetime64[s]").astype(np.int64)
        days = np.unique(first // _DAY_SECONDS, return_inverse=True)[1].reshape(-1)
        if rule == "auto":
            few = np.ptp(first) < _LONG_DAYS * _DAY_SECONDS or days.max() + 1 < _LONG_DAYS
            rule = "box" if few else "day"
        if rule == "day":
            return cls(torch.from_numpy(days.astype(np.int64)), "day")
        side = scoring.block_patches * windows.patch
        cadence = float((times[1] - times[0]) / np.timedelta64(1, "s"))
        return cls(block_of(windows.places, scoring.block_frames(cadence), side), "box")

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.rows.max()) + 1

    def described(self, scoring: ScoringSettings) -> str:
        """Say in words what a block is."""
        if self.rule == "day":
            return "calendar days"
        side = f"{scoring.block_patches} x {scoring.block_patches} patches"
        return f"boxes of {scoring.block_hours:g} h and {side}"
