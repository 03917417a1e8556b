"""How the variance within a window is spread over frequencies in time, against the truth's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipeline.drawing import label_edges, log_scale, nothing, panel_title, panels
from pipeline.evaluation.figures.style import REFERENCE, field_style, in_order
from pipeline.factors import FactorPair


@dataclass(frozen=True)
class TemporalSpectra:
    """Power by frequency in time of one pair.

    Attributes
    ----------
    pair : FactorPair
        With tau > 1.
    power : mapping of str to ndarray
        Field (`truth`, `ensemble`, `mean`, `bicubic`, ...) -> (tau // 2,) power at k = 1, 2, ... cycles per
        window, in the field's units squared. `ensemble`: the mean of the members' spectra.
    minutes : float
        Between two frames.
    """

    pair: FactorPair
    power: Mapping[str, np.ndarray]
    minutes: float

    @property
    def periods(self) -> np.ndarray:
        """(tau // 2,) in minutes, decreasing."""
        return self.pair.time * self.minutes / np.arange(1, self.pair.time // 2 + 1)


def temporal_spectra(all_spectra: Sequence[TemporalSpectra]) -> Figure:
    """Draw power relative to the truth's over the period, a panel per pair; fast changes are on the right.

    Below 1 a field is too steady, above 1 it flickers; at 0 stands what repeats one frame.

    Parameters
    ----------
    all_spectra : sequence of TemporalSpectra
    """
    names = [name for name in in_order(n for one in all_spectra for n in one.power) if name != "truth"]
    legend = [Line2D([], [], **_style(name)) for name in names]
    legend.append(Line2D([], [], **REFERENCE, label="as much change as in the truth"))
    figure, drawn = panels(len(all_spectra), "Power spectra in time", legend, size=(3.2, 2.7))
    for axes, one in zip(drawn, all_spectra, strict=False):
        panel_title(axes, one.pair)
        _curves(axes, one, names)
    if all_spectra:
        label_edges(drawn, "period, min", "power, truth = 1")
    return figure


def _curves(axes: Axes, one: TemporalSpectra, names: Sequence[str]) -> None:
    truth = one.power["truth"]
    if not (truth > 0).any():
        nothing(axes, "the truth does not change in time")
        return
    whole = np.where(truth > 0, truth, np.nan)
    shown = {name: one.power[name] / whole for name in names if name in one.power}
    x, values = one.periods, np.concatenate([np.ones(1), *shown.values()])
    values = values[np.isfinite(values)]
    axes.axhline(1.0, **REFERENCE, zorder=1)
    for name, ratios in shown.items():
        axes.plot(x, ratios, **_style(name), zorder=3)
    log_scale(axes, "x", x[-1] / 1.3, x[0] * 1.3)
    axes.set_xlim(x[0] * 1.3, x[-1] / 1.3)
    axes.xaxis.set_major_locator(FixedLocator(list(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    high = 1.1 * float(values.max())
    axes.set_ylim(-0.04 * high, high)  # what repeats a frame has no power at all


def _style(name: str) -> dict[str, Any]:
    """Give the arguments of a line with a marker: a pair that doubles the frames has one frequency."""
    return field_style(name).drawn(marker=field_style(name).marker, markersize=5)
