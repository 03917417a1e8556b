"""Local structure of each member against the truth: SSIM, with missing pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.evaluation.measures.metric import Metric
from pipeline.evaluation.measures.neighbourhood import box_sum, running_sum
from pipeline.evaluation.statistics import double
from pipeline.evaluation.sums import Scored


@dataclass(frozen=True)
class Structure:
    """Sums over places of the structural similarity of a box of 7 x 7 pixels.

    Sums, each (B,): `ssim`, mean over members; `places`, the boxes that lie within the frame and of whose
    pixels at least half are valid. Means, variances and the covariance of a box are those of its valid
    pixels. Of a smaller frame the box is the largest odd one that fits.

    Attributes
    ----------
    value_range : float
        L, in the field's units: a fixed one, so that dry boxes are alike (SSIM 1) and windows comparable.
    side : int
    """

    value_range: float
    side: int = 7
    name: str = "structure"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        fits = min(scored.mask.shape[-2:])
        side = min(self.side, fits - (fits + 1) % 2)
        truth, valid = double(scored.filled_truth), double(scored.mask)
        count = _box(valid, side)  # (B, T, H - side + 1, W - side + 1)
        places = count >= max(side**2 / 2, 2)
        n = count.clamp(min=2)
        mean, square = _box(truth, side) / n, _box(truth.square(), side) / n
        total = torch.zeros_like(scored.weight)
        for member in map(double, scored.filled_members.unbind(dim=1)):
            drawn = _box(member, side) / n
            similarity = ssim(
                drawn,
                mean,
                (_box(member.square(), side) / n - drawn.square()) * n / (n - 1),
                (square - mean.square()) * n / (n - 1),
                (_box(member * truth, side) / n - drawn * mean) * n / (n - 1),
                self.value_range,
            )
            total = total + torch.where(places, similarity, 0.0).sum(dim=(1, 2, 3))
        return {"ssim": total / scored.ensemble_size, "places": double(places.sum(dim=(1, 2, 3)))}


def ssim(x: Tensor, y: Tensor, xx: Tensor, yy: Tensor, xy: Tensor, value_range: float) -> Tensor:
    """Structural similarity from local moments (Wang et al., 2004, doi:10.1109/TIP.2003.819861, eq. 13).

    SSIM = (2 x y + C1) (2 xy + C2) / ((x^2 + y^2 + C1) (xx + yy + C2)), C1 = (0.01 L)^2, C2 = (0.03 L)^2.

    Parameters
    ----------
    x, y : Tensor
        (...), means.
    xx, yy, xy : Tensor
        (...), unbiased variances and covariance.
    value_range : float
        L.
    """
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    return (2 * x * y + c1) * (2 * xy + c2) / ((x.square() + y.square() + c1) * (xx + yy + c2))


def _box(values: Tensor, side: int) -> Tensor:
    """Sum over the boxes that lie within the frame: (..., H, W) to (..., H - side + 1, W - side + 1)."""
    half = side // 2
    height, width = values.shape[-2:]
    return box_sum(running_sum(values), side)[..., half : height - half, half : width - half]


def metrics() -> tuple[Metric, ...]:
    """Give the metrics made from `Structure`."""
    return (
        Metric(
            name="ssim",
            title="structural similarity",
            unit="",
            better="higher",
            formula="(2 x y + C1) (2 xy + C2) / ((x^2 + y^2 + C1) (xx + yy + C2)) from means, variances and "
            "covariance in boxes of 7 x 7 pixels, C1 = (0.01 L)^2, C2 = (0.03 L)^2, L fixed; mean over boxes "
            "at least half valid, frames and members",
            source="Wang et al. (2004), doi:10.1109/TIP.2003.819861",
            compute=lambda sums: sums["structure.ssim"] / sums["structure.places"],
            needs=("structure.ssim", "structure.places"),
            perfect=1.0,
        ),
    )
