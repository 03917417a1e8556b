"""Whether the values have the truth's distribution, whatever their places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.drawing import heading, log_scale, nothing, panel_title
from pipeline.evaluation.figures.style import field_style, in_order
from pipeline.factors import FactorPair

_NAMED = (0.9, 0.99, 0.999, 0.9999)  # levels written at the diagonal
_APART = 0.09  # of the axis, between two of them
_MOST = 4  # panels in a row
_WIDEST = 60.0  # per cent
_HIGH = 0.9  # from this level on, differences are drawn: weak rain comes in the steps of the instrument


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

    Below each panel stands by how much the high quantiles are off, in per cent of the truth's, by level: a
    logarithmic diagram hides that interpolated fields are too weak there.

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
    count = max(len(all_quantiles), 1)
    rows = math.ceil(count / _MOST)
    columns = math.ceil(count / rows)
    title = "Quantiles of all pixels against those of the truth"
    figure = heading(max(6.6, 3.1 * columns), 4.6 * rows, title, legend)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[2.4, 1] * rows)
    if not all_quantiles:
        nothing(figure.add_subplot(grid[:, 0]), "no factor pair to draw")
    for i, one in enumerate(all_quantiles):
        row, column = divmod(i, columns)
        upper = figure.add_subplot(grid[2 * row, column])
        panel_title(upper, one.pair)
        wet = np.isfinite(one.values["truth"]) & (one.values["truth"] >= dry_below)
        if not wet.any():
            nothing(upper, f"no quantile of the truth above {dry_below:g}: dry")
            continue
        lower = figure.add_subplot(grid[2 * row + 1, column])
        shown = [name for name in names if name in one.values]
        high = max(float(np.nanmax(one.values[name][wet], initial=0.0)) for name in one.values)
        high = max(1.25 * high, 10 * dry_below)
        _against_truth(upper, one, shown, wet, (dry_below, high))
        _differences(lower, one, shown, wet)
        upper.set_xlabel(f"truth, {units}", fontsize=9.5)
        lower.set_xlabel("level of the quantile, %", fontsize=9.5)
        if column == 0:
            upper.set_ylabel(f"field, {units}", fontsize=9.5)
            lower.set_ylabel("field - truth,\n% of truth", fontsize=9.5)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.grid(color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)


def _against_truth(
    axes: Axes, one: Quantiles, names: Sequence[str], wet: np.ndarray, ends: tuple[float, float]
) -> None:
    _plain(axes)
    truth = one.values["truth"]
    axes.plot(ends, ends, color="0.3", linewidth=1, zorder=1)
    above = math.inf
    for level in reversed(_NAMED):
        at = np.flatnonzero(np.isclose(one.levels, level, rtol=0, atol=1e-9) & wet)
        if not at.size:
            continue
        value = float(truth[at[0]])
        axes.plot(value, value, marker=(2, 0, 45), color="0.3", markersize=9, zorder=1.5)
        if math.log(above / value) < _APART * math.log(ends[1] / ends[0]):
            continue  # the names would touch
        above = value
        axes.annotate(
            f"{100 * level:g} %", (value, value), (-6, 3), textcoords="offset points", fontsize=7.5,
            color="0.35", ha="right",
        )  # fmt: skip
    for name in names:
        y = np.where(one.values[name] >= ends[0], one.values[name], np.nan)
        style = field_style(name)
        axes.plot(truth[wet], y[wet], **style.drawn(marker=style.marker, markersize=3, linewidth=1.2))
    for which in "xy":
        log_scale(axes, which, *ends, most=5)


def _differences(axes: Axes, one: Quantiles, names: Sequence[str], wet: np.ndarray) -> None:
    """Draw differences over the level, on a scale on which 90, 99 and 99.9 % stand equally far apart."""
    _plain(axes)
    shown = wet & (one.levels >= _HIGH - 1e-9)
    if not shown.any():
        nothing(axes, f"dry at {100 * _HIGH:g} % and above")
        return
    x, truth = -np.log10(1 - one.levels[shown]), one.values["truth"][shown]
    axes.axhline(0, color="0.3", linewidth=1, zorder=1)
    found = [0.0]
    for name in names:
        percent = 100 * (one.values[name][shown] / truth - 1)
        style = field_style(name)
        axes.plot(x, percent, **style.drawn(marker=style.marker, markersize=3, linewidth=1.2))
        found += percent[np.isfinite(percent)].tolist()
    low, high = max(min(found), -_WIDEST), min(max(found), _WIDEST)
    room = max(0.12 * (high - low), 3.0)
    axes.set_ylim(low - room, high + room)
    axes.set_xticks([-math.log10(1 - level) for level in _NAMED], [f"{100 * level:g}" for level in _NAMED])
    axes.set_xlim(x[0] - 0.12, x[-1] + 0.12)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.0f}" if value else "0"))
