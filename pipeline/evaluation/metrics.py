"""The catalogue of metrics, and the statistics that they are made from.

.. code-block:: python

    sums = BlockSums(default_statistics(settings, pair, units), blocks)
    sums.add(scored, block)                        # batch by batch
    for metric in metrics_for(settings, units):
        if metric.applies(sums.sums, ensemble=True):
            value = metric.compute(total(sums.sums))
"""

from __future__ import annotations

from pipeline.config import EvaluationSettings
from pipeline.errors import UserError
from pipeline.evaluation.measures import (
    conservation,
    energy,
    exceedance,
    neighbourhood,
    pixel,
    ranks,
    spectra,
    structure,
    temporal,
    values,
)
from pipeline.evaluation.measures.histogram import LogBins
from pipeline.evaluation.measures.metric import Metric, Sums
from pipeline.evaluation.sums import Statistic
from pipeline.factors import FactorPair
from pipeline.units import WANTED, to_mm_per_hour

__all__ = ["Metric", "Sums", "default_statistics", "metrics_for", "value_bins"]


def metrics_for(settings: EvaluationSettings, units: str = WANTED) -> tuple[Metric, ...]:
    """Give the catalogue, with the coordinate values of its dimensions.

    Ask `Metric.applies` before computing one: those in time have no sums where the pair refines space only.

    Parameters
    ----------
    settings : EvaluationSettings
        Its thresholds are the coordinates, in its units.
    units : str
        Of the field.
    """
    return (
        *pixel.metrics(),
        *energy.metrics(),
        *ranks.metrics(),
        *exceedance.metrics(settings.thresholds, settings.reliability_bins),
        *neighbourhood.metrics(settings.thresholds, settings.scales),
        *spectra.metrics(),
        *temporal.metrics(),
        *values.metrics(value_bins(settings, units), settings.quantiles, settings.return_windows),
        *structure.metrics(),
        *conservation.metrics(),
    )


def default_statistics(
    settings: EvaluationSettings, pair: FactorPair, units: str = WANTED
) -> tuple[Statistic, ...]:
    """Give the statistics that all metrics of a pair need.

    Parameters
    ----------
    settings : EvaluationSettings
    pair : FactorPair
        With tau = 1 there is no statistic in time.
    units : str
        Of the field: thresholds in mm/h are turned into them.

    Raises
    ------
    UserError
        If thresholds are in mm/h and the field is not a rate of precipitation.
    """
    unit = _unit(settings, units)
    thresholds = tuple(threshold * unit for threshold in settings.thresholds)
    bins = value_bins(settings, units)
    in_time = (temporal.Change(), temporal.Temporal()) if pair.time > 1 else ()
    return (
        pixel.Pixel(),
        energy.Energy(),
        ranks.Ranks(),
        exceedance.Exceedance(thresholds, settings.reliability_bins),
        neighbourhood.Neighbourhood(thresholds, settings.scales),
        spectra.Spectra(),
        *in_time,
        values.Values(bins),
        values.Maxima(bins),
        values.Wet(settings.wet_threshold * unit),
        structure.Structure(settings.ssim_range * unit),
        conservation.Conserved(),
    )


def value_bins(settings: EvaluationSettings, units: str = WANTED) -> LogBins:
    """Give the bins of `Values` and `Maxima`: from a tenth of the wet threshold over five decades.

    With the default threshold that is 0.01 to 1000 mm/h. They are what a Q-Q plot needs:
    `value_bins(settings, units).quantiles(sums["values.field"], levels)`.
    """
    first = settings.wet_threshold * _unit(settings, units) / 10
    return LogBins(first, first * 1e5)


def _unit(settings: EvaluationSettings, units: str) -> float:
    """Give what turns a threshold of the settings into the field's units."""
    if settings.threshold_units == "field":
        return 1.0
    wrong = UserError(
        f"evaluation.thresholds: they are in {WANTED} and the field is in {units}; give thresholds, "
        "wet_threshold and ssim_range in its units and --set evaluation.threshold_units=field"
    )
    try:
        # A sum over the time between frames is no rate: told apart by what the interval does to it.
        per_hour, per_minute = (to_mm_per_hour(units, interval, "the field") for interval in (3600.0, 60.0))
    except UserError:
        raise wrong from None
    if per_hour != per_minute:
        raise wrong
    return 1 / per_hour
