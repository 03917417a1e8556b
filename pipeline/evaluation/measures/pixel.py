"""Errors pixel by pixel: MAE, RMSE, bias, fair CRPS, spread over skill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pipeline.evaluation.measures.metric import Metric, Sums, ratio
from pipeline.evaluation.statistics import deterministic_statistics, ensemble_statistics
from pipeline.evaluation.sums import Scored

_WEIGHT = "pixel.weight"


@dataclass(frozen=True)
class Pixel:
    """Sums over valid pixels of the errors of the ensemble mean, the fair CRPS and the spread.

    Sums, each (B,): `weight` (number of valid pixels), `absolute_error`, `squared_error`, `error`, `crps` and
    `spread`, which is (M + 1) / M times the unbiased variance of the members. For a field without
    uncertainty the CRPS is the absolute error and the spread 0. See `pipeline.evaluation.statistics`.
    """

    name: str = "pixel"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        size = scored.ensemble_size
        if size == 1:
            found = deterministic_statistics(scored.members[:, 0], scored.truth, scored.mask)
        else:
            found = ensemble_statistics(scored.members, scored.truth, scored.mask)
        return {
            "weight": found.weight,
            "absolute_error": found.absolute_error,
            "squared_error": found.squared_error,
            "error": found.error,
            "crps": found.crps,
            "spread": (size + 1) / size * found.variance,
        }


def metrics() -> tuple[Metric, ...]:
    """Give the metrics made from `Pixel`."""
    return (
        Metric(
            name="fair_crps",
            title="fair CRPS",
            unit="units",
            better="lower",
            formula="1/M sum_i |x_i - y| - 1/(2 M (M-1)) sum_ij |x_i - x_j|, mean over pixels; "
            "of a field without uncertainty: its MAE",
            source="Ferro (2014), doi:10.1002/qj.2270",
            compute=_mean("crps"),
            needs=("pixel.crps", _WEIGHT),
        ),
        Metric(
            name="mae",
            title="MAE of the mean",
            unit="units",
            better="lower",
            formula="mean |m - y|, m the mean of the members",
            source="Willmott and Matsuura (2005), doi:10.3354/cr030079",
            compute=_mean("absolute_error"),
            needs=("pixel.absolute_error", _WEIGHT),
        ),
        Metric(
            name="rmse",
            title="RMSE of the mean",
            unit="units",
            better="lower",
            formula="sqrt(mean (m - y)^2), m the mean of the members",
            source="Willmott and Matsuura (2005), doi:10.3354/cr030079",
            compute=lambda sums: _mean("squared_error")(sums).sqrt(),
            needs=("pixel.squared_error", _WEIGHT),
        ),
        Metric(
            name="bias",
            title="bias",
            unit="units",
            better="zero",
            formula="mean (m - y), m the mean of the members",
            source="Murphy (1988), doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2",
            compute=_mean("error"),
            needs=("pixel.error", _WEIGHT),
        ),
        Metric(
            name="spread_skill_ratio",
            title="spread over skill",
            unit="",
            better="one",
            formula="sqrt((M + 1) / M mean variance) / RMSE of the mean; 0 / 0 is 1",
            source="Fortin et al. (2014), doi:10.1175/JHM-D-14-0008.1",
            compute=lambda sums: spread_skill(sums["pixel.spread"], sums["pixel.squared_error"]),
            needs=("pixel.spread", "pixel.squared_error"),
            ensemble_only=True,
            perfect=1.0,
        ),
    )


def spread_skill(spread: Tensor, squared_error: Tensor) -> Tensor:
    """Give sqrt(spread / squared error): 1 for a reliable ensemble, below 1 if it is overconfident.

    Averaged before the root, as Fortin et al. (2014, doi:10.1175/JHM-D-14-0008.1) show it must be. 0 / 0 (all
    dry, and foreseen so) gives 1.

    Parameters
    ----------
    spread : Tensor
        (...), sum over pixels of (M + 1) / M times the unbiased variance of the M members.
    squared_error : Tensor
        (...), sum over the same pixels of the squared error of the ensemble mean.
    """
    return ratio(spread.sqrt(), squared_error.sqrt(), both_zero=1.0)


def _mean(name: str) -> Callable[[Sums], Tensor]:
    return lambda sums: sums[f"pixel.{name}"] / sums[_WEIGHT]
