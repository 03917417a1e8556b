"""The ensemble as a whole, space and time structure included: the energy score of each window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.evaluation.measures.metric import Metric
from pipeline.evaluation.statistics import double
from pipeline.evaluation.sums import Scored


@dataclass(frozen=True)
class Energy:
    """The fair energy score of each window as one vector of n valid pixels.

    Sums, each (B,): `score`, of the score per root pixel, see `fair_energy_score`; `windows`, those with a
    valid pixel.
    """

    name: str = "energy"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        score = fair_energy_score(
            double(scored.filled_members).flatten(2), double(scored.filled_truth).flatten(1)
        )
        pixels = scored.weight
        return {"score": score / pixels.clamp(min=1).sqrt(), "windows": (pixels > 0).double()}


def fair_energy_score(members: Tensor, truth: Tensor) -> Tensor:
    """Energy score of vectors, the CRPS of one pixel generalised.

    ES = 1/M sum_i |x_i - y| - 1/(2 M (M-1)) sum_ij |x_i - x_j| with Euclidean norms (Gneiting and Raftery,
    2007, doi:10.1198/016214506000001437), the second sum divided so that the expectation does not depend on
    M (Ferro, 2014, doi:10.1002/qj.2270).

    Parameters
    ----------
    members : Tensor
        (B, M, n); with M = 1 there is no second sum.
    truth : Tensor
        (B, n).

    Returns
    -------
    Tensor
        (B,), in the units times sqrt(n).
    """
    size = members.shape[1]
    # Without matrix products, in which the distance of two equal members would not be exactly 0.
    how = "donot_use_mm_for_euclid_dist"
    error = torch.cdist(members, truth.unsqueeze(1), compute_mode=how).mean(dim=(1, 2))
    if size == 1:
        return error
    return error - torch.cdist(members, members, compute_mode=how).sum(dim=(1, 2)) / (2 * size * (size - 1))


def metrics() -> tuple[Metric, ...]:
    """Give the metrics made from `Energy`."""
    return (
        Metric(
            name="energy_score",
            title="fair energy score",
            unit="units",
            better="lower",
            formula="1/M sum_i |x_i - y| - 1/(2 M (M-1)) sum_ij |x_i - x_j|, |.| the root mean square over "
            "all pixels of a window; mean over windows",
            source="Gneiting and Raftery (2007), doi:10.1198/016214506000001437; Ferro (2014), "
            "doi:10.1002/qj.2270",
            compute=lambda sums: sums["energy.score"] / sums["energy.windows"],
            needs=("energy.score", "energy.windows"),
        ),
    )
