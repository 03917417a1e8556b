"""Whether probabilities and ranks of an ensemble can be taken at their word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipeline.drawing import (
    BLUE,
    RED,
    SKY,
    heading,
    label_edges,
    mark,
    nothing,
    panel_title,
    panels,
)
from pipeline.factors import FactorPair

_MOST = 4  # thresholds in a row
_TICKS = (0, 0.25, 0.5, 0.75, 1)
_FEW = 100  # pixels: a share of fewer says little


@dataclass(frozen=True)
class ReliabilityCurve:
    """Forecast probabilities of exceeding one threshold, in bins.

    Attributes
    ----------
    threshold : float
        In the field's units.
    forecast : ndarray
        (N,) mean forecast probability in each bin; anything where the bin is empty.
    observed : ndarray
        (N,) share of its pixels where the truth exceeds the threshold.
    count : ndarray
        (N,) pixels in each bin.
    """

    threshold: float
    forecast: np.ndarray
    observed: np.ndarray
    count: np.ndarray

    @property
    def base_rate(self) -> float:
        """How often the truth exceeds the threshold; NaN without a pixel."""
        used = self.count > 0
        total = self.count[used].sum()
        return float((self.observed[used] * self.count[used]).sum() / total) if total else float("nan")


@dataclass(frozen=True)
class RankHistogram:
    """Where the truth falls among the sorted members, for one pair.

    Attributes
    ----------
    pair : FactorPair
    counts : ndarray
        (M + 1,) pixels (ties shared) with the truth above 0, 1, ..., M members.
    """

    pair: FactorPair
    counts: np.ndarray


def reliability(curves: Sequence[ReliabilityCurve], title: str, units: str) -> Figure:
    """Draw a reliability diagram per threshold, and below it how often each probability is forecast.

    On the diagonal, what is forecast with 70 % happens in 70 % of the cases. In the shaded part a bin adds to
    the Brier skill over the base rate (the attributes diagram of Hsu and Murphy 1986,
    doi:10.1016/0169-2070(86)90048-8).

    Parameters
    ----------
    curves : sequence of ReliabilityCurve
    title : str
    units : str
        Of the thresholds.
    """
    legend: list[Any] = [
        mark("o", BLUE, "ensemble", linestyle="-"),
        mark("o", BLUE, f"fewer than {_FEW} pixels", hollow=True),
        Line2D([], [], color="0.3", linewidth=1, label="perfectly reliable"),
        Line2D([], [], color=RED, linestyle=":", linewidth=1.4, label="base rate of the truth"),
        Patch(color="0.92", label="better than the base rate"),
    ]
    columns = min(max(len(curves), 1), _MOST)
    rows = -(-max(len(curves), 1) // columns)
    figure = heading(max(6.6, 2.75 * columns), 4.0 * rows, title, legend)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[2.6, 1] * rows)
    if not curves:
        nothing(figure.add_subplot(grid[:, 0]), "no threshold to draw")
    for i, curve in enumerate(curves):
        row, column = divmod(i, columns)
        upper = figure.add_subplot(grid[2 * row, column])
        lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
        panel_title(upper, f"above {curve.threshold:g} {units}")
        _diagram(upper, curve)
        _sharpness(lower, curve)
        upper.tick_params(labelbottom=False, labelsize=8.5)
        lower.set_xlabel("forecast probability", fontsize=9.5)
        if column == 0:
            upper.set_ylabel("observed frequency", fontsize=9.5)
            lower.set_ylabel("share of\npixels", fontsize=9.5)
    return figure


def _diagram(axes: Axes, curve: ReliabilityCurve) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlim=(-0.07, 1.07), ylim=(-0.03, 1.03), xticks=_TICKS, yticks=_TICKS)
    used = curve.count > 0
    if not used.any():
        axes.text(0.5, 0.5, "no valid pixel", ha="center", color="0.45", fontsize=9.5)
        return
    base = curve.base_rate
    # No skill is half way between base rate and diagonal; what is beyond, on the diagonal's side, adds skill.
    axes.fill_between([0, base], [base / 2, base], 0, color="0.92", linewidth=0, zorder=0)
    axes.fill_between([base, 1], [base, (1 + base) / 2], 1, color="0.92", linewidth=0, zorder=0)
    axes.plot([0, 1], [0, 1], color="0.3", linewidth=1, zorder=1)
    axes.axhline(base, color=RED, linestyle=":", linewidth=1.4, zorder=1)
    style: dict[str, Any] = {"color": BLUE, "markersize": 4.5, "linewidth": 1.5, "clip_on": False}
    many = curve.count >= _FEW
    few = used & ~many
    # matplotlib would count an empty line into the layout
    if few.any():
        axes.plot(curve.forecast[few], curve.observed[few], "o", **style, markerfacecolor="white", zorder=2.5)
    if many.any():
        axes.plot(curve.forecast[many], curve.observed[many], "o-", **style, zorder=3)


def _sharpness(axes: Axes, curve: ReliabilityCurve) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    total = curve.count.sum()
    if not total:
        axes.set_yticks([])
        return
    bins = len(curve.count)
    used = curve.count > 0
    share = curve.count[used] / total
    axes.bar(curve.forecast[used], share, width=0.75 / bins, color=SKY)
    floor = 10.0 ** np.floor(np.log10(share.min()) - 0.2)
    axes.set_yscale("log")
    axes.set_ylim(floor, 1.5)
    axes.set_yticks([tick for tick in (1e-8, 1e-6, 1e-4, 1e-2, 1.0) if tick >= floor])
    axes.minorticks_off()
    axes.set_yticklabels([f"{100 * tick:g} %" for tick in axes.get_yticks()])


def rank_histograms(histograms: Sequence[RankHistogram]) -> Figure:
    """Draw how often the truth has each rank among the members, a panel per pair; 1 is a flat histogram.

    A U means too little spread, a dome too much, a slope a bias (Hamill 2001,
    doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2). All panels share the axis.

    Parameters
    ----------
    histograms : sequence of RankHistogram
    """
    legend: list[Any] = [
        Patch(color=SKY, label="frequency of the rank, flat = 1"),
        Line2D([], [], color="0.2", linestyle="--", label="flat: truth and members alike"),
    ]
    figure, drawn = panels(len(histograms), "Rank of the truth among the members", legend, size=(2.9, 2.2))
    heights = [_relative(one.counts) for one in histograms]
    top = max([2.0, *(float(one.max()) for one in heights if one.size)])
    for axes, one, height in zip(drawn, histograms, heights, strict=False):
        panel_title(axes, one.pair, f"{len(one.counts) - 1} members")
        axes.grid(axis="x", visible=False)
        if not height.size:
            nothing(axes, "no valid pixel")
            continue
        axes.bar(np.arange(len(height)), height, width=0.85, color=SKY)
        axes.axhline(1, color="0.2", linestyle="--", linewidth=1.2)
        axes.set_ylim(0, 1.06 * top)
        axes.set_xlim(-0.7, len(height) - 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if histograms:
        label_edges(drawn, "members below the truth", "frequency, flat = 1")
    return figure


def _relative(counts: np.ndarray) -> np.ndarray:
    """Give frequencies with 1 for a flat histogram; none without a pixel."""
    total = counts.sum()
    return counts * len(counts) / total if total > 0 else np.zeros(0)
