"""How far a search has come: CRPS over the trials of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.drawing import (
    BLUE,
    GREY,
    RED,
    arrows_above,
    label_edges,
    mark,
    nothing,
    panel_title,
    panels,
    score_axis,
)
from pipeline.factors import FactorPair
from pipeline.tuning.figures.points import TrialPoint, best_of, finite, scored


def history(trials: Mapping[FactorPair, Sequence[TrialPoint]], units: str) -> Figure:
    """Draw every trial's CRPS over its number, and the best so far; a panel per pair.

    Pruned trials stand at the CRPS of the last step at which they were looked at, failed ones at the foot.
    Scores far above the others stand at the top, under an arrow.

    Parameters
    ----------
    trials : mapping
        In the order to be drawn.
    units : str
        Of the CRPS.
    """
    states = {trial.state for points in trials.values() for trial in points}
    legend = [
        mark("o", BLUE, "complete"),
        Line2D([], [], color=RED, linewidth=1.6, label="best so far"),
        *([mark("o", GREY, "pruned: at its last look", hollow=True)] if "pruned" in states else []),
        *([mark("x", GREY, "failed")] if "failed" in states else []),
    ]
    figure, drawn = panels(len(trials), "CRPS of every trial: has the search settled?", legend)
    for axes, (pair, points) in zip(drawn, trials.items(), strict=False):
        _panel(axes, pair, points)
    label_edges(drawn, "trial", f"CRPS, {units}")
    return figure


def _panel(axes: Axes, pair: FactorPair, points: Sequence[TrialPoint]) -> None:
    complete = scored(points)
    stopped = [t for t in points if t.state == "pruned" and finite(t.last_rung)]
    heights = [t.final for t in complete] + [t.last_rung for t in stopped]
    best = best_of(points)
    if not heights:
        panel_title(axes, pair)
        nothing(axes, "no scored trial")
        return
    ceiling = score_axis(axes, heights)
    size = 22 if len(points) <= 60 else 12
    _marks(
        axes, [t.number for t in stopped], [t.last_rung for t in stopped], ceiling, GREY, size, hollow=True
    )
    _marks(axes, [t.number for t in complete], [t.final for t in complete], ceiling, BLUE, size, hollow=False)
    arrows_above(axes, [t.number for t in complete + stopped], heights, ceiling)
    failed = [t.number for t in points if t.state == "failed"]
    if failed:  # matplotlib would count an empty line into the layout
        foot = axes.get_xaxis_transform()
        axes.plot(failed, [0.0] * len(failed), "x", color=GREY, markersize=5, transform=foot, clip_on=False)
    last = max(t.number for t in points)
    if best is not None:
        so_far = np.minimum.accumulate([t.final for t in complete])
        steps = [t.number for t in complete] + [last]
        axes.plot(
            steps, np.minimum([*so_far, so_far[-1]], ceiling), color=RED, linewidth=1.6,
            drawstyle="steps-post", label="best so far", zorder=2.5,
        )  # fmt: skip
    first = min(t.number for t in points)
    room = max(0.6, 0.04 * (last - first))
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    says = f"best {best.final:.3g} (trial {best.number})" if best is not None else "none complete"
    panel_title(axes, pair, says)


def _marks(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    ceiling: float,
    colour: str,
    size: int,
    *,
    hollow: bool,
) -> None:
    axes.scatter(
        x, np.minimum(y, ceiling), s=size, marker="o", linewidth=1.0,
        facecolor="white" if hollow else colour, edgecolor=colour, alpha=1.0 if hollow else 0.85,
        zorder=2 if hollow else 3,
    )  # fmt: skip
