"""Two scores at once: CRPS against the log-spectral distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
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


def pareto(trials: Mapping[FactorPair, Sequence[TrialPoint]], units: str) -> Figure:
    """Draw CRPS against log-spectral distance, the Pareto set joined; a panel per pair.

    Parameters
    ----------
    trials : mapping
        In the order to be drawn; trials without both scores are left out.
    units : str
        Of the CRPS.
    """
    legend = [
        mark("o", BLUE, "Pareto set: none is better in both", linestyle="-"),
        mark("o", GREY, "other trials", hollow=True),
        mark("o", RED, "lowest CRPS", hollow=True, markersize=10, markeredgewidth=1.8),
    ]
    title = "Does a lower CRPS cost sharpness? Left: spectrum closer to the truth; down: lower CRPS"
    figure, drawn = panels(len(trials), title, legend)
    for axes, (pair, points) in zip(drawn, trials.items(), strict=False):
        _panel(axes, pair, [trial for trial in scored(points) if finite(trial.spectral)])
    label_edges(drawn, "log-spectral distance, dB", f"CRPS, {units}")
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Give the indices of the points that no other beats, both scores to be minimised, by the first score.

    A point is beaten by one that is as good in both scores and better in one; equal points both stay.

    Parameters
    ----------
    points : sequence of (float, float)
        Finite.
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if not front or points[i][1] < points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front


def _panel(axes: Axes, pair: FactorPair, points: Sequence[TrialPoint]) -> None:
    best = best_of(points)
    if best is None:
        panel_title(axes, pair)
        nothing(axes, "no trial with both scores")
        return
    spectral = [trial.spectral or 0.0 for trial in points]
    scores = [trial.final for trial in points]
    ceiling = score_axis(axes, scores)
    heights = [min(score, ceiling) for score in scores]
    front = pareto_front(list(zip(spectral, scores, strict=True)))
    for i, (x, y) in enumerate(zip(spectral, heights, strict=True)):
        if i not in front:
            axes.plot(x, y, "o", color=GREY, markerfacecolor="white", markersize=4.5)
    arrows_above(axes, spectral, scores, ceiling)
    axes.plot(
        [spectral[i] for i in front], [heights[i] for i in front], "o-", color=BLUE, markersize=5,
        linewidth=1.3, zorder=3, label="Pareto set",
    )  # fmt: skip
    axes.plot(
        spectral[points.index(best)], best.final, "o", markersize=11, markerfacecolor="none",
        markeredgecolor=RED, markeredgewidth=1.8, zorder=4, clip_on=False, label="best",
    )  # fmt: skip
    room = 0.06 * (max(spectral) - min(spectral)) or 0.5
    axes.set_xlim(min(spectral) - room, max(spectral) + room)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel_title(axes, pair, f"Pareto set: {len(front)} of {len(points)}")
