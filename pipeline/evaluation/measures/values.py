"""Whether the values themselves are right, wherever they lie: quantiles, largest values, wet share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.evaluation.measures.histogram import LogBins
from pipeline.evaluation.measures.metric import Metric, Sums
from pipeline.evaluation.statistics import double
from pipeline.evaluation.sums import Scored

_QUANTILES = "Wilks (2011), doi:10.1016/B978-0-12-385022-5.00003-8"
_EXTREMES = "Coles (2001), doi:10.1007/978-1-4471-3675-0"


@dataclass(frozen=True)
class Values:
    """Counts of valid values by size.

    Sums, each (B, bins.size): `truth`, and `field`, mean over members.
    """

    bins: LogBins
    name: str = "values"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        members = [self.bins.count(member, scored.mask) for member in scored.filled_members.unbind(dim=1)]
        truth = self.bins.count(scored.filled_truth, scored.mask)
        return {"truth": double(truth), "field": double(sum(members[1:], members[0])) / len(members)}


@dataclass(frozen=True)
class Maxima:
    """The largest valid value of each window: its sum and its counts by size.

    Sums: `truth_sum`, `field_sum` and `windows` (those with a valid pixel), (B,); `truth` and `field`,
    counts, (B, bins.size). Those of the field are means over members.
    """

    bins: LogBins
    name: str = "maxima"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        there = scored.mask.flatten(1).any(dim=1, keepdim=True)  # (B, 1)
        truth = scored.filled_truth.masked_fill(~scored.mask, -torch.inf).flatten(1).amax(dim=1, keepdim=True)
        masked = scored.filled_members.masked_fill(~scored.mask.unsqueeze(1), -torch.inf)
        members = masked.flatten(2).amax(dim=2)  # (B, M)
        counts = double(self.bins.count(members, there.expand_as(members)))
        return {
            "truth_sum": double(torch.where(there, truth, 0.0)).sum(dim=1),
            "field_sum": double(torch.where(there, members, 0.0)).mean(dim=1),
            "windows": double(there).sum(dim=1),
            "truth": double(self.bins.count(truth, there)),
            "field": counts / scored.ensemble_size,
        }


@dataclass(frozen=True)
class Wet:
    """Number of valid pixels of at least a threshold.

    Sums, each (B,): `truth`, `field` (mean over members), and `weight`, the valid pixels.

    Attributes
    ----------
    threshold : float
        In the field's units.
    """

    threshold: float
    name: str = "wet"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        mask = scored.mask
        members = (scored.filled_members >= self.threshold) & mask.unsqueeze(1)
        return {
            "truth": double(((scored.filled_truth >= self.threshold) & mask).sum(dim=(1, 2, 3))),
            "field": double(members.sum(dim=(1, 2, 3, 4))) / scored.ensemble_size,
            "weight": scored.weight,
        }


def _levels(kind: str, part: str, bins: LogBins, levels: tuple[float, ...]) -> Callable[[Sums], Tensor]:
    """Give what computes quantiles of `field` or `truth`, or their `error`."""

    at = torch.tensor(levels, dtype=torch.float64)

    def quantiles(sums: Sums, name: str) -> Tensor:
        counts = sums[f"{kind}.{name}"]
        found = bins.quantiles(counts, at)
        if kind == "values":
            return found
        # What comes once in N windows cannot be told from fewer.
        return torch.where(counts.sum(dim=-1, keepdim=True) * (1 - at) < 1 - 1e-6, torch.nan, found)

    if part == "error":
        return lambda sums: quantiles(sums, "field") - quantiles(sums, "truth")
    return lambda sums: quantiles(sums, part)


def metrics(
    bins: LogBins, quantiles: tuple[float, ...], return_windows: tuple[int, ...]
) -> tuple[Metric, ...]:
    """Give the metrics made from `Values`, `Maxima` and `Wet`."""
    quantile = Metric(
        name="quantile_error",
        title="error of quantiles",
        unit="units",
        better="zero",
        formula="q(members) - q(truth), quantiles over all valid pixels, dry ones included, read from counts "
        "in bins 2.3 % wide",
        source=_QUANTILES,
        compute=_levels("values", "error", bins, quantiles),
        needs=("values.field", "values.truth"),
        dimensions=("level",),
        coordinates={"level": quantiles},
    )
    chances = tuple(1 - 1 / count for count in return_windows)
    level = Metric(
        name="return_level_error",
        title="error of return levels",
        unit="units",
        better="zero",
        formula="r(members) - r(truth), r the value that the largest of a window exceeds once in N windows: "
        "the 1 - 1/N quantile of the windows' largest values; needs N windows",
        source=_EXTREMES,
        compute=_levels("maxima", "error", bins, chances),
        needs=("maxima.field", "maxima.truth"),
        dimensions=("return_windows",),
        coordinates={"return_windows": tuple(float(count) for count in return_windows)},
    )
    wet = Metric(
        name="wet_fraction",
        title="wet fraction",
        unit="",
        better="none",
        formula="share of pixels that are wet, mean over members",
        source="Wilks (2011), doi:10.1016/B978-0-12-385022-5.00008-7",
        compute=lambda sums: sums["wet.field"] / sums["wet.weight"],
        needs=("wet.field", "wet.weight"),
        perfect=None,
    )
    return (
        quantile,
        level,
        Metric(
            name="window_maximum_error",
            title="error of a window's largest value",
            unit="units",
            better="zero",
            formula="mean over windows of max(member) - max(truth)",
            source=_EXTREMES,
            compute=_maximum_error,
            needs=("maxima.field_sum", "maxima.truth_sum", "maxima.windows"),
        ),
        replace(
            wet,
            name="wet_fraction_error",
            title="error of the wet fraction",
            better="zero",
            formula="wet fraction of the members - that of the truth",
            compute=lambda sums: (sums["wet.field"] - sums["wet.truth"]) / sums["wet.weight"],
            needs=("wet.field", "wet.truth", "wet.weight"),
            perfect=0.0,
        ),
        wet,
        *(
            replace(
                metric,
                name=f"{name}{'_truth' if part == 'truth' else ''}",
                title=f"{title}{' of the truth' if part == 'truth' else ''}",
                better="none",
                compute=_levels(kind, part, bins, levels),
                needs=(f"{kind}.{part}",),
                perfect=None,
            )
            for metric, name, title, kind, levels in (
                (quantile, "quantile", "quantiles", "values", quantiles),
                (level, "return_level", "return levels", "maxima", chances),
            )
            for part in ("field", "truth")
        ),
    )


def _maximum_error(sums: Sums) -> Tensor:
    return (sums["maxima.field_sum"] - sums["maxima.truth_sum"]) / sums["maxima.windows"]
