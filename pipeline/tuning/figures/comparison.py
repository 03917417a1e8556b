"""What retuning gains over the settings that one could have taken without it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.drawing import BLUE, GREEN, GREY, ORANGE, PINK, heading, log_scale, mark, wrap
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.tuning.figures.points import finite

_STYLES = {  # marker, colour
    "paper's prior": ("o", ORANGE),
    "predicted": ("D", GREEN),
    "one fixed setting": ("^", PINK),
}
_OTHER = ("v", "0.3")
_SHOWN = 25.0  # per cent: differences up to this have a place on the right; larger ones become arrows
_ROW = 0.52  # inches


@dataclass(frozen=True)
class Reference:
    """Another setting of the same pair, scored on the same windows as the tuned one.

    Attributes
    ----------
    crps : float
        In the data's units.
    difference, low, high : float
        Its CRPS less the tuned one, and the 90 % interval of that, in the same units; the ends may be NaN.
    """

    crps: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class RetuningRow:
    """One tuned pair.

    Attributes
    ----------
    pair : FactorPair
    bicubic : float or None
        MAE of bicubic, which is its CRPS, in the data's units.
    tuned : float
        CRPS of the tuned values.
    references : mapping
        "paper's prior", "predicted", "one fixed setting" -> what it scores; some may be missing.
    parameters : ScaleParameters
        The tuned values.
    """

    pair: FactorPair
    bicubic: float | None
    tuned: float
    references: Mapping[str, Reference]
    parameters: ScaleParameters


def retuning(rows: Sequence[RetuningRow], units: str) -> Figure:
    """Draw per pair the CRPS of bicubic, the references and the tuned values, and what the references lose.

    Left all scores on one line; right each reference's CRPS relative to the tuned one, with the 90 % interval
    of the difference. Differences beyond 25 % are arrows with their number, so that small ones stay readable.

    Parameters
    ----------
    rows : sequence of RetuningRow
        In the order to be drawn, from the top.
    units : str
        Of the CRPS.
    """
    names = [name for name in _STYLES if any(name in row.references for row in rows)]
    names += sorted({name for row in rows for name in row.references} - set(names))
    legend: list[Any] = [mark("o", BLUE, "tuned", markersize=7.5)]
    legend += [mark(*_STYLES.get(name, _OTHER), label=name, hollow=True, markersize=7.5) for name in names]
    legend.append(mark("s", GREY, "bicubic (MAE)", hollow=True, markersize=7.5))
    title = "What retuning gains: CRPS on held-out windows"
    figure = heading(10.6, 0.95 + _ROW * max(len(rows), 1), title, legend)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.12])
    for axes in (left, right):
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    _scores(left, rows, names, units)
    _losses(right, rows, names)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_yticks(range(len(rows)), [str(row.pair) for row in rows], fontsize=11)
    right.tick_params(axis="y", labelleft=False)
    return figure


def _scores(axes: Axes, rows: Sequence[RetuningRow], names: Sequence[str], units: str) -> None:
    everything: list[float] = []
    for y, row in enumerate(rows):
        marks = [("s", GREY, row.bicubic, 2.0)]
        marks += [
            (*_STYLES.get(name, _OTHER), row.references[name].crps, 2.5)
            for name in names
            if name in row.references
        ]
        known = [(m, c, x, z) for m, c, x, z in marks if x is not None and finite(x)]
        values = [x for _, _, x, _ in known] + ([row.tuned] if finite(row.tuned) else [])
        if values:
            axes.plot([min(values), max(values)], [y, y], color="0.85", linewidth=2, zorder=1)
        for marker, colour, x, order in known:
            axes.plot(
                x, y, marker, markersize=8.5, markerfacecolor="white", markeredgecolor=colour,
                markeredgewidth=1.7, zorder=order,
            )  # fmt: skip
        if finite(row.tuned):
            axes.plot(row.tuned, y, "o", color=BLUE, markersize=6.5, zorder=3, label="tuned")
        everything += values
    if everything and min(everything) > 0 and max(everything) > 20 * min(everything):
        log_scale(axes, "x", min(everything) / 1.3, max(everything) * 1.3)
    else:
        axes.set_xlim(
            min(0.0, 1.06 * min(everything, default=0.0)), 1.06 * max(everything, default=1.0) or 1.0
        )
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(f"CRPS, {units} (lower is better)", fontsize=10)


def _losses(axes: Axes, rows: Sequence[RetuningRow], names: Sequence[str]) -> None:
    lanes = {
        name: (i - (len(names) - 1) / 2) * min(0.26, 0.72 / max(len(names), 1))
        for i, name in enumerate(names)
    }
    percents = {
        (y, name): tuple(100 * part / row.tuned for part in (one.difference, one.low, one.high))
        for y, row in enumerate(rows)
        if finite(row.tuned) and row.tuned > 0
        for name, one in row.references.items()
        if finite(one.difference)
    }
    low, high = _range([value for triple in percents.values() for value in triple if finite(value)])
    room = 0.06 * (high - low)
    outside = 0.17 * (high - low)  # for the numbers of what lies outside
    far = any(triple[0] > high for triple in percents.values())
    near = any(triple[0] < low for triple in percents.values())
    axes.set_xlim(low - room - outside * near, high + room + outside * far)
    axes.axvline(0, color=BLUE, linewidth=1.4, zorder=1)
    for (y, name), triple in percents.items():
        _loss(axes, y + lanes[name], triple, (low, high), _STYLES.get(name, _OTHER))
    ticks = MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low, high)
    axes.set_xticks([tick for tick in ticks if low - room <= tick <= high + room])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    axes.set_xlabel("CRPS above that of tuned, %, with 90 % interval", fontsize=10)
    _parameters(axes, rows)


def _loss(
    axes: Axes, y: float, percent: tuple[float, ...], limits: tuple[float, float], style: tuple[str, str]
) -> None:
    """Draw one difference; an arrow and its number where it lies outside."""
    (value, begin, end), (low, high), (marker, colour) = percent, limits, style
    width = high - low
    if finite(begin) and finite(end) and begin <= high and end >= low:
        axes.plot([max(begin, low), min(end, high)], [y, y], color=colour, linewidth=1.6, zorder=3)
        for edge, arrow, cut in ((high, ">", end > high), (low, "<", begin < low)):
            if cut and low <= value <= high:
                axes.plot(edge, y, arrow, color=colour, markersize=5, zorder=2)
    if low <= value <= high:
        axes.plot(
            value, y, marker, markersize=6, markerfacecolor="white", markeredgecolor=colour,
            markeredgewidth=1.5, zorder=2,
        )  # fmt: skip
        return
    right = value > high
    edge = high if right else low
    axes.plot(edge, y, ">" if right else "<", color=colour, markersize=8, zorder=3, label="outside")
    axes.text(
        edge + (0.025 if right else -0.025) * width, y, f"{value:+.0f} %", va="center",
        ha="left" if right else "right", fontsize=9,
    )  # fmt: skip


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Give the differences that have a place: up to 25 %, or all if none is that small."""
    limit = _SHOWN if any(abs(value) <= _SHOWN for value in values) else math.inf
    inside = [value for value in values if abs(value) <= limit]
    low, high = min([0.0, *inside]), max([0.0, *inside])
    if any(value > limit for value in values):
        high = max(high, 2.0)
    width = max(high - low, 2.0)
    return (low if low < 0 else -0.08 * width), (high if high > 0 else 0.08 * width)


def _parameters(axes: Axes, rows: Sequence[RetuningRow]) -> None:
    """Write the tuned values beside the rows."""
    columns = (
        (14, "beta", lambda one: f"{one.beta:.3g}"),
        (64, "L", lambda one: str(one.context)),
        (90, "f", lambda one: wrap(str(one.conservation), 1.2, 9)),
    )
    across = axes.get_yaxis_transform()
    for points, name, text in columns:
        place: dict[str, Any] = {
            "xycoords": across,
            "textcoords": "offset points",
            "annotation_clip": False,
            "va": "center",
        }
        axes.annotate(name, (1, -0.62), (points, 0), fontsize=9, color="0.35", **place)
        for y, row in enumerate(rows):
            axes.annotate(text(row.parameters), (1, y), (points, 0), fontsize=9.5, **place)
