"""Which hyperparameters decide the score, per pair."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from pipeline.drawing import BLUE, heading, nothing
from pipeline.factors import FactorPair
from pipeline.tuning.figures.points import finite

_NAMES = {"context": "L", "power": "p", "threshold": "theta", "f": "f (identity or taper)"}


def importance(importances: Mapping[FactorPair, Mapping[str, float]]) -> Figure:
    """Draw each parameter's share of the variance of the CRPS: a row per parameter, a column per pair.

    Parameters
    ----------
    importances : mapping
        Pair -> parameter -> importance from 0 to 1, as Optuna names and gives them; whatever is missing or
        not finite is a dash. Parameters are ordered by their mean importance.
    """
    known = {
        pair: {name: value for name, value in shares.items() if finite(value)}
        for pair, shares in importances.items()
    }
    names = sorted({name for shares in importances.values() for name in shares})
    names.sort(key=lambda name: -sum(shares.get(name, 0.0) for shares in known.values()))
    labels = [_NAMES.get(name, name) for name in names]
    # One pair gets a wide column, many get narrow ones.
    column = min(3.2, max(0.86, 7.0 / max(len(known), 1)))
    title = "What decides the CRPS? Share of its variance over the trials that a parameter explains"
    width, height = max(6.6, 1.9 + column * len(known)), 0.45 + 0.34 * max(len(names), 2)
    figure = heading(width, height, title, [])
    if not names:
        nothing(figure.add_subplot(frameon=False), "no importance known: too few complete trials")
        return figure
    drawn = figure.subplots(1, len(known), sharey=True, squeeze=False)[0]
    for axes, (pair, shares) in zip(drawn, known.items(), strict=True):
        axes.barh(range(len(names)), [1.0] * len(names), height=0.62, color="0.95")
        axes.barh(range(len(names)), [shares.get(name, 0.0) for name in names], height=0.62, color=BLUE)
        for y, name in enumerate(names):
            value = shares.get(name)
            axes.text(
                1.05, y, "-" if value is None else f"{value:.2f}", va="center", fontsize=9,
                color="0.55" if value is None or value < 0.05 else "black",
            )  # fmt: skip
        axes.set(xlim=(0, 1.0 + 0.42 / column), ylim=(len(names) - 0.5, -0.5), xticks=[])
        axes.set_yticks(range(len(names)), labels, fontsize=9.5)
        axes.tick_params(length=0)
        axes.set_title(str(pair), loc="left", fontsize=10)
        axes.spines[:].set_visible(False)
    return figure
