"""Sums per window, kept apart from the scores that are computed from them.

A score such as the RMSE is not a mean over batches, but it is a function of sums over pixels. So every batch
gives float64 sums per window, batches (or workers) are merged by putting their windows side by side, and only
`pipeline.evaluation.scores` turns the merged sums into scores (weatherbenchX's Statistic and Metric). Because
windows stay apart, two models can later be compared with a paired bootstrap over the same windows.

Shapes: B windows, M members, T = tau fine frames, H x W fine pixels, h x w coarse cells (H = s h, W = s w).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from pipeline.data.coarsen import block_sum, spread
from pipeline.evaluation.sorting import sort_members
from pipeline.factors import FactorPair


class PerWindow:
    """Base of frozen dataclasses whose tensors have one value, or one row, per window."""

    def merge(self, *others: Self) -> Self:
        """Put the windows of several parts side by side, in the order given.

        Raises
        ------
        ValueError
            If a field that is the same for all windows, such as the ensemble size, differs between the parts.
        """
        parts = (self, *others)
        merged = {}
        for field in fields(self):  # type: ignore[arg-type]
            values = [getattr(part, field.name) for part in parts]
            if isinstance(values[0], Tensor):
                merged[field.name] = torch.cat(values)
            elif any(value != values[0] for value in values):
                raise ValueError(f"cannot merge statistics of different {field.name}: {sorted(set(values))}")
            else:
                merged[field.name] = values[0]
        return type(self)(**merged)


@dataclass(frozen=True)
class Statistics(PerWindow):
    """Sums over the valid pixels of each window; every tensor is (B,), float64, on the CPU.

    A deterministic field is the ensemble whose members agree: its CRPS is its absolute error, its variance 0.

    Attributes
    ----------
    weight : Tensor
        Number of valid pixels (all frames).
    absolute_error : Tensor
        Sum of |m - y|, m the ensemble mean (or the deterministic field), y the truth.
    squared_error : Tensor
        Sum of (m - y)^2.
    error : Tensor
        Sum of m - y.
    crps : Tensor
        Sum of the fair CRPS, see `fair_crps_per_pixel`.
    variance : Tensor
        Sum of the unbiased ensemble variance, sum_i (x_i - m)^2 / (M - 1).
    members : int
        Ensemble size M; 1 for a deterministic field.
    """

    weight: Tensor
    absolute_error: Tensor
    squared_error: Tensor
    error: Tensor
    crps: Tensor
    variance: Tensor
    members: int

    @property
    def windows(self) -> int:
        """Number of windows, counting those without a valid pixel."""
        return self.weight.numel()

    def mean(self, name: str) -> float:
        """Mean of one statistic over all valid pixels of all windows; NaN if there is none.

        Pixels count equally, so a window with missing pixels counts less than a complete one.
        """
        total: Tensor = getattr(self, name)
        return (total.sum() / self.weight.sum()).item()

    def per_window(self, name: str) -> Tensor:
        """Mean of one statistic per window, (B,); NaN where a window has no valid pixel."""
        total: Tensor = getattr(self, name)
        return total / self.weight


@dataclass(frozen=True)
class ConservationStatistics(PerWindow):
    """How far each window's members are from the coarse amounts; tensors are (B,), float64, on the CPU.

    With n_c the number of valid pixels in cell c, X_c its coarse value and S_ic the sum of member i over
    those pixels, all over the cells whose coarse value is valid:

    Attributes
    ----------
    amount : Tensor
        sum_c n_c X_c.
    tile : Tensor
        Mean over members of |sum_c (S_ic - n_c X_c)|.
    tile_worst : Tensor
        The same, maximum over members.
    cell : Tensor
        Mean over members of sum_c |S_ic - n_c X_c|.
    """

    amount: Tensor
    tile: Tensor
    tile_worst: Tensor
    cell: Tensor


def fair_crps_per_pixel(members: Tensor, truth: Tensor) -> Tensor:
    """Fair continuous ranked probability score of an ensemble.

    CRPS = 1/M sum_i |x_i - y| - 1/(2 M (M-1)) sum_ij |x_i - x_j| (Ferro, 2014, doi:10.1002/qj.2270), whose
    expectation does not depend on M. The double sum is 2 sum_i (2i - M - 1) x_(i) over the sorted members, so
    this takes O(M log M) time and O(M) memory per pixel.

    Parameters
    ----------
    members : Tensor
        (B, M, ...), M >= 2.
    truth : Tensor
        (B, ...), in the same units.

    Returns
    -------
    Tensor
        (B, ...), in the same units; a single score may be negative, since the estimator is unbiased.
    """
    size = members.shape[1]
    if size < 2:
        raise ValueError(f"the fair CRPS needs at least 2 members, not {size}")
    # Sorted distances instead of sorted values: the weights below sum to 0, so the result is the same, and
    # large values that lie close together do not cancel in float32.
    distance = sort_members(members - truth.unsqueeze(1))
    rank = torch.arange(1, size + 1, device=members.device, dtype=distance.dtype)
    weights = (2 * rank - size - 1) / (size * (size - 1))
    return distance.abs().mean(dim=1) - torch.einsum("m,bm...->b...", weights, distance)


def ensemble_statistics(members: Tensor, truth: Tensor, mask: Tensor) -> Statistics:
    """Sums per window for an ensemble.

    Parameters
    ----------
    members : Tensor
        (B, M, T, H, W), physical units, M >= 2.
    truth : Tensor
        (B, T, H, W), same units; may be NaN where `mask` is False.
    mask : Tensor
        (B, T, H, W), bool, True = valid.

    Returns
    -------
    Statistics
        A NaN at a valid pixel is a bug upstream: it is not hidden and makes that window's sums NaN.
    """
    _check_shapes(members[:, 0], truth, mask)
    members, truth = filled(members, mask.unsqueeze(1)), filled(truth, mask)
    return _sums(
        mask,
        error=members.mean(dim=1) - truth,
        crps=fair_crps_per_pixel(members, truth),
        variance=members.var(dim=1, correction=1),
        members=members.shape[1],
    )


def deterministic_statistics(field: Tensor, truth: Tensor, mask: Tensor) -> Statistics:
    """Sums per window for one field without uncertainty, such as a baseline or the conditional mean.

    Parameters
    ----------
    field, truth : Tensor
        (B, T, H, W), physical units; may be NaN where `mask` is False.
    mask : Tensor
        (B, T, H, W), bool, True = valid.
    """
    _check_shapes(field, truth, mask)
    error = filled(field, mask) - filled(truth, mask)
    return _sums(mask, error=error, crps=error.abs(), variance=torch.zeros_like(error), members=1)


def conservation_statistics(
    members: Tensor, mask: Tensor, coarse: Tensor, coarse_mask: Tensor, pair: FactorPair
) -> ConservationStatistics:
    """Distance of each member's amounts from the coarse ones; see `ConservationStatistics` for the formulas.

    A coarse value is the mean over the valid fine pixels of its cell (`block_mean`), so the amount to keep is
    that mean times their number, and only they are summed. The truth itself therefore has error 0, whatever
    its mask.

    Parameters
    ----------
    members : Tensor
        (B, M, T, H, W), physical units.
    mask : Tensor
        (B, T, H, W), bool. All True: judge whole cells, as for a field that is conserved without knowing
        which fine pixels will be valid.
    coarse : Tensor
        (B, h, w), the coarse frame that was refined, same units; may be NaN where `coarse_mask` is False.
    coarse_mask : Tensor
        (B, h, w), bool, True = valid.
    pair : FactorPair
        Its T = time, H = space * h, W = space * w must agree with the shapes.
    """
    expected = (coarse.shape[0], pair.time, coarse.shape[1] * pair.space, coarse.shape[2] * pair.space)
    if members[:, 0].shape != expected:
        raise ValueError(
            f"members {tuple(members.shape)} do not refine coarse {tuple(coarse.shape)} by pair {pair}: "
            f"expected (B, T, H, W) = {expected}"
        )
    _check_shapes(members[:, 0], members[:, 0], mask)
    _check_shapes(coarse, coarse, coarse_mask)
    counted = mask & spread(coarse_mask.unsqueeze(1), pair)  # (B, T, H, W)
    kept = block_sum(double(filled(members, counted.unsqueeze(1))), pair).squeeze(2)  # (B, M, h, w)
    known = double(filled(coarse, coarse_mask)).unsqueeze(1)
    wanted = block_sum(double(counted), pair) * known  # (B, 1, h, w)
    tile = (kept.sum(dim=(2, 3)) - wanted.sum(dim=(2, 3))).abs()  # (B, M)
    return ConservationStatistics(
        amount=wanted.sum(dim=(1, 2, 3)).cpu(),
        tile=tile.mean(dim=1).cpu(),
        tile_worst=tile.amax(dim=1).cpu(),
        cell=(kept - wanted).abs().sum(dim=(2, 3)).mean(dim=1).cpu(),
    )


def filled(values: Tensor, mask: Tensor) -> Tensor:
    """Put 0 at masked values (a product with the mask would keep a NaN); half precision becomes float32."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return torch.where(mask, values.to(dtype), 0.0)


def double(values: Tensor) -> Tensor:
    """Give float64, on the same device if it has that; Apple's MPS has not: on the CPU then."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _sums(mask: Tensor, *, error: Tensor, crps: Tensor, variance: Tensor, members: int) -> Statistics:
    def total(values: Tensor) -> Tensor:
        # The fill at masked pixels cancels in every statistic, so no second masking is needed.
        return double(values).sum(dim=(1, 2, 3)).cpu()

    return Statistics(
        weight=total(mask),
        absolute_error=total(error.abs()),
        squared_error=total(double(error) ** 2),
        error=total(error),
        crps=total(crps),
        variance=total(variance),
        members=members,
    )


def _check_shapes(field: Tensor, truth: Tensor, mask: Tensor) -> None:
    if not field.shape == truth.shape == mask.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (field, truth, mask))
        raise ValueError(f"field, truth and mask must agree in shape: {shapes}")
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask must be bool with True = valid, not {mask.dtype}")
