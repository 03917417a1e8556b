"""One batch of windows, as every family receives it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B windows: L coarse frames, and the tau fine frames of the last one.

    Attributes
    ----------
    fine : Tensor
        (B, tau, H, W) in physical units, 0 where missing.
    mask : Tensor
        (B, tau, H, W) bool, True where valid.
    coarse : Tensor
        (B, L, h, w) in physical units, 0 where missing.
    coarse_mask : Tensor
        (B, L, h, w) bool.
    statics : Tensor
        (B, S, H, W) static covariates, standardised; S may be 0.
    dynamics : Tensor
        (B, L, K, h, w) coarse dynamic covariates (wind, humidity), standardised, 0 where missing; K may be 0.
    position : Tensor
        (B, 3) int64: absolute index of the first fine frame, row and column of `fine`.
    weights : Tensor
        (B,) what each window's loss counts: 1, or less where importance sampling drew it more often.
    """

    fine: Tensor
    mask: Tensor
    coarse: Tensor
    coarse_mask: Tensor
    statics: Tensor
    dynamics: Tensor
    position: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.fine)

    def to(self, device: torch.device | str) -> Batch:
        """Move all tensors; the position stays on the CPU, where noise is drawn."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in fields(self)
            if f.name != "position"
        }
        return Batch(**moved, position=self.position)

    def pinned(self) -> Batch:
        """Move all tensors to memory that a GPU reads without the CPU waiting."""
        return Batch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    def last_frame(self) -> Batch:
        """Give the same windows without their context, L = 1."""
        return replace(
            self,
            coarse=self.coarse[:, -1:],
            coarse_mask=self.coarse_mask[:, -1:],
            dynamics=self.dynamics[:, -1:],
        )

    @property
    def last(self) -> Tensor:
        """(B, 1, h, w): the coarse frame that is refined."""
        return self.coarse[:, -1:]

    @property
    def last_mask(self) -> Tensor:
        """(B, 1, h, w) bool."""
        return self.coarse_mask[:, -1:]
