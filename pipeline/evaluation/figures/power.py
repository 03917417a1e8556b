"""How the variance is spread over scales, against the truth's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from pipeline.drawing import label_edges, log_scale, nothing, panel_title, panels
from pipeline.evaluation.figures.style import REFERENCE, field_style, in_order
from pipeline.factors import FactorPair

_DEPTH = 1e-6  # of the truth's largest power: -60 dB, as in the log-spectral distance


@dataclass(frozen=True)
class Spectra:
    """Radially averaged spectra of one pair.

    Attributes
    ----------
    pair : FactorPair
    power : mapping of str to ndarray
        Field (`truth`, `ensemble`, `mean`, `bicubic`, ...) -> (K,) power per ring of wavenumbers k = 1 to K,
        cycles per window, in the field's units squared. `ensemble`: the mean of the members' spectra.
    side : int
        Of a window, in pixels.
    pixel : float
        Size of a pixel in `unit`.
    unit : str
        Of wavelengths: `km`, or `pixels` with a pixel of 1.
    """

    pair: FactorPair
    power: Mapping[str, np.ndarray]
    side: int
    pixel: float = 1.0
    unit: str = "pixels"

    @property
    def wavelengths(self) -> np.ndarray:
        """(K,) in `unit`, decreasing."""
        count = len(next(iter(self.power.values()), ()))
        return self.side * self.pixel / np.arange(1, count + 1)


def spectra(all_spectra: Sequence[Spectra], units: str) -> Figure:
    """Draw power over wavelength, a panel per pair; small scales are on the right.

    What lies right of the grey line is finer than the coarse frame resolves (two coarse cells): all power
    there is the model's own.

    Parameters
    ----------
    all_spectra : sequence of Spectra
        All with the same unit of length.
    units : str
        Of the field.
    """
    names = in_order(name for one in all_spectra for name in one.power)
    legend = [Line2D([], [], **_style(name)) for name in names]
    if any(one.pair.space > 1 for one in all_spectra):
        legend.append(Line2D([], [], **REFERENCE, label="two coarse cells: the finest wave in LR"))
    figure, drawn = panels(len(all_spectra), "Radially averaged power spectra", legend, size=(3.2, 2.7))
    for axes, one in zip(drawn, all_spectra, strict=False):
        panel_title(axes, one.pair)
        _curves(axes, one, names)
    if all_spectra:
        label_edges(drawn, f"wavelength, {all_spectra[0].unit}", f"power per ring, ({units})²")
    return figure


def _curves(axes: Axes, one: Spectra, names: Sequence[str]) -> None:
    x = one.wavelengths
    shown = {name: np.where(power > 0, power, np.nan) for name, power in one.power.items()}
    values = np.concatenate([power[np.isfinite(power)] for power in shown.values()] or [np.zeros(0)])
    if not values.size:
        nothing(axes, "no power at any scale: all dry")
        return
    reference = shown.get("truth", values)
    top = float(np.nanmax(reference)) if np.isfinite(reference).any() else values.max()
    low = max(float(values.min()), _DEPTH * top)
    high = max(float(values.max()), 10 * low)
    for name in [name for name in names if name in shown]:
        axes.plot(x, shown[name], **_style(name), zorder=2 if name == "truth" else 3)
    log_scale(axes, "x", x[-1] / 1.06, x[0] * 1.06)
    axes.set_xlim(x[0] * 1.06, x[-1] / 1.06)
    log_scale(axes, "y", low / 1.3, high * 1.3)
    axes.yaxis.set_major_formatter(FuncFormatter(_power))
    if one.pair.space > 1:
        axes.axvline(2 * one.pair.space * one.pixel, **REFERENCE, zorder=1)


def _style(name: str) -> dict[str, Any]:
    """Give the arguments of a line: the truth's is wide, to be seen below an ensemble that agrees with it."""
    return field_style(name).drawn(linewidth=2.8 if name == "truth" else 1.6)


def _power(value: float, _: object) -> str:
    """Write a number of any size: 0.01, then powers of ten."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    steps, decade = f"{value:e}".split("e")
    factor = "" if float(steps) == 1 else rf"{float(steps):g} \cdot "
    return f"${factor}10^{{{int(decade)}}}$"
