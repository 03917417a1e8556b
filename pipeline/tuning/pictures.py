"""The pictures of a sweep's report, from its studies and findings."""

from __future__ import annotations

import math
from collections.abc import Callable

from matplotlib.figure import Figure

from pipeline.evaluation.figures import to_png
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.laws import Law
from pipeline.prior import paper_prior
from pipeline.tuning import figures
from pipeline.tuning.recipe_fit import near_optimum
from pipeline.tuning.results import Findings
from pipeline.tuning.study import PairStudy
from pipeline.tuning.sweep import Sweep

_NORMAL_90 = 1.645  # half the width of a normal 90 % interval, in standard errors


def pictures_of(sweep: Sweep, found: Findings) -> dict[str, bytes]:
    """Draw the sweep as PNGs, by file name; none if nothing was scored."""
    if not found.results:
        return {}
    units = sweep.store.info.units
    trials = {pair: _points(study) for pair, study in sweep.studies.items()}
    drawn = {
        "retuning": figures.retuning(_rows(found), units),
        "history": figures.history(trials, units),
        "beta": figures.beta_slice(trials, units),
        "parallel": figures.parallel_coordinates(trials),
        "laws": _laws(sweep, found),
    }
    importances = {pair: study.importances() for pair, study in sweep.studies.items()}
    if any(importances.values()):
        drawn["importance"] = figures.importance(importances)
    if len(sweep.config.tuning.objectives) > 1:
        drawn["pareto"] = figures.pareto(trials, units)
    return {f"{name}.png": to_png(figure) for name, figure in drawn.items()}


def _points(study: PairStudy) -> list[figures.TrialPoint]:
    return [
        figures.TrialPoint(
            trial.number,
            trial.parameters,
            trial.outcome.metrics.get("crps"),
            trial.outcome.state,
            trial.outcome.rungs,
            trial.outcome.metrics.get("log_spectral_distance"),
        )
        for trial in study.ended
    ]


def _rows(found: Findings) -> list[figures.RetuningRow]:
    return [
        figures.RetuningRow(
            result.pair,
            result.test["bicubic_mae"],
            result.test["crps"],
            {
                name: figures.Reference(
                    rival.crps,
                    *(
                        result.test["crps"] * part
                        for part in (rival.difference.value, rival.difference.low, rival.difference.high)
                    ),
                )
                for name, rival in result.rivals.items()
            },
            result.best.parameters,
        )
        for result in found.results
    ]


def _laws(sweep: Sweep, found: Findings) -> Figure:
    """Draw each law with the range in which each pair's optimum lies."""
    laws = found.laws
    assert laws is not None  # fitted wherever a pair was scored

    def panel(
        title: str, label: str, law: Law, quantity: Callable[[FactorPair, ScaleParameters], float], log: bool
    ) -> figures.LawPanel:
        back = math.exp if log else float

        def estimate(value: float, low: float, high: float) -> tuple[float, float, float]:
            return back(value), back(low), back(high)

        points = {}
        for pair, seen in found.observations.items():
            value, error = near_optimum(seen, quantity)
            half = _NORMAL_90 * error if log else math.nan  # the error is that of a logarithm
            points[pair] = estimate(value, value - half, value + half)
        return figures.LawPanel(
            title,
            label,
            log,
            points,
            lambda pair: estimate(*law.predict(pair)),
            lambda pair: back(quantity(pair, paper_prior(pair))),
            law.evidence.statement,
        )

    panels = [
        panel("Noise amplitude", "beta", laws.beta, lambda _, p: math.log(p.beta), True),
        panel(
            "Attention horizon", "L x time factor, fine frames", laws.horizon,
            lambda pair, p: math.log(p.context * pair.time), True,
        ),
        panel("Taper", "power p of f(x) = x^p", laws.power, lambda _, p: p.conservation.power, False),
    ]  # fmt: skip
    return figures.laws(panels, [*found.observations, *sweep.config.tuning.predict])
