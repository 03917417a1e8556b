"""Probabilities of events, values of at least a threshold: Brier score and its parts, reliability, frequency.

The probability of an event at a pixel is the share i / M of members that have it; of a field without
uncertainty it is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.evaluation.measures.counting import count_per_window
from pipeline.evaluation.measures.metric import Metric, Sums, ratio
from pipeline.evaluation.statistics import double
from pipeline.evaluation.sums import Scored

_BRIER = "Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2"
_MURPHY = "Murphy (1973), doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2"
_BROECKER = "Broecker and Smith (2007), doi:10.1175/WAF993.1"


@dataclass(frozen=True)
class Exceedance:
    """Sums over valid pixels of forecast probability p and outcome o, in bins of p.

    Sums: `brier` and `fair_brier`, (B, thresholds): of (p - o)^2, and of that less the part that is due to
    the finite M; `count`, `forecast`, `observed`, (B, thresholds, bins): number of pixels, sum of p, of o.

    Attributes
    ----------
    thresholds : tuple of float
        In the field's units; an event is a value of at least this much.
    bins : int
        Equally wide bins of p in [0, 1]; p = 1 is in the last.
    """

    thresholds: tuple[float, ...]
    bins: int
    name: str = "exceedance"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        size = scored.ensemble_size
        found = [self._of(scored, threshold) for threshold in self.thresholds]
        counts = torch.stack(found, dim=1)  # (B, thresholds, 2, M + 1)
        without, with_event = counts.unbind(dim=2)
        number = torch.arange(size + 1, dtype=counts.dtype, device=counts.device)  # i
        p = number / size
        brier = (without * p.square() + with_event * (1 - p).square()).sum(dim=-1)
        finite = number * (size - number) / (size**2 * max(size - 1, 1))
        both = without + with_event
        bins = (torch.arange(size + 1) * self.bins // size).clamp(max=self.bins - 1)
        into = torch.nn.functional.one_hot(bins, self.bins).to(counts)  # (M + 1, bins)
        return {
            "brier": brier,
            "fair_brier": brier - (both * finite).sum(dim=-1),
            "count": both @ into,
            "forecast": (both * p) @ into,
            "observed": with_event @ into,
        }

    def _of(self, scored: Scored, threshold: float) -> Tensor:
        """Count pixels by outcome and by how many members have the event, (B, 2, M + 1), float64."""
        size = scored.ensemble_size
        outcome = (scored.filled_truth >= threshold).long()
        number = torch.zeros_like(outcome)
        for member in scored.filled_members.unbind(dim=1):
            number += member >= threshold
        found = count_per_window(outcome * (size + 1) + number, scored.mask, 2 * (size + 1))
        return double(found).reshape(-1, 2, size + 1)


def decomposition(count: Tensor, forecast: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give reliability, resolution and uncertainty (Murphy, 1973).

    With n_k, p_k and o_k the number, the mean forecast and the mean outcome in bin k, and o the mean outcome:
    REL = sum_k n_k (p_k - o_k)^2 / N, RES = sum_k n_k (o_k - o)^2 / N, UNC = o (1 - o), and the Brier score
    is REL - RES + UNC where every bin holds one value of p, so for M below the number of bins.

    Parameters
    ----------
    count, forecast, observed : Tensor
        (..., bins), sums of 1, p and o.

    Returns
    -------
    tuple of Tensor
        Each (...).
    """
    pixels = count.sum(dim=-1)
    rate = observed.sum(dim=-1) / pixels
    there = count.clamp(min=1)  # an empty bin has sums 0 and adds nothing
    reliability = ((forecast - observed).square() / there).sum(dim=-1) / pixels
    resolution = ((observed - count * rate.unsqueeze(-1)).square() / there).sum(dim=-1) / pixels
    return reliability, resolution, rate * (1 - rate)


