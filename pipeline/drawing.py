"""Panels, legends and axes that all figures share: sizes in inches, readable at 1x."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

BLUE, ORANGE, GREEN, PINK, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"  # Okabe and Ito
SKY, BLACK, GREY = "#56B4E9", "#000000", "0.55"
DPI = 110
_NARROWEST = 6.6  # inches; a title fits on a line or two
_LETTER = 0.52  # mean width of a letter, in font sizes


def panels(
    count: int, title: str, legend: Sequence[Any], *, size: tuple[float, float] = (3.0, 2.3), most: int = 4
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` panels, filled row by row, with a title and one legend above all of them.

    Parameters
    ----------
    count : int
        None at all gives one empty panel that says so.
    title : str
        Wrapped to the figure.
    legend : sequence of matplotlib artists
        With labels; none: no legend.
    size : tuple of float
        Of one panel with its labels, in inches.
    most : int
        Panels in a row.
    """
    rows = max(1, math.ceil(count / most))
    columns = max(1, math.ceil(count / rows))
    width = max(_NARROWEST, columns * size[0])
    figure = heading(width, rows * size[1] * (1.25 if columns == 1 else 1), title, legend)
    grid = figure.add_gridspec(rows, columns)
    drawn = [figure.add_subplot(grid[i // columns, i % columns]) for i in range(max(count, 1))]
    for axes in drawn:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5)
        axes.grid(color="0.93", linewidth=0.8)
        axes.set_axisbelow(True)
    if count == 0:
        nothing(drawn[0], "no factor pair to draw")
    return figure, drawn


def heading(width: float, height: float, title: str, legend: Sequence[Any]) -> Figure:
    """Make a figure with a title and a legend below it; its axes keep clear of both and of one another.

    Parameters
    ----------
    width, height : float
        Of the part for the axes, in inches; the heading adds to the height.
    title : str
        Wrapped to the width.
    legend : sequence of matplotlib artists
        With labels; none: no legend.
    """
    wrapped = wrap(title, width - 0.2, 12)
    in_a_line, lines = _legend_lines(legend, width)
    title_height = 0.12 + 0.22 * len(wrapped.splitlines())
    top = title_height + (0.12 + 0.2 * lines if lines else 0.06)
    height += top
    layout = ConstrainedLayoutEngine(
        w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.03, rect=(0, 0, 1, 1 - top / height)
    )
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    figure.suptitle(wrapped, x=0.1 / width, y=1 - 0.08 / height, ha="left", va="top", fontsize=12)
    if legend:
        figure.legend(
            handles=legend, loc="upper left", bbox_to_anchor=(0.05 / width, 1 - title_height / height),
            ncols=in_a_line, frameon=False, fontsize=9, columnspacing=1.4, handletextpad=0.5,
            borderaxespad=0.1, labelspacing=0.4,
        )  # fmt: skip
    return figure


def label_edges(drawn: Sequence[Axes], x: str, y: str) -> None:
    """Label y in the first column, and x where no panel stands below."""
    place = drawn[0].get_subplotspec()
    columns = place.get_gridspec().ncols if place is not None else 1
    for i, axes in enumerate(drawn):
        if i % columns == 0:
            axes.set_ylabel(y, fontsize=9.5)
        if i + columns >= len(drawn):
            axes.set_xlabel(x, fontsize=9.5)


def nothing(axes: Axes, why: str) -> None:
    """Say on an empty panel why it is empty."""
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color="0.45", fontsize=9.5)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def panel_title(axes: Axes, name: object, says: str = "") -> None:
    """Write the panel's name and finding above it."""
    axes.set_title(f"{name}  {says}" if says else str(name), loc="left", fontsize=9.5, pad=5)


def wrap(text: str, inches: float, fontsize: float) -> str:
    """Break a text into lines that fit a width."""
    letters = max(12, int(inches * 72 / (_LETTER * fontsize)))
    return "\n".join(textwrap.wrap(text, letters)) or text


def mark(marker: str, colour: str, label: str, *, hollow: bool = False, **more: Any) -> Line2D:
    """Give a legend's entry for marks."""
    face = "white" if hollow else colour
    style: dict[str, Any] = {"markersize": 6, "markeredgewidth": 1.3, "linestyle": "none"} | more
    return Line2D([], [], marker=marker, color=colour, markerfacecolor=face, label=label, **style)


def ceiling_of(values: Sequence[float]) -> float:
    """Give the highest score worth an axis: what lies above says only that it is bad.

    Four times the best always fits (the paper's prior scores 2 to 3 times worse than the tuned values), and
    so does whatever is within three interquartile ranges of the upper quartile, of the logarithm.
    """
    positive = np.array([value for value in values if value > 0])
    if positive.size == 0:
        return max(values, default=1.0)
    low, quarter, three_quarters = np.log(np.quantile(positive, [0.0, 0.25, 0.75]))
    ceiling = math.exp(min(700.0, max(low + math.log(4), three_quarters + 3 * (three_quarters - quarter))))
    return max(ceiling, min(values))


def score_axis(axes: Axes, values: Sequence[float]) -> float:
    """Set the y axis for scores, logarithmic if they differ by more than a factor of 2; outliers lie beyond.

    Returns
    -------
    float
        The highest score with a place; draw those above it at this height, with `arrows_above`.
    """
    limit, low = ceiling_of(values), min(values)
    outliers = [value for value in values if value > limit]
    top = max(value for value in values if value <= limit)
    head = 0.4 if outliers else 0.07  # of the span, left free at the top
    if low > 0 and (top > 2 * low or outliers):
        span = math.log(top / low) or math.log(2)
        ceiling = top * math.exp(0.1 * span)
        log_scale(axes, "y", low * math.exp(-0.07 * span), top * math.exp(head * span))
    else:
        span = (top - low) or 0.5 * abs(low) or 1.0
        ceiling = top + 0.1 * span
        axes.set_ylim(low - 0.07 * span, top + head * span)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    if outliers:
        text = f"{len(outliers)} above the axis, up to {max(outliers):.2g}"
        axes.text(0.99, 0.985, text, transform=axes.transAxes, ha="right", va="top", fontsize=8, color="0.35")
    return min(ceiling, *outliers) if outliers else top


def arrows_above(axes: Axes, x: Sequence[float], y: Sequence[float], ceiling: float) -> None:
    """Put an arrow over every mark that stands at the ceiling because its score lies above."""
    for at, score in zip(x, y, strict=True):
        if score > ceiling:
            axes.annotate(
                "", (at, ceiling), (0, 11), textcoords="offset points",
                arrowprops={
                    "arrowstyle": "<-", "color": "0.35", "shrinkA": 0, "shrinkB": 3.5, "mutation_scale": 7
                },
            )  # fmt: skip


def log_scale(axes: Axes, which: str, low: float, high: float, most: int = 6) -> None:
    """Make an axis logarithmic, with plain round numbers, also within one decade."""
    axis: Any = getattr(axes, f"{which}axis")
    set_scale: Callable[..., Any] = getattr(axes, f"set_{which}scale")
    set_scale("log")
    getattr(axes, f"set_{which}lim")(low, high)
    axis.set_major_locator(FixedLocator(log_ticks(low, high, most)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Give up to `most` round numbers from `low` to `high`: the densest of the usual series that fits."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        inside = [s * 10.0**decade for decade in decades for s in steps if low <= s * 10.0**decade <= high]
        if 3 <= len(inside) <= most:
            return inside
    if len(decades) > most:
        every = math.ceil(len(decades) / most)
        return [10.0**decade for decade in decades[::every] if low <= 10.0**decade <= high]
    even = MaxNLocator(most - 1, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high and tick > 0]


def _legend_lines(legend: Sequence[Any], width: float) -> tuple[int, int]:
    """Give how many entries of the legend stand in a line, and how many lines that makes."""
    if not legend:
        return 1, 0
    entries = [len(entry.get_label()) * _LETTER * 9 / 72 + 0.52 for entry in legend]
    for lines in range(1, len(entries)):
        in_a_line = math.ceil(len(entries) / lines)
        columns = np.array_split(entries, in_a_line)  # as matplotlib fills them
        if sum(column.max() for column in columns) <= width - 0.2:
            return in_a_line, lines
    return 1, len(entries)
