"""Deterministic references: what a model has to beat, on the same windows and the same pixels.

`nearest` and `bicubic` bring the last coarse frame to the fine grid and repeat it for its tau fine frames. It
is the mean over exactly these frames, so repeating it conserves the amount; for a time-only pair the two are
equal. `bicubic_conserved` is bicubic that keeps every coarse value, as the models do: what a model gains over
it is not the conservation. `bicubic_time_conserved` is the trilinear kind: it also comes linearly from the
frame before. `pipeline.evaluation.quantile_mapping` adds one that is fitted.

In time nothing is extrapolated. Interpolating needs a coarse frame on both sides, and the one after is not
known, so from the middle of the last coarse frame on there is nothing to interpolate with. A trend continued
beyond it takes rain that moves for rain that grows, and runs below zero. With the amounts then restored it
also scores worse than holding the last value, as `bicubic_time_conserved` does (MAE on the test split of the
radar sample: 0.1762 and 0.1733 mm/h for 1x3, 0.1495 and 0.1489 for 4x2).

In space, missing coarse cells are first filled from their surroundings (`fill_missing`): taken as zero, they
would draw an edge that bicubic spreads two cells into the valid ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.conservation import conserve
from pipeline.data.coarsen import spread
from pipeline.factors import Conservation, FactorPair, Scope

Baseline = Callable[[Tensor, FactorPair, Tensor | None], Tensor]
"""(coarse context (B, L, h, w), pair, its mask) to (B, T, H, W); see `nearest`."""

_IDENTITY = Conservation(scope=Scope.CELL)


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
    frame = _bicubic(_last_frame(coarse_context, mask), pair)
    return frame.unsqueeze(1).repeat(1, pair.time, 1, 1)  # (B, H, W) -> (B, T, H, W)


def bicubic_conserved(coarse_context: Tensor, pair: FactorPair, mask: Tensor | None = None) -> Tensor:
    """Interpolate as `bicubic`, then rescale every coarse cell to its own amount.

    This is the mass-conservation transform with f(x) = x per cell (`pipeline.conservation.conserve`). Dry
    cells become dry: bicubic alone leaks rain into them. A missing cell keeps the amount it is filled with.

    Parameters
    ----------
    coarse_context, pair, mask
        As for `nearest`.

    Returns
    -------
    Tensor
        (B, T, H, W), never negative; block means equal the coarse frame where that is not negative.
    """
    return _conserved(bicubic(coarse_context, pair, mask), _last_frame(coarse_context, mask), pair)


def bicubic_time_conserved(coarse_context: Tensor, pair: FactorPair, mask: Tensor | None = None) -> Tensor:
    """Interpolate bicubically in space and linearly in time, then rescale every coarse cell to its amount.

    A coarse frame stands at the middle of its tau fine frames. Up to there, the fine frames lie between the
    frame before and the last one; after it the last one is held, see the module. Then as `bicubic_conserved`,
    to which this is equal for tau = 1, for L = 1, and where the frame before is missing.

    Parameters
    ----------
    coarse_context, pair, mask
        As for `nearest`; the last two frames are used.

    Returns
    -------
    Tensor
        (B, T, H, W), never negative; block means equal the coarse frame where that is not negative.
    """
    last = _last_frame(coarse_context, mask)
    if coarse_context.shape[1] == 1 or pair.time == 1:
        return bicubic_conserved(coarse_context, pair, mask)
    before = coarse_context[:, -2]
    valid = ~torch.isnan(before)
    if mask is not None:
        valid = valid & mask[:, -2]
    before = torch.where(valid, before, last)
    middle = (torch.arange(pair.time, device=last.device, dtype=last.dtype) + 0.5) / pair.time - 0.5
    share = (-middle).clamp(min=0).view(1, -1, 1, 1)  # of the frame before, in each fine frame
    field = torch.lerp(_bicubic(last, pair).unsqueeze(1), _bicubic(before, pair).unsqueeze(1), share)
    return _conserved(field, last, pair)


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


def _bicubic(frame: Tensor, pair: FactorPair) -> Tensor:
    """(B, h, w) without holes to (B, H, W), not negative."""
    if pair.space > 1:
        size = (frame.shape[1] * pair.space, frame.shape[2] * pair.space)
        frame = F.interpolate(frame.unsqueeze(1), size=size, mode="bicubic", align_corners=False).squeeze(1)
    return frame.clamp(min=0)


def _conserved(field: Tensor, frame: Tensor, pair: FactorPair) -> Tensor:
    """Give every cell of (B, T, H, W) the amount of the coarse frame (B, h, w)."""
    frame = frame.clamp(min=0)
    # In units of the largest value: `conserve` takes tiny totals for dry, whatever the units are.
    largest = frame.amax(dim=(1, 2), keepdim=True).unsqueeze(1)
    scale = torch.where(largest > 0, largest, 1.0)
    return conserve(field, frame.unsqueeze(1), pair, _IDENTITY, scale=scale)


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "nearest": nearest,
        "bicubic": bicubic,
        "bicubic_conserved": bicubic_conserved,
        "bicubic_time_conserved": bicubic_time_conserved,
    }
)
"""The references that need no fit, by name, from the simplest."""