def metrics(thresholds: tuple[float, ...], bins: int) -> tuple[Metric, ...]:
    """Give the metrics made from `Exceedance`; `thresholds` are the coordinate, in the settings' units."""
    count, forecast, observed = (f"exceedance.{name}" for name in ("count", "forecast", "observed"))
    parts = (count, forecast, observed)

    def over_pixels(name: str) -> Callable[[Sums], Tensor]:
        return lambda sums: sums[f"exceedance.{name}"] / sums[count].sum(dim=-1)

    def part(index: int) -> Callable[[Sums], Tensor]:
        return lambda sums: decomposition(*(sums[key] for key in parts))[index]

    def in_bins(key: str, *, share: bool = False) -> Callable[[Sums], Tensor]:
        def compute(sums: Sums) -> Tensor:
            divisor = sums[count].sum(dim=-1, keepdim=True) if share else sums[count]
            return sums[key] / divisor  # NaN in an empty bin: it has no frequency

        return compute

    def frequency_bias(sums: Sums) -> Tensor:
        return ratio(sums[forecast].sum(dim=-1), sums[observed].sum(dim=-1), both_zero=1.0)

    brier = Metric(
        name="brier",
        title="Brier score",
        unit="",
        better="lower",
        formula="mean (p - o)^2, p the share of members with the event, o its outcome",
        source=_BRIER,
        compute=over_pixels("brier"),
        needs=("exceedance.brier", count),
        dimensions=("threshold",),
        coordinates={"threshold": thresholds},
    )
    reliability = replace(
        brier,
        name="brier_reliability",
        title="reliability part of the Brier score",
        formula="sum_k n_k (p_k - o_k)^2 / N over bins k of p",
        source=_MURPHY,
        compute=part(0),
        needs=parts,
        inflated=True,
    )
    curve = Metric(
        name="reliability_observed",
        title="reliability diagram: observed frequency",
        unit="",
        better="none",
        formula="o_k: share of pixels with the event among those whose p is in bin k",
        source=_BROECKER,
        compute=in_bins(observed),
        needs=(observed, count),
        dimensions=("threshold", "bin"),
        coordinates={"threshold": thresholds, "bin": tuple((k + 0.5) / bins for k in range(bins))},
        ensemble_only=True,
        perfect=None,
    )
    return (
        brier,
        replace(
            brier,
            name="fair_brier",
            title="fair Brier score",
            formula="mean of (i/M - o)^2 - i (M - i) / (M^2 (M - 1)), i members having the event",
            source="Ferro (2014), doi:10.1002/qj.2270",
            compute=over_pixels("fair_brier"),
            needs=("exceedance.fair_brier", count),
        ),
        reliability,
        replace(
            reliability,
            name="brier_resolution",
            title="resolution part of the Brier score",
            better="higher",
            formula="sum_k n_k (o_k - o)^2 / N over bins k of p",
            compute=part(1),
            perfect=None,  # the uncertainty, which is the weather's
        ),
        replace(
            reliability,
            name="brier_uncertainty",
            title="uncertainty part of the Brier score",
            better="none",
            formula="o (1 - o), o the frequency of the event",
            compute=part(2),
            perfect=None,
            inflated=False,
        ),
        replace(
            brier,
            name="frequency_bias",
            title="frequency bias",
            better="one",
            formula="pixels with the event in the members (their mean) / in the truth; 0 / 0 is 1",
            source="Wilks (2011), Statistical Methods in the Atmospheric Sciences, "
            "doi:10.1016/B978-0-12-385022-5.00008-7",
            compute=frequency_bias,
            needs=(forecast, observed),
            perfect=1.0,
        ),
        curve,
        replace(
            curve,
            name="reliability_forecast",
            title="reliability diagram: mean forecast probability",
            formula="p_k: mean p in bin k",
            compute=in_bins(forecast),
            needs=(forecast, count),
        ),
        replace(
            curve,
            name="reliability_share",
            title="reliability diagram: sharpness",
            formula="n_k / N: share of pixels whose p is in bin k",
            compute=in_bins(count, share=True),
            needs=(count,),
        ),
    )
