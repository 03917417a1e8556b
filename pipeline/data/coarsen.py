"""From fine to coarse: the degradation that makes training pairs, with masks."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.factors import FactorPair


def block_mean(
    field: Tensor, mask: Tensor, pair: FactorPair, min_valid: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Average blocks of tau x s x s fine values over their valid ones.

    Amounts are kept: the sum of a block's valid fine values is its coarse value times their number.

    Parameters
    ----------
    field : Tensor
        (..., T, H, W), any unit; T a multiple of tau, H and W of s. Masked values may be NaN.
    mask : Tensor
        (..., T, H, W) bool, True where valid.
    pair : FactorPair
    min_valid : float
        A block with a smaller share of valid values is missing.

    Returns
    -------
    coarse : Tensor
        (..., T / tau, H / s, W / s); 0 where missing.
    coarse_mask : Tensor
        Of the same shape, bool.

    Raises
    ------
    UserError
        If the pair does not divide the field.
    """
    *_, T, H, W = field.shape
    if T % pair.time or H % pair.space or W % pair.space:
        raise UserError(f"factor pair {pair} does not divide a field of {T} frames of {H} x {W} pixels")
    counts = block_sum(mask.to(field.dtype), pair)
    sums = block_sum(torch.where(mask, field, 0.0), pair)
    coarse_mask = counts >= max(min_valid * pair.pixels_per_cell, 1.0) - 1e-6
    return torch.where(coarse_mask, sums / counts.clamp(min=1), 0.0), coarse_mask


def block_sum(field: Tensor, pair: FactorPair) -> Tensor:
    """Sum blocks of tau x s x s values: (..., T, H, W) to (..., T / tau, H / s, W / s)."""
    *lead, T, H, W = field.shape
    s, tau = pair.space, pair.time
    blocks = field.reshape(*lead, T // tau, tau, H // s, s, W // s, s)
    return blocks.sum(dim=(-5, -3, -1))  # over tau, s, s


def whole_cells(field: Tensor, pair: FactorPair) -> Tensor:
    """Cut (..., H, W) to multiples of s: the last rows and columns that fill no whole cell are left out."""
    height, width = (size // pair.space * pair.space for size in field.shape[-2:])
    return field[..., :height, :width]


def spread(coarse: Tensor, pair: FactorPair) -> Tensor:
    """Give every fine pixel its cell's value: (..., t, h, w) to (..., t tau, h s, w s)."""
    fine = coarse.repeat_interleave(pair.time, dim=-3)
    return fine.repeat_interleave(pair.space, dim=-2).repeat_interleave(pair.space, dim=-1)
