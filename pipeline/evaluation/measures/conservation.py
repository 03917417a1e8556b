"""Whether the coarse amounts are kept, per window and per coarse cell."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.evaluation.measures.metric import Metric, ratio
from pipeline.evaluation.statistics import conservation_statistics
from pipeline.evaluation.sums import Scored


@dataclass(frozen=True)
class Conserved:
    """Distance of members from the coarse amounts, see `statistics.ConservationStatistics`.

    Whole cells are judged: fields are made without knowing which fine pixels the truth lacks. A masked pixel
    is left out only where a member has no finite value there.

    Sums, each (B,): `amount`, `tile`, `cell`.
    """

    name: str = "conserved"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        judged = scored.members.isfinite().all(dim=1) | scored.mask
        found = conservation_statistics(
            scored.members, judged, scored.coarse, scored.coarse_mask, scored.pair
        )
        return {"amount": found.amount, "tile": found.tile, "cell": found.cell}


def metrics() -> tuple[Metric, ...]:
    """Give the metrics made from `Conserved`."""
    return tuple(
        Metric(
            name=f"conservation_{part}",
            title=f"conservation error per {region}",
            unit="",
            better="lower",
            formula=f"{formula}, SR and LR amounts, mean over members; 0 / 0 is 0",
            source="Harder et al. (2023), Hard-constrained deep learning for climate downscaling, "
            "doi:10.48550/arXiv.2208.05424",
            compute=lambda sums, key=f"conserved.{part}": ratio(  # type: ignore[misc]
                sums[key], sums["conserved.amount"], both_zero=0.0
            ),
            needs=(f"conserved.{part}", "conserved.amount"),
        )
        for part, region, formula in (
            ("tile", "window", "sum_windows |SR - LR| / sum_windows LR"),
            ("cell", "coarse cell", "sum_cells |SR - LR| / sum_cells LR"),
        )
    )
