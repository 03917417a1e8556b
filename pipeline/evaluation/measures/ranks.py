"""Where the truth ranks among the members: the rank histogram, and how far it is from flat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.evaluation.measures.counting import count_per_window
from pipeline.evaluation.measures.metric import Metric
from pipeline.evaluation.statistics import double
from pipeline.evaluation.sums import Scored

_COUNTS = "ranks.counts"


@dataclass(frozen=True)
class Ranks:
    """How often the truth has each rank among the M members.

    Sums: `counts`, (B, M + 1): valid pixels by the number of members below the truth. Where c members equal
    it, as at most dry pixels, random tie-breaking would give each of c + 1 ranks the same chance; here each
    gets a share of 1 / (c + 1), which is the expectation of that, and needs no generator.
    """

    name: str = "ranks"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        size, truth = scored.ensemble_size, scored.filled_truth
        below, ties = torch.zeros_like(truth, dtype=torch.long), torch.zeros_like(truth, dtype=torch.long)
        for member in scored.filled_members.unbind(dim=1):  # one after the other: no (B, M, ...) of integers
            below += member < truth
            ties += member == truth
        # The pixels are first counted by both numbers, exactly, and the counts are then spread over ranks.
        pairs = count_per_window(below * (size + 1) + ties, scored.mask, (size + 1) ** 2)
        return {"counts": double(pairs) @ _shares(size).to(pairs.device)}


def _shares(size: int) -> Tensor:
    """Give the share of each rank, ((M + 1)^2, M + 1), by `below` and, faster, `ties`."""
    below, ties, rank = torch.meshgrid(*[torch.arange(size + 1)] * 3, indexing="ij")
    inside = (rank >= below) & (rank <= below + ties)
    return (inside / (ties + 1).double()).flatten(0, 1)


def rank_deviation(counts: Tensor) -> Tensor:
    """Give sum_k |f_k - 1 / (M + 1)| of rank frequencies f_k: 0 if flat, below 2 at worst.

    The reliability index of Delle Monache et al. (2006, doi:10.1029/2005JD006917). A flat histogram is
    necessary for a reliable ensemble, not sufficient (Hamill, 2001,
    doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2).

    Parameters
    ----------
    counts : Tensor
        (..., M + 1).
    """
    return (_frequencies(counts) - 1 / counts.shape[-1]).abs().sum(dim=-1)


def _frequencies(counts: Tensor) -> Tensor:
    return counts / counts.sum(dim=-1, keepdim=True)


def metrics() -> tuple[Metric, ...]:
    """Give the metrics made from `Ranks`."""

    return (
        Metric(
            name="rank_deviation",
            title="rank histogram's deviation from flat",
            unit="",
            better="lower",
            formula="sum_k |f_k - 1/(M+1)|, f_k the frequency of rank k; ties share their ranks evenly",
            source="Delle Monache et al. (2006), doi:10.1029/2005JD006917",
            compute=lambda sums: rank_deviation(sums[_COUNTS]),
            needs=(_COUNTS,),
            inflated=True,
            ensemble_only=True,
        ),
        Metric(
            name="rank_histogram",
            title="rank histogram",
            unit="",
            better="none",
            formula="f_k: share of pixels whose truth has k members below it; ties share their ranks evenly",
            source="Hamill (2001), doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2",
            compute=lambda sums: _frequencies(sums[_COUNTS]),
            needs=(_COUNTS,),
            dimensions=("rank",),
            ensemble_only=True,
            perfect=None,
        ),
    )
