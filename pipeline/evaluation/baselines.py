"""Deterministic references: the last coarse frame brought to the fine grid.

In time both repeat that frame for its tau fine frames. It is the mean over exactly these frames, so repeating
it conserves the amount. A trend continued from the previous coarse frame was left out on purpose: per pixel
it takes rain that moves for rain that grows, it extrapolates below zero (and clamping then breaks the
amount), and its slope would be one more thing to tune in what is meant to be a fixed reference. For a
time-only pair, nearest and bicubic are thus equal.

In space, missing coarse cells are first filled from their surroundings (`fill_missing`): taken as zero, they
would draw an edge that bicubic spreads two cells into the valid ones.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.coarsen import spread
from pipeline.factors import FactorPair


def nearest(coarse_context: Tensor, pair: FactorPair, mask: Tensor | None = None) -> Tensor:
    """Give every fine pixel the value of its coarse cell; block means equal the coarse frame.

    Parameters
    ----------
    coarse_context : Tensor
        (B, L, h, w), physical units; only the last frame is used. NaN is missing.
    pair : FactorPair
        What to refine by.
    mask : Tensor, optional
        (B, L, h, w), bool, True = valid; none: all values that are not NaN.

    Returns
    -------
    Tensor
        (B, T, H, W) with T = time, H = space * h, W = space * w.
    """
    frame = _last_frame(coarse_context, mask)
    return spread(frame.unsqueeze(1), pair)


def bicubic(coarse_context: Tensor, pair: FactorPair, mask: Tensor | None = None) -> Tensor:
    """Interpolate the last coarse frame bicubically in space, clamped at 0.

    Overshoots and the clamp make this conserve neither cells nor totals; it is the reference as usually
    reported.

    Parameters
    ----------
    coarse_context, pair, mask
        As for `nearest`.

    Returns
    -------
    Tensor
        (B, T, H, W), never negative.
    """
    frame = _last_frame(coarse_context, mask)
    if pair.space > 1:
        size = (frame.shape[1] * pair.space, frame.shape[2] * pair.space)
        frame = F.interpolate(frame.unsqueeze(1), size=size, mode="bicubic", align_corners=False).squeeze(1)
    return frame.clamp(min=0).unsqueeze(1).repeat(1, pair.time, 1, 1)  # (B, H, W) -> (B, T, H, W)


def fill_missing(frame: Tensor, valid: Tensor) -> Tensor:
    """Fill missing cells with the mean of their known 3 x 3 neighbours, ring by ring from the valid ones.

    Parameters
    ----------
    frame : Tensor
        (B, h, w); may be NaN where not valid.
    valid : Tensor
        (B, h, w), bool.

    Returns
    -------
    Tensor
        (B, h, w); a frame without any valid cell becomes 0. Valid cells are unchanged.
    """
    known = valid.unsqueeze(1)
    filled = torch.where(known, frame.unsqueeze(1), 0.0)  # (B, 1, h, w)
    for _ in range(max(frame.shape[1:]) - 1):  # each pass reaches one cell further, also diagonally
        if known.all():
            break
        share = F.avg_pool2d(known.to(filled.dtype), 3, stride=1, padding=1)
        mean = F.avg_pool2d(filled, 3, stride=1, padding=1) / share.clamp(min=1 / 9)
        filled = torch.where(known, filled, torch.where(share > 0, mean, 0.0))
        known = known | (share > 0)
    return filled.squeeze(1)


def _last_frame(coarse_context: Tensor, mask: Tensor | None) -> Tensor:
    frame = coarse_context[:, -1]
    valid = ~torch.isnan(frame)
    if mask is not None:
        if mask.shape != coarse_context.shape:
            shapes = f"{tuple(coarse_context.shape)} and {tuple(mask.shape)}"
            raise ValueError(f"context and mask differ in shape: {shapes}")
        valid = valid & mask[:, -1]
    return fill_missing(frame, valid)
