"""Whether events are in about the right place: the fractions skill score by threshold and scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.evaluation.measures.metric import Metric, ratio
from pipeline.evaluation.statistics import double
from pipeline.evaluation.sums import Scored


@dataclass(frozen=True)
class Neighbourhood:
    """Sums over pixels of the fractions of events in the neighbourhoods of forecast (P) and truth (O).

    Sums, each (B, thresholds, scales): `difference`, of (P - O)^2; `reference`, of P^2 + O^2. P is the mean
    over the members too. Missing pixels and all beyond the edge count as without event, in forecast and truth
    alike, and a fraction is always of n x n pixels. Every frame is a field of its own.

    Attributes
    ----------
    thresholds : tuple of float
        In the field's units; an event is a value of at least this much.
    scales : tuple of int
        Odd sides n of the neighbourhoods, in fine pixels.
    """

    thresholds: tuple[float, ...]
    scales: tuple[int, ...]
    name: str = "neighbourhood"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        found = [self._of(scored, threshold) for threshold in self.thresholds]
        difference, reference = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
        return {"difference": difference, "reference": reference}

    def _of(self, scored: Scored, threshold: float) -> tuple[Tensor, Tensor]:
        """Give both sums for one threshold, each (B, scales)."""
        size = scored.ensemble_size
        outcome = ((scored.filled_truth >= threshold) & scored.mask).int()
        number = torch.zeros_like(outcome)
        for member in scored.filled_members.unbind(dim=1):
            number += member >= threshold
        # Sums over boxes are differences of running ones: of whole numbers, so they are exact.
        running = running_sum(torch.stack([number * scored.mask, size * outcome]))  # (2, B, T, H + 1, W + 1)
        sums = []
        for scale in self.scales:
            p, o = double(box_sum(running, scale)).div_(size * scale**2)
            sums.append(((p - o).square().sum(dim=(1, 2, 3)), (p.square() + o.square()).sum(dim=(1, 2, 3))))
        difference, reference = zip(*sums, strict=True)
        return torch.stack(difference, dim=1), torch.stack(reference, dim=1)


def running_sum(values: Tensor) -> Tensor:
    """Give the sum over all pixels above and left of each corner: (..., H, W) to (..., H + 1, W + 1)."""
    return F.pad(values.cumsum(-2, dtype=values.dtype).cumsum(-1, dtype=values.dtype), (1, 0, 1, 0))


def box_sum(running: Tensor, side: int) -> Tensor:
    """Sum over the box of `side` pixels around each pixel, nothing being beyond the edge.

    Parameters
    ----------
    running : Tensor
        (..., H + 1, W + 1), running sums from the upper left corner.
    side : int
        Odd.

    Returns
    -------
    Tensor
        (..., H, W).
    """
    half = side // 2
    for dim in (-2, -1):
        size = running.shape[dim] - 1
        at = torch.arange(size, device=running.device)
        upper, lower = (at + half + 1).clamp(max=size), (at - half).clamp(min=0)
        running = running.index_select(dim, upper) - running.index_select(dim, lower)
    return running


def metrics(thresholds: tuple[float, ...], scales: tuple[int, ...]) -> tuple[Metric, ...]:
    """Give the metrics made from `Neighbourhood`; `thresholds` are the coordinate, in the settings' units."""
    return (
        Metric(
            name="fss",
            title="fractions skill score",
            unit="",
            better="higher",
            formula="1 - sum (P - O)^2 / sum (P^2 + O^2), P and O the fractions of events among the n x n "
            "pixels around each, P over all members; 0 / 0 (no event anywhere) is perfect",
            source="Roberts and Lean (2008), doi:10.1175/2007MWR2123.1; for ensembles Duc et al. (2013), "
            "doi:10.3402/tellusa.v65i0.18171",
            compute=lambda sums: (
                1 - ratio(sums["neighbourhood.difference"], sums["neighbourhood.reference"], both_zero=0.0)
            ),
            needs=("neighbourhood.difference", "neighbourhood.reference"),
            dimensions=("threshold", "scale"),
            coordinates={"threshold": thresholds, "scale": tuple(float(scale) for scale in scales)},
            perfect=1.0,
        ),
    )
