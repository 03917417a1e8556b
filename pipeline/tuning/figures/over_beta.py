"""How flat the optimum is: CRPS over beta, with L and f."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipeline.drawing import (
    GREEN,
    RED,
    arrows_above,
    label_edges,
    log_scale,
    mark,
    nothing,
    panel_title,
    panels,
    score_axis,
)
from pipeline.factors import FactorPair
from pipeline.tuning.figures.points import TrialPoint, best_of, kind_of_f, scored

NEAR = 0.02  # a CRPS this much above the best counts as near-optimal
_MARKERS = {  # by what f does; hollow where only the tile's total is kept
    "identity, cell": ("o", False),
    "identity, tile": ("o", True),
    "taper, cell": ("^", False),
    "taper, tile": ("^", True),
    "none": ("s", True),
}


def beta_slice(trials: Mapping[FactorPair, Sequence[TrialPoint]], units: str) -> Figure:
    """Draw the CRPS of every complete trial over its beta, coloured by L, marked by f; a panel per pair.

    The band holds the scores within 2 % of the best; the bar at the foot and the title give the range of beta
    that they span.

    Parameters
    ----------
    trials : mapping
        In the order to be drawn.
    units : str
        Of the CRPS.
    """
    complete = {pair: scored(points) for pair, points in trials.items()}
    everything = [trial for points in complete.values() for trial in points]
    kinds = [k for k in _MARKERS if k in {kind_of_f(t.parameters.conservation) for t in everything}]
    legend: list[Any] = [mark(_MARKERS[k][0], "0.3", f"f: {k}", hollow=_MARKERS[k][1]) for k in kinds]
    legend.append(mark("o", RED, "best", hollow=True, markersize=10, markeredgewidth=1.8))
    legend.append(Patch(color=GREEN, alpha=0.3, label=f"near-best: within {100 * NEAR:g} %"))
    title = "How flat is the optimum in beta? CRPS of the complete trials"
    figure, drawn = panels(len(trials), title, legend, size=(3.2, 2.4))
    contexts = sorted({trial.parameters.context for trial in everything})
    colours = _colours(contexts)
    for axes, (pair, points) in zip(drawn, complete.items(), strict=False):
        _panel(axes, pair, points, colours)
    label_edges(drawn, "beta", f"CRPS, {units}")
    if contexts:
        _colour_bar(figure, drawn, contexts, colours)
    return figure


def _panel(axes: Axes, pair: FactorPair, points: Sequence[TrialPoint], colours: Mapping[int, Any]) -> None:
    best = best_of(points)
    if best is None:
        panel_title(axes, pair)
        nothing(axes, "no complete trial")
        return
    scores = [trial.final for trial in points]
    ceiling = score_axis(axes, scores)
    betas = [trial.parameters.beta for trial in points]
    room = (max(betas) / min(betas)) ** 0.07 if max(betas) > min(betas) else 1.5
    log_scale(axes, "x", min(betas) / room, max(betas) * room, most=5)
    axes.axhspan(
        best.final, best.final + NEAR * abs(best.final), color=GREEN, alpha=0.3, linewidth=0, zorder=0
    )
    for trial in reversed(points):
        marker, hollow = _MARKERS[kind_of_f(trial.parameters.conservation)]
        colour = colours[trial.parameters.context]
        axes.plot(
            trial.parameters.beta, min(trial.final, ceiling), marker=marker, markersize=5.5,
            markerfacecolor="none" if hollow else colour, markeredgecolor=colour, markeredgewidth=1.3,
            alpha=0.9, linestyle="none", clip_on=False,
        )  # fmt: skip
    axes.plot(
        best.parameters.beta, best.final, "o", markersize=11, markerfacecolor="none", markeredgecolor=RED,
        markeredgewidth=1.8, zorder=4, clip_on=False, label="best",
    )  # fmt: skip
    near = [t.parameters.beta for t in points if t.final <= best.final + NEAR * abs(best.final)]
    span = f"near-best {min(near):.2g} to {max(near):.2g}" if len(near) > 1 else f"best at {min(near):.2g}"
    axes.plot(
        [min(near), max(near)], [0.0, 0.0], color=GREEN, alpha=0.6, linewidth=5, solid_capstyle="butt",
        transform=axes.get_xaxis_transform(), clip_on=False, label="near-best",
    )  # fmt: skip
    arrows_above(axes, betas, scores, ceiling)
    panel_title(axes, pair, span)


def _colours(contexts: Sequence[int]) -> dict[int, Any]:
    shades = colormaps["viridis"](np.linspace(0, 0.93, max(len(contexts), 1)))
    return dict(zip(contexts, shades, strict=False))


def _colour_bar(
    figure: Figure, drawn: Sequence[Axes], contexts: Sequence[int], colours: Mapping[int, Any]
) -> None:
    """Add a bar with one field per L that occurs."""
    norm = BoundaryNorm(np.arange(len(contexts) + 1) - 0.5, len(contexts))
    shades = ScalarMappable(norm, ListedColormap([colours[context] for context in contexts]))
    bar = figure.colorbar(shades, ax=list(drawn), fraction=0.03, pad=0.015, aspect=28, drawedges=False)
    every = -(-len(contexts) // 12)
    bar.set_ticks(range(0, len(contexts), every), labels=[str(c) for c in contexts[::every]])
    bar.ax.tick_params(length=0, labelsize=8.5)
    bar.ax.minorticks_off()
    bar.set_label("L (coarse frames)", fontsize=9.5)
