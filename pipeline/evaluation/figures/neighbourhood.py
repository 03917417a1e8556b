"""From which scale on rain is in the right place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipeline.drawing import label_edges, nothing, panel_title, panels
from pipeline.evaluation.figures.style import REFERENCE, field_style, in_order


@dataclass(frozen=True)
class FractionsSkill:
    """Fractions skill scores of one pair.

    Attributes
    ----------
    thresholds : sequence of float
        In the field's units.
    scales : sequence of int
        Sides of the neighbourhood, in pixels.
    scores : mapping of str to ndarray
        Field -> (thresholds, scales); NaN where there is nothing to score.
    base_rates : ndarray or None
        (thresholds,) share of the truth's pixels above each; gives the line of useful skill.
    pixel : float
        Size of a pixel in `unit`.
    unit : str
        `km`, or `pixels` with a pixel of 1.
    """

    thresholds: Sequence[float]
    scales: Sequence[int]
    scores: Mapping[str, np.ndarray]
    base_rates: np.ndarray | None = None
    pixel: float = 1.0
    unit: str = "pixels"


def fractions_skill(found: FractionsSkill, title: str, units: str) -> Figure:
    """Draw FSS over the neighbourhood's side, a panel per threshold; 1 is perfect.

    The grey line is the useful skill 0.5 + f / 2, f being the share of the truth above the threshold
    (Roberts and Lean 2008, doi:10.1175/2007MWR2123.1).

    Parameters
    ----------
    found : FractionsSkill
    title : str
    units : str
        Of the thresholds.
    """
    names = in_order(found.scores)
    legend: list[Any] = []
    for name in names:
        style = field_style(name)
        legend.append(Line2D([], [], **style.drawn(marker=style.marker, markersize=4.5)))
    if found.base_rates is not None:
        legend.append(Line2D([], [], **REFERENCE, label="useful: 0.5 + f / 2"))
    figure, drawn = panels(len(found.thresholds), title, legend, size=(2.7, 2.6))
    for i, (axes, threshold) in enumerate(zip(drawn, found.thresholds, strict=False)):
        panel_title(axes, f"above {threshold:g} {units}")
        _curves(axes, found, i, names)
    if len(found.thresholds):
        label_edges(drawn, f"side of the neighbourhood, {found.unit}", "fractions skill score")
    return figure


def _curves(axes: Axes, found: FractionsSkill, i: int, names: Sequence[str]) -> None:
    x = np.asarray(found.scales, dtype=float) * found.pixel
    if not any(np.isfinite(found.scores[name][i]).any() for name in names):
        nothing(axes, "no rain above it")
        return
    for name in names:
        style = field_style(name)
        axes.plot(x, found.scores[name][i], **style.drawn(marker=style.marker, markersize=4))
    if found.base_rates is not None and np.isfinite(found.base_rates[i]):
        axes.axhline(0.5 + found.base_rates[i] / 2, **REFERENCE, zorder=1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xscale("log")
    axes.set_xlim(x.min() / 1.2, x.max() * 1.2)
    axes.xaxis.set_major_locator(FixedLocator(x.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
