"""What an evaluation found over all factor pairs: skill, its intervals, and the values behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from pipeline.drawing import heading, mark, nothing
from pipeline.evaluation.figures.style import field_style, in_order
from pipeline.factors import FactorPair

_CELL, _WIDEST_CELL, _FLAT = 0.82, 1.25, 0.63  # inches; height over width
_ROW, _LANE = 0.34, 0.15
_DARK = 0.55  # of the luminance: darker cells get white numbers


@dataclass(frozen=True)
class Skill:
    """1 - CRPS / CRPS of a reference on the same windows, with its bootstrap interval.

    Attributes
    ----------
    value : float
        1 is perfect, 0 no better than the reference.
    low, high : float
        NaN where no interval can be had.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


def skill_map(
    skill: Mapping[FactorPair, float], reference: str, *, expected: Sequence[FactorPair] = ()
) -> Figure:
    """Draw the CRPS skill of every pair as a map over space and time factor, with the number in each cell.

    Parameters
    ----------
    skill : mapping of FactorPair to float
        1 - CRPS / CRPS of the reference; pairs without one, or with NaN, are hatched.
    reference : str
        Name of the field, as `bicubic`.
    expected : sequence of FactorPair
        More pairs that should have a place.
    """
    everything = {*skill, *expected}
    spaces = sorted({pair.space for pair in everything})
    times = sorted({pair.time for pair in everything})
    finite = {pair: value for pair, value in skill.items() if math.isfinite(value)}
    empty = len(finite) < len(spaces) * len(times)
    legend = [Patch(facecolor="0.95", edgecolor="0.7", hatch="////", label="no score")] if empty else []
    title = f"CRPS skill over {field_style(reference).title.lower()}, %"
    cell = min(max(_CELL, 4.2 / max(len(spaces), 1)), _WIDEST_CELL)
    columns = max(len(spaces), int(4.2 / cell))  # a title needs some width
    figure = heading(1.0 + cell * columns, 0.75 + _FLAT * cell * max(len(times), 1), title, legend)
    axes = figure.add_subplot()
    if not everything:
        nothing(axes, "no factor pair to draw")
        return figure
    norm = _about_zero([100 * value for value in finite.values()])
    colours = colormaps["PuOr"]
    for row, time in enumerate(times):
        for column, space in enumerate(spaces):
            pair = (space, time)
            value = next((v for p, v in finite.items() if (p.space, p.time) == pair), None)
            _cell(axes, column, row, None if value is None else 100 * value, norm, colours)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, len(times) - 0.5))
    axes.set_xticks(range(len(spaces)), [str(space) for space in spaces])
    axes.set_yticks(range(len(times)), [str(time) for time in times])
    axes.tick_params(length=0, labelsize=9.5)
    axes.set_xlabel("space factor s", fontsize=9.5, loc="left")
    axes.set_ylabel("time factor tau", fontsize=9.5)
    axes.spines[:].set_visible(False)
    return figure


def _cell(axes: Axes, x: int, y: int, percent: float | None, norm: Any, colours: Any) -> None:
    box: dict[str, Any] = {"xy": (x - 0.48, y - 0.47), "width": 0.96, "height": 0.94, "linewidth": 0}
    if percent is None:
        axes.add_patch(Rectangle(**box, facecolor="0.95", edgecolor="0.7", hatch="////"))
        return
    colour = colours(norm(percent))
    axes.add_patch(Rectangle(**box, facecolor=colour))
    dark = float(np.dot(colour[:3], (0.2126, 0.7152, 0.0722))) < _DARK
    text = f"{percent:.1f}" if abs(percent) < 99.95 else f"{percent:.0f}"
    axes.text(x, y, text, ha="center", va="center", fontsize=10.5, color="white" if dark else "black")


def _about_zero(percents: Sequence[float]) -> TwoSlopeNorm:
    """Give a scale with 0 in the middle: as much above as below, so that equal colours are equal skill."""
    largest = max([20.0, *(abs(value) for value in percents if abs(value) <= 100)])
    return TwoSlopeNorm(0, -1.25 * largest, 1.25 * largest)


def skill_intervals(rows: Mapping[FactorPair, Mapping[str, Skill]], *, level: float = 0.9) -> Figure:
    """Draw the CRPS skill over each reference with its interval, a row per pair.

    Parameters
    ----------
    rows : mapping
        Pair -> reference (`bicubic`, ...) -> skill; rows are drawn in their order, from the top.
    level : float
        Of the intervals.
    """
    names = in_order(name for row in rows.values() for name in row)
    legend = [
        mark(field_style(name).marker, field_style(name).colour, field_style(name).title) for name in names
    ]
    if any(-math.inf < one.value < -1 for row in rows.values() for one in row.values()):
        legend.append(mark("<", "0.35", "below -100 %"))
    title = f"CRPS skill over each reference, with the {100 * level:g} % interval over blocks of windows"
    height = max(_ROW, _LANE * len(names)) * max(len(rows), 1) + 0.6
    figure = heading(7.2, height, title, legend)
    axes = figure.add_subplot()
    if not rows or not names:
        nothing(axes, "no factor pair to draw")
        return figure
    lanes = {name: (i - (len(names) - 1) / 2) * 0.8 / len(names) for i, name in enumerate(names)}
    shown = [
        (y + lanes[name], name, one)
        for y, row in enumerate(rows.values())
        for name, one in row.items()
        if math.isfinite(one.value)
    ]
    for stripe in range(0, len(rows), 2):
        axes.axhspan(stripe - 0.5, stripe + 0.5, color="0.965", linewidth=0, zorder=0)
    axes.axvline(0, color="0.3", linewidth=1.2, zorder=1)
    for y, name, one in shown:
        style = field_style(name)
        if math.isfinite(one.low) and math.isfinite(one.high):
            ends = [100 * max(end, -1) for end in (one.low, one.high)]
            axes.plot(ends, [y, y], color=style.colour, linewidth=1.8, zorder=2)
        axes.plot(
            100 * max(one.value, -1), y, style.marker if one.value >= -1 else "<", color=style.colour,
            markersize=6, markeredgecolor="white", markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [str(pair) for pair in rows], fontsize=10)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    low = min([0.0, *(100 * max(v, -1) for _, _, one in shown for v in (one.value, one.low) if v == v)])
    high = max([5.0, *(100 * v for _, _, one in shown for v in (one.value, one.high) if v == v)])
    room = 0.04 * (high - low)
    axes.set_xlim(low - room, high + room)
    axes.set_xlabel("skill, % (100: perfect, 0: no better than the reference)", fontsize=9.5)
    return figure
