"""A pair and its recipe values as MLflow holds them: tags, parameters and metrics of one run."""

from __future__ import annotations

import math
from typing import Any

from pipeline.factors import FactorPair, ScaleParameters


def pair_tags(pair: FactorPair) -> dict[str, str]:
    """Give the tags that runs of a pair are found by."""
    return {
        "finescale.pair": str(pair),
        "finescale.factors": f"{pair.space}x in space, {pair.time}x in time",
    }


def run_params(pair: FactorPair, parameters: ScaleParameters) -> dict[str, Any]:
    """Give what MLflow compares runs by."""
    f = parameters.conservation
    return {
        "pair": pair, "space": pair.space, "time": pair.time,
        "beta": parameters.beta, "context": parameters.context,
        "power": f.power, "threshold": f.threshold, "scope": f.scope.value,
    }  # fmt: skip


def recipe_metrics(parameters: ScaleParameters) -> dict[str, float]:
    """Give the values as metrics, which a table formats and a chart scales; beta's logarithm too.

    A parallel-coordinates chart has no logarithmic axes, and beta is searched over two orders of magnitude.
    """
    f = parameters.conservation
    return {
        "beta": parameters.beta, "log10_beta": math.log10(parameters.beta),
        "context": parameters.context, "power": f.power, "threshold": f.threshold,
    }  # fmt: skip
