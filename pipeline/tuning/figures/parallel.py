"""All hyperparameters of all trials at once, as parallel coordinates.

Optuna's own goes through pyplot's global state and knows one study only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.drawing import DPI, log_ticks, nothing
from pipeline.factors import FactorPair, Scope
from pipeline.tuning.figures.points import TrialPoint, best_of, scored

_EDGES = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0)  # per cent above the pair's best, between colours
_SHADES = colormaps["viridis"](np.linspace(0, 0.97, len(_EDGES) + 1))
_TICKS = (0, 1, 2, 5, 10, 20, 50, 100)
_WORST = 300.0  # per cent; what is worse stands there too


@dataclass(frozen=True)
class _Axis:
    """One upright axis: where each trial crosses it, from 0 to 1, and its ticks."""

    label: str
    at: np.ndarray
    ticks: Sequence[tuple[float, str]]


def parallel_coordinates(trials: Mapping[FactorPair, Sequence[TrialPoint]]) -> Figure:
    """Draw every complete trial as a line through its parameters to its CRPS relative to its pair's best.

    Dark lines are good ones and lie on top; pruned and failed trials are left out.

    Parameters
    ----------
    trials : mapping
        In the order of the axis of pairs, from the top.
    """
    known: list[tuple[FactorPair, TrialPoint, float]] = []
    for pair, points in trials.items():
        best = best_of(points)
        for trial in scored(points):
            assert best is not None
            scale = abs(best.final) or 1.0
            known.append((pair, trial, 100 * (trial.final - best.final) / scale))
    known.sort(key=lambda one: one[2], reverse=True)  # the best last, on top
    pairs = [pair for pair in trials if any(pair == one[0] for one in known)]

    height = max(4.2, 1.2 + 0.3 * len(pairs))
    figure = Figure(figsize=(10.0, height), dpi=DPI)
    title = "Which parameters do the good trials share? Dark: close to the best of its pair"
    figure.suptitle(title, x=0.01, y=1 - 0.1 / height, ha="left", va="top", fontsize=12)
    axes = figure.add_axes((0.07, 0.3 / height, 0.86, 1 - 0.75 / height))
    axes.set_axis_off()
    if not known:
        nothing(axes, "no complete trial")
        return figure
    _draw(axes, _axes(pairs, known), np.array([excess for *_, excess in known]))
    return figure


def _draw(axes: Axes, upright: Sequence[_Axis], excess: np.ndarray) -> None:
    shade = np.searchsorted(_EDGES, excess, side="right")
    across = np.stack([one.at for one in upright], axis=1)  # (trials, axes)
    lines = [np.column_stack([np.arange(len(upright)), heights]) for heights in across]
    many = len(lines) > 300
    axes.add_collection(
        LineCollection(
            lines,
            colors=_SHADES[shade],
            linewidths=np.where(shade == 0, 1.6, 0.7 if many else 1.0),
            alpha=0.8,
        ),
        autolim=False,
    )
    for x, one in enumerate(upright):
        axes.plot([x, x], [0, 1], color="0.25", linewidth=1.0, zorder=3, clip_on=False)
        axes.text(x, 1.06, one.label, ha="center", va="bottom", fontsize=10)
        for y, text in one.ticks:
            axes.plot([x - 0.02, x], [y, y], color="0.25", linewidth=1.0, zorder=3, clip_on=False)
            axes.text(
                x - 0.035, y, text, ha="right", va="center", fontsize=9, zorder=4,
                bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8},
            )  # fmt: skip
    # The last axis is the key to the colours.
    edges = [_height_of(edge) for edge in (0.0, *_EDGES, _WORST)]
    for low, high, colour in zip(edges, edges[1:], _SHADES, strict=False):
        axes.fill_between(
            [len(upright) - 1, len(upright) - 0.95], low, high, color=colour, linewidth=0, zorder=3
        )
    axes.set(xlim=(-0.35, len(upright) - 0.9), ylim=(-0.03, 1.1))


def _axes(pairs: Sequence[FactorPair], known: Sequence[tuple[FactorPair, TrialPoint, float]]) -> list[_Axis]:
    parameters = [trial.parameters for _, trial, _ in known]
    f = [one.conservation for one in parameters]
    excess = [excess for *_, excess in known]
    scopes = [scope.value for scope in Scope if any(one.scope is scope for one in f)]
    betas = _numbers("beta", [one.beta for one in parameters], log=True)
    upright = [
        betas,
        _numbers("L", [one.context for one in parameters], whole=True),
        _numbers("p", [one.power for one in f]),
        _numbers("theta", [one.threshold for one in f]),
        _names("scope", [one.scope.value for one in f], scopes),
        _Axis(
            "CRPS above the\npair's best, %",
            np.array([_height_of(value) for value in excess]),
            [(_height_of(tick), f"{tick}") for tick in _TICKS] + [(1.0, f"≥{_WORST:g}")],
        ),
    ]
    if len(pairs) > 1:
        upright.insert(0, _names("pair", [str(pair) for pair, *_ in known], [str(pair) for pair in pairs]))
    return upright


def _numbers(label: str, values: Sequence[float], *, log: bool = False, whole: bool = False) -> _Axis:
    low, high = min(values), max(values)
    if low == high:
        return _Axis(label, np.full(len(values), 0.5), [(0.5, f"{low:.3g}")])
    if log:
        ticks = log_ticks(low, high, most=7)
        place = lambda value: math.log(value / low) / math.log(high / low)  # noqa: E731
    else:
        locator = MaxNLocator(12 if whole else 6, integer=whole, steps=[1, 2, 5, 10])
        ticks = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]
        place = lambda value: (value - low) / (high - low)  # noqa: E731
    return _Axis(
        label, np.array([place(value) for value in values]), [(place(tick), f"{tick:.3g}") for tick in ticks]
    )


def _names(label: str, values: Sequence[str], names: Sequence[str]) -> _Axis:
    """Place names from the top, and fan out the lines through each so that they do not hide one another."""
    centres = dict(zip(names, 1 - (np.arange(len(names)) + 0.5) / len(names), strict=True))
    half = min(0.06, 0.3 / len(names))
    at = np.empty(len(values))
    for name, centre in centres.items():
        members = [i for i, value in enumerate(values) if value == name]
        at[members] = centre + (np.linspace(half, -half, len(members)) if len(members) > 1 else 0.0)
    return _Axis(label, at, [(float(centre), name) for name, centre in centres.items()])


def _height_of(excess: float) -> float:
    """Place per cents above the best on the last axis: linear near 0, logarithmic above 1 %."""
    return math.log1p(min(excess, _WORST)) / math.log1p(_WORST)
