"""Figures of the measurements that have one."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.benchmarks.borders import steps, tile_borders
from pipeline.benchmarks.finished import wettest_square
from pipeline.benchmarks.tables import Drawn, SeamsTable, StepsTable
from pipeline.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    heading,
    label_edges,
    log_scale,
    mark,
    panel_title,
    panels,
    score_axis,
)
from pipeline.evaluation.figures.style import draw_rain, image, rain_bar, rain_scale

_DETAIL = 112  # pixels of the square that are drawn: seams are a pixel wide
_SAMPLERS = {  # name, colour and marker
    "dpm_solver_pp_2m": ("DPM-Solver++ 2M", BLUE, "o"),
    "heun": ("Heun", ORANGE, "s"),
    "ddim": ("DDIM", GREEN, "^"),
    "ancestral": ("ancestral", BLACK, "D"),
}


def steps_figure(table: StepsTable) -> Figure:
    """Draw the CRPS over network evaluations, a line per sampler, the reference as a level.

    Parameters
    ----------
    table : StepsTable
        With its reference.
    """
    reference, rows = table.reference, [row for row in table.rows if row != table.reference]
    names = list(dict.fromkeys(row.sampler for row in rows))
    legend: list[Any] = [
        mark(_SAMPLERS[name][2], _SAMPLERS[name][1], _SAMPLERS[name][0], linestyle="-") for name in names
    ]
    if reference is not None:
        label = f"{_SAMPLERS[reference.sampler][0]}, {reference.evaluations} evaluations"
        legend.append(Line2D([], [], color=BLACK, linestyle="--", linewidth=1.3, label=label))
    if any(row.is_default for row in rows):
        legend.append(mark("o", RED, "the default", hollow=True, markersize=11, markeredgewidth=1.8))
    title = (
        f"How many evaluations does it take? {table.pair} of {table.name}, "
        f"{table.windows} windows x {table.members} members"
    )
    figure, (axes,) = panels(1, title, legend, size=(7.0, 3.0))
    levels = [] if reference is None else [reference.crps]
    score_axis(axes, [*(row.crps for row in rows), *levels])
    if rows:
        counts = [row.evaluations for row in rows]
        log_scale(axes, "x", min(counts) / 1.15, max(counts) * 1.15, most=12)
        axes.set_xticks(sorted(set(counts)))
    if reference is not None:
        axes.axhline(reference.crps, color=BLACK, linestyle="--", linewidth=1.3, zorder=1.5)
    for name in names:
        _, colour, marker = _SAMPLERS[name]
        own = [row for row in rows if row.sampler == name]
        axes.plot(
            [row.evaluations for row in own], [row.crps for row in own], color=colour, marker=marker,
            markersize=6, linewidth=1.6, label=name,
        )  # fmt: skip
    for row in rows:
        if row.is_default:
            axes.plot(
                row.evaluations, row.crps, "o", markersize=13, markerfacecolor="none", markeredgecolor=RED,
                markeredgewidth=1.8, zorder=4, label="default",
            )  # fmt: skip
    label_edges([axes], "network evaluations per member", f"CRPS, {table.units}")
    return figure


def seams_figure(table: SeamsTable) -> Figure:
    """Draw the member in one piece, as downscaling draws it and side by side; below, what seams there are.

    The pictures show the wettest part of the last frame.

    Parameters
    ----------
    table : SeamsTable
    """
    one, default, *_, beside = table.rows
    title = f"Do tiles leave seams? One member of {table.pair}, {table.name}, {table.place}"
    legend = [
        Line2D([], [], color=BLUE, linewidth=1.2, label="step of the difference to the one piece"),
        Line2D([], [], color=ORANGE, linewidth=1.2, label="tile border"),
        mark("o", BLACK, "steps at tile borders over steps beside them, two standard errors"),
    ]
    figure = heading(9.4, 5.8, title, legend)
    grid = figure.add_gridspec(2, 4, width_ratios=[1, 1, 1, 0.05], height_ratios=[1.25, 1])
    detail = min(_DETAIL, *one.field.shape[1:])
    _, (y, x) = wettest_square(np.nan_to_num(one.field[-1]), detail)
    cuts = [row.field[-1, y : y + detail, x : x + detail] for row in (one, default, beside)]
    pictures = [image(cut, np.isfinite(cut)) for cut in cuts]
    norm = rain_scale(pictures, 0.1)
    for column, (row, picture) in enumerate(zip((one, default, beside), pictures, strict=True)):
        axes = figure.add_subplot(grid[0, column])
        drawn = draw_rain(axes, picture, norm)
        _border_ticks(axes, row, (y, x), detail)
        panel_title(axes, _titled(row), f"{detail} x {detail} of it" if row is one else "")
    bar = figure.add_subplot(grid[0, 3])
    rain_bar(figure, bar, drawn, table.units, 3.0)
    _ratios(figure.add_subplot(grid[1, 0]), table)
    profiles = [figure.add_subplot(grid[1, column]) for column in (1, 2)]
    highest = max(_profile(axes, one, row) for axes, row in zip(profiles, (default, beside), strict=True))
    for axes, row in zip(profiles, (default, beside), strict=True):
        axes.set_ylim(0, 1.1 * highest if highest > 0 else 1)
        axes.set_xlabel("column", fontsize=9.5)
        panel_title(axes, _titled(row))
    profiles[0].set_ylabel(f"mean step, {table.units}", fontsize=9.5)
    return figure


def _border_ticks(axes: Axes, row: Drawn, corner: tuple[int, int], side: int) -> None:
    """Put ticks where tile borders meet the edges of a picture, whose pixels they would hide."""
    for axis, borders, first in zip((axes.yaxis, axes.xaxis), tile_borders(row.lattice), corner, strict=True):
        axis.set_ticks([b - first - 0.5 for b in borders if 0 < b - first < side])
        axis.set_tick_params(color=ORANGE, length=5, width=1.4, labelleft=False, labelbottom=False)


def _titled(row: Drawn) -> str:
    return row.title if row.title == "one piece" else f"tiles of {row.title}"


def _ratios(axes: Axes, table: SeamsTable) -> None:
    """Draw the ratio of every kind of tiles, one under the other."""
    rows = [row for row in table.rows if np.isfinite(row.seam.ratio)]
    _plain(axes)
    axes.axvline(1, color=GREY, linewidth=1.2, zorder=1)
    for place, row in enumerate(rows):
        low, high = (max(0.0, row.seam.ratio + k * row.seam.error) for k in (-2, 2))
        axes.plot([low, high], [place, place], color=BLACK, linewidth=1.4)
        axes.plot(row.seam.ratio, place, "o", color=BLACK, markersize=5.5)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("step at tile borders / step beside them", fontsize=9.5)
    panel_title(axes, "1: no seams")


def _profile(axes: Axes, one: Drawn, row: Drawn) -> float:
    """Draw the mean step of the difference at every column; gives the largest."""
    total, pairs = steps(row.field - one.field, 2)
    mean = np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan)[1:]
    _plain(axes)
    for border in tile_borders(row.lattice)[1]:
        axes.axvline(border, color=ORANGE, linewidth=0.8, zorder=1)
    axes.plot(np.arange(1, len(mean) + 1), mean, color=BLUE, linewidth=0.9)
    there = np.flatnonzero(pairs) if pairs.any() else np.array([0, len(mean)])
    axes.set_xlim(there[0], there[-1])
    return float(np.nanmax(mean, initial=0.0))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
