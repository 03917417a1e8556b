"""The laws fitted over the factor pairs: what was tuned, what the law says, what the paper's prior says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from pipeline.drawing import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    log_scale,
    log_ticks,
    mark,
    panel_title,
    panels,
    wrap,
)
from pipeline.factors import FactorPair
from pipeline.tuning.figures.points import finite

Estimate = tuple[float, float, float]
"""A value, and the low and high end of its range; the ends may be NaN."""

_COLOURS = (BLUE, ORANGE, GREEN, PINK, RED, SKY, BLACK)
_MARKERS = "osD^vP*"
_SIZE = (4.1, 3.4)


@dataclass(frozen=True)
class LawPanel:
    """One hyperparameter over all pairs.

    Attributes
    ----------
    title : str
    label : str
        Of the y axis.
    log_y : bool
    points : mapping
        The tuned pairs -> tuned value with its range.
    predict : callable
        The law: a pair -> value with its range.
    paper : callable
        A pair -> the paper's prior.
    statement : str
        What the law says, in a sentence or two; stands under the panel.
    """

    title: str
    label: str
    log_y: bool
    points: Mapping[FactorPair, Estimate]
    predict: Callable[[FactorPair], Estimate]
    paper: Callable[[FactorPair], float]
    statement: str


def laws(law_panels: Sequence[LawPanel], pairs: Sequence[FactorPair]) -> Figure:
    """Draw each law over the space factor, a line per time factor, with the tuned and the predicted pairs.

    Parameters
    ----------
    law_panels : sequence of LawPanel
    pairs : sequence of FactorPair
        The pairs of interest; those without a tuned value are marked on the law, as predicted.
    """
    everything = sorted({*pairs, *(pair for panel in law_panels for pair in panel.points)})
    times = sorted({pair.time for pair in everything})
    styles = _styles(times)
    predicted = any(pair not in panel.points for panel in law_panels for pair in pairs)
    legend: list[Any] = [
        mark(marker, colour, f"time factor {time}", linestyle="-")
        for time, (colour, marker) in styles.items()
    ]
    legend += [mark("o", "0.3", "tuned, bar: its range"), Patch(color="0.85", label="range of the law")]
    if predicted:
        legend.append(mark("o", "0.3", "predicted, not tuned", hollow=True))
    legend.append(Line2D([], [], color="0.3", linestyle=":", label="paper's prior"))
    lines = max((len(_statement(panel).splitlines()) for panel in law_panels), default=0)
    size = (_SIZE[0], _SIZE[1] + 0.16 * lines)
    title = "Tuned values over the factor pairs, and the law that predicts the next pair"
    figure, drawn = panels(len(law_panels), title, legend, size=size, most=3)
    for axes, panel in zip(drawn, law_panels, strict=False):
        _panel(axes, panel, everything, pairs, styles)
    return figure


def _panel(
    axes: Axes,
    panel: LawPanel,
    everything: Sequence[FactorPair],
    pairs: Sequence[FactorPair],
    styles: Mapping[int, tuple[str, str]],
) -> None:
    shown: list[float] = []  # what must lie inside the axis
    spaces = _spaces(everything)
    for i, (time, (colour, marker)) in enumerate(styles.items()):
        line = [FactorPair(s, time) for s in spaces if s * time > 1]
        x = [pair.space for pair in line]
        law = np.array([panel.predict(pair) for pair in line], dtype=float).reshape(-1, 3)
        paper = np.array([panel.paper(pair) for pair in line], dtype=float)
        axes.fill_between(
            x, law[:, 1], law[:, 2], color=colour, alpha=max(0.06, 0.26 / (1 + len(styles))), linewidth=0
        )
        axes.plot(x, law[:, 0], color=colour, linewidth=1.6)
        axes.plot(x, paper, color=colour, linewidth=1.4, linestyle=":")
        shown += [*law[:, 0], *paper]
        # Pairs with the same space factor stand side by side.
        aside = 1.035 ** (i - (len(styles) - 1) / 2)
        for pair, (value, low, high) in panel.points.items():
            if pair.time == time:
                shown += [value, low, high]
                _point(axes, pair.space * aside, (value, low, high), colour, marker)
        open_ones = [pair for pair in pairs if pair.time == time and pair not in panel.points]
        heights = [panel.predict(pair)[0] for pair in open_ones]
        shown += heights
        if not open_ones:  # matplotlib would count an empty line into the layout
            continue
        axes.plot(
            [pair.space for pair in open_ones], heights, marker, color=colour, markerfacecolor="white",
            markersize=6.5, markeredgewidth=1.5, zorder=3.5, label="predicted",
        )  # fmt: skip
    _limits(axes, panel, [value for value in shown if finite(value)], spaces)
    panel_title(axes, panel.title)
    axes.set_ylabel(panel.label, fontsize=9.5)
    axes.set_xlabel("space factor", fontsize=9.5)
    axes.annotate(
        _statement(panel), (0, 0), (0, -38), xycoords="axes fraction", textcoords="offset points",
        va="top", fontsize=8.5, color="0.25", annotation_clip=False,
    )  # fmt: skip


def _point(axes: Axes, x: float, estimate: Estimate, colour: str, marker: str) -> None:
    value, low, high = estimate
    if finite(low) and finite(high):
        axes.plot([x, x], [low, high], color=colour, linewidth=1.4, solid_capstyle="butt", zorder=3)
    axes.plot(
        x, value, marker, color=colour, markersize=6.5, markeredgecolor="white", markeredgewidth=0.6,
        zorder=4, label="tuned",
    )  # fmt: skip


def _limits(axes: Axes, panel: LawPanel, shown: Sequence[float], spaces: Sequence[int]) -> None:
    """Fit the axes to the values; the range of a law beyond its pairs may be too wide to be shown in full."""
    if spaces:
        log_scale(axes, "x", spaces[0] / 1.12, spaces[-1] * 1.12)
        axes.xaxis.set_major_locator(
            FixedLocator([t for t in log_ticks(spaces[0], spaces[-1]) if t % 1 == 0])
        )
    shown = [value for value in shown if value > 0] if panel.log_y else list(shown)
    if not shown:
        return
    low, high = min(shown), max(shown)
    if panel.log_y:
        room = max((high / low) ** 0.12, 1.1)
        log_scale(axes, "y", low / room, high * room)
    else:
        room = 0.12 * (high - low) or 0.1 * abs(low) or 0.1
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _spaces(pairs: Sequence[FactorPair]) -> list[int]:
    """Give whole space factors from the smallest to the largest pair, evenly in the logarithm."""
    if not pairs:
        return []
    low, high = min(pair.space for pair in pairs), max(pair.space for pair in pairs)
    if low == high:  # one space factor makes no line: show the law around it
        low, high = max(1, low // 2), 2 * high
    return sorted({round(s) for s in np.geomspace(low, high, 48)})


def _styles(times: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Give each time factor a colour and a marker; shades of one scale if there are many."""
    colours: Sequence[Any] = _COLOURS
    if len(times) > len(_COLOURS):
        colours = colormaps["viridis"](np.linspace(0, 0.9, len(times))).tolist()
    return {time: (colours[i], _MARKERS[i % len(_MARKERS)]) for i, time in enumerate(times)}


def _statement(panel: LawPanel) -> str:
    return wrap(panel.statement, _SIZE[0] - 0.85, 8.5)
