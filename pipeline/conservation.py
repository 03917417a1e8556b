"""The mass-conservation transform: a fine field that keeps the coarse amounts exactly.

Specification of the scale-adaptive framework, section 6: y = f(x) * (tau s^2 sum LR) / sum f(x), with
f(x) = max(x^p - theta, 0) on the field over its scale, per tile or per coarse cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.data.coarsen import block_sum, spread
from pipeline.factors import Conservation, FactorPair, Scope

# Below this total of f(x), a region is dry: dividing by it would blow rounding errors up to rain.
DRY = 1e-12


def conserve(
    field: Tensor,
    coarse: Tensor,
    pair: FactorPair,
    conservation: Conservation,
    *,
    scale: float | Tensor,
    mask: Tensor | None = None,
    coarse_mask: Tensor | None = None,
) -> Tensor:
    """Taper a fine field by f and rescale it to the coarse amounts.

    Parameters
    ----------
    field : Tensor
        (B, tau, H, W) fine field in physical units; negative values count as 0.
    coarse : Tensor
        (B, 1, H / s, W / s) the coarse frame that the field refines, same units, not negative.
    pair : FactorPair
    conservation : Conservation
        f and the scope. With the scope `none` only negative values are removed.
    scale : float or Tensor
        The amount in physical units that x = 1 stands for.
    mask : Tensor, optional
        (B, tau, H, W) bool; missing pixels come back 0 and hold no mass.
    coarse_mask : Tensor, optional
        (B, 1, H / s, W / s) bool; what lies in a missing cell keeps no amount and is left as f gives it,
        times the tile's factor (`tile`) or 0 (`cell`).

    Returns
    -------
    Tensor
        (B, tau, H, W), not negative. For every region of the scope, the sum over its valid pixels equals the
        coarse amount there. A dry region stays dry; where the prediction is dry under a wet coarse value, the
        coarse amount is spread evenly.
    """
    field = field.clamp(min=0)
    if mask is not None:
        field = torch.where(mask, field, 0.0)
    if conservation.scope is Scope.NONE:
        return field
    valid = torch.ones_like(field) if mask is None else mask.to(field.dtype)
    if coarse_mask is not None:
        coarse = torch.where(coarse_mask, coarse, 0.0)
        known = spread(coarse_mask.to(field.dtype), pair)
    else:
        known = torch.ones_like(field)
    pixels = block_sum(valid * known, pair)  # (B, 1, h, w) fine values that each coarse value stands for
    amounts = (coarse * pixels).double()
    tapered = taper(field / scale, conservation) * valid
    even = spread(coarse, pair) * valid  # the fallback: every pixel its coarse value

    if conservation.scope is Scope.CELL:
        totals = block_sum((tapered * known).double(), pair)
        shares = tapered * known / spread(_safe(totals), pair)  # of the cell's amount, in [0, 1]
        rescaled, dry = shares * spread(amounts, pair), spread(totals <= DRY, pair)
    else:
        region = (-3, -2, -1)
        totals = (tapered * known).double().sum(dim=region, keepdim=True)
        rescaled = tapered / _safe(totals) * amounts.sum(dim=region, keepdim=True)
        dry = (totals <= DRY).expand_as(field)
    return torch.where(dry, even.double(), rescaled).to(field.dtype)


def taper(x: Tensor, conservation: Conservation) -> Tensor:
    """f(x) = max(x^p - theta, 0) for x >= 0."""
    if conservation.power != 1:
        # The gradient of x^p is infinite at 0: near 0 it is cut.
        x = torch.where(x > 0, x.clamp(min=1e-8) ** conservation.power, 0.0)
    return (x - conservation.threshold).clamp(min=0)


def _safe(totals: Tensor) -> Tensor:
    return torch.where(totals > DRY, totals, 1.0)
