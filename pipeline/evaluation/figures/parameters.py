"""The three scale-dependent hyperparameters against the factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.drawing import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    log_scale,
    mark,
    panel_title,
    panels,
)
from pipeline.factors import FactorPair, ScaleParameters, Scope

_COLOURS = (BLUE, ORANGE, GREEN, PINK, RED, SKY, BLACK)
_MARKERS = "osD^vP*"
_KINDS: tuple[tuple[str, str, Callable[[ScaleParameters], float]], ...] = (
    ("Noise amplitude", "beta", lambda one: one.beta),
    ("Context", "L, coarse frames", lambda one: float(one.context)),
    ("Power of f", "p (1: identity)", lambda one: one.conservation.power),
    ("Threshold of f", "theta (0: none)", lambda one: one.conservation.threshold),
)


def parameters_over_pairs(parameters: Mapping[FactorPair, ScaleParameters]) -> Figure:
    """Draw beta, L and f (its power and threshold) over the space factor, a line per time factor.

    Filled marks conserve per coarse cell, hollow ones per tile, crossed ones nothing.

    Parameters
    ----------
    parameters : mapping of FactorPair to ScaleParameters
    """
    times = sorted({pair.time for pair in parameters})
    colours: list[Any] = list(_COLOURS)
    if len(times) > len(colours):
        colours = colormaps["viridis"](np.linspace(0, 0.9, len(times))).tolist()
    legend: list[Any] = [
        mark(_MARKERS[i % len(_MARKERS)], colours[i], f"time factor {time}") for i, time in enumerate(times)
    ]
    scopes = {one.conservation.scope for one in parameters.values()}
    if Scope.CELL in scopes:
        legend.append(mark("o", "0.35", "kept per cell"))
    if Scope.TILE in scopes:
        legend.append(mark("o", "0.35", "kept per tile", hollow=True))
    if Scope.NONE in scopes:
        legend.append(mark("x", "0.35", "nothing kept"))
    title = "beta, L and f(x) = max(x^p - theta, 0) of the models that were scored"
    figure, drawn = panels(len(_KINDS) if parameters else 0, title, legend, size=(3.0, 2.6))
    if not parameters:
        return figure
    for axes, (name, label, value) in zip(drawn, _KINDS, strict=True):
        for i, time in enumerate(times):
            line = sorted(pair for pair in parameters if pair.time == time)
            x = [pair.space * 1.05 ** (i - (len(times) - 1) / 2) for pair in line]  # side by side
            y = [value(parameters[pair]) for pair in line]
            axes.plot(x, y, color=colours[i], linewidth=1, alpha=0.5)
            for at, height, pair in zip(x, y, line, strict=True):
                scope = parameters[pair].conservation.scope
                axes.plot(
                    at, height, "x" if scope is Scope.NONE else _MARKERS[i % len(_MARKERS)], color=colours[i],
                    markerfacecolor="white" if scope is Scope.TILE else colours[i], markersize=6.5,
                    markeredgewidth=1.4, clip_on=False, zorder=3,
                )  # fmt: skip
        panel_title(axes, name)
        axes.set_xlabel("space factor s", fontsize=9.5)
        axes.set_ylabel(label, fontsize=9.5)
        spaces = [pair.space for pair in parameters]
        log_scale(axes, "x", min(spaces) / 1.25, max(spaces) * 1.25)
        axes.set_xticks(_thinned(sorted(set(spaces))))
        _height(axes, label, [value(one) for one in parameters.values()])
    return figure


def _thinned(spaces: list[int]) -> list[int]:
    """Give the factors that can be written without touching: a third apart at least."""
    kept = spaces[:1]
    for space in spaces[1:]:
        if space >= 1.35 * kept[-1]:
            kept.append(space)
    return kept


def _height(axes: Any, label: str, values: list[float]) -> None:
    low, high = min(values), max(values)
    if label == "beta":
        room = max((high / low) ** 0.12, 1.15)
        log_scale(axes, "y", low / room, high * room)
        return
    if label.startswith("L"):
        axes.set_ylim(0, high * 1.12 + 0.3)
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    if label.startswith("p"):
        axes.set_ylim(min(0.9, low - 0.1 * (1 - low)), 1.01)
        return
    axes.set_ylim(-0.02 * max(high, 0.01), 1.12 * max(high, 0.01))
