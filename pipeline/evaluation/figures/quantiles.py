"""Whether the values have the truth's distribution, whatever their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.evaluation.figures.style import field_style, in_order
from pipeline.factors import FactorPair
from pipeline.tuning.figures.layout import label_edges, log_scale, nothing, panel_title, panels

_NAMED = (0.9, 0.99, 0.999, 0.9999)  # levels written at the diagonal


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of one pair's fields over all valid pixels.

    Attributes
    ----------
    pair : FactorPair
    levels : ndarray
        (K,) increasing, in (0, 1).
    values : mapping of str to ndarray
        Field -> (K,), in the field's units; must have `truth`. `ensemble`: the members taken together.
    """

    pair: FactorPair
    levels: np.ndarray
    values: Mapping[str, np.ndarray]


def quantile_quantile(all_quantiles: Sequence[Quantiles], units: str, *, dry_below: float = 0.1) -> Figure:
    """Draw quantiles against the truth's at the same levels, a panel per pair; both axes are alike.

    Below the diagonal a field is too weak: interpolated ones are so at the high end.

    Parameters
    ----------
    all_quantiles : sequence of Quantiles
    units : str
    dry_below : float
        Start of the axes, in `units`.
    """
    names = [name for name in in_order(n for one in all_quantiles for n in one.values) if name != "truth"]
    legend = [
        Line2D([], [], **field_style(name).drawn(marker=field_style(name).marker, markersize=4.5))
        for name in names
    ]
    legend.append(Line2D([], [], color="0.3", linewidth=1, label="truth; ticks: level"))
    title = "Quantiles of all pixels against those of the truth"
    figure, drawn = panels(len(all_quantiles), title, legend, size=(3.0, 3.0))
    for axes, one in zip(drawn, all_quantiles, strict=False):
        panel_title(axes, one.pair)
        _panel(axes, one, names, dry_below)
    if all_quantiles:
        label_edges(drawn, f"truth, {units}", f"field, {units}")
    return figure


def _panel(axes: Axes, one: Quantiles, names: Sequence[str], dry_below: float) -> None:
    truth = one.values["truth"]
    wet = np.isfinite(truth) & (truth >= dry_below)
    if not wet.any():
        nothing(axes, f"no quantile of the truth above {dry_below:g}: dry")
        return
    high = max(float(np.nanmax(values[wet])) for values in one.values.values())
    high = max(1.25 * high, 10 * dry_below)
    axes.plot([dry_below, high], [dry_below, high], color="0.3", linewidth=1, zorder=1)
    for level in _NAMED:
        at = np.flatnonzero(np.isclose(one.levels, level, rtol=0, atol=1e-9) & wet)
        if at.size:
            value = float(truth[at[0]])
            axes.plot(value, value, marker=(2, 0, 45), color="0.3", markersize=9, zorder=1.5)
            axes.annotate(
                f"{100 * level:g} %", (value, value), (-5, 3), textcoords="offset points", fontsize=7.5,
                color="0.35", ha="right",
            )  # fmt: skip
    for name in [name for name in names if name in one.values]:
        style = field_style(name)
        y = np.where(one.values[name] >= dry_below, one.values[name], np.nan)
        axes.plot(truth[wet], y[wet], **style.drawn(marker=style.marker, markersize=3.5, linewidth=1.2))
    for which in "xy":
        log_scale(axes, which, dry_below, high, most=5)
    axes.set_aspect("equal")
