"""How fields and rain look in every figure of an evaluation: one colour per field, one scale per picture.

Colours are those of Okabe and Ito, which people with any kind of colour vision tell apart; fields differ in
line style or marker too.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike

from pipeline.drawing import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY, log_ticks

MISSING, _DRY = "0.72", "white"
REFERENCE: dict[str, Any] = {"color": "0.6", "linestyle": "-", "linewidth": 1.0}  # lines that are no field
_TICK, _MOST_TICKS = 0.3, 9  # inches between the numbers of a colour bar


@dataclass(frozen=True)
class FieldStyle:
    """How one field is drawn.

    Attributes
    ----------
    title : str
        What a reader calls it.
    colour, line, marker : str
        In matplotlib's words.
    """

    title: str
    colour: str
    line: str
    marker: str

    def drawn(self, **more: Any) -> dict[str, Any]:
        """Give the arguments of a line."""
        return {"color": self.colour, "linestyle": self.line, "label": self.title, "linewidth": 1.6} | more


_STYLES = {
    "truth": FieldStyle("Truth", BLACK, "-", "o"),
    "ensemble": FieldStyle("Ensemble", BLUE, "-", "o"),
    "mean": FieldStyle("Conditional mean", SKY, "-.", "D"),
    "nearest": FieldStyle("Nearest", "0.55", ":", "s"),
    "bicubic": FieldStyle("Bicubic", ORANGE, "--", "s"),
    "bicubic_conserved": FieldStyle("Bicubic, conserved", RED, "--", "^"),
    "bicubic_time_conserved": FieldStyle("Bicubic, linear in time, conserved", PINK, "-.", "v"),
    "quantile_mapping": FieldStyle("Quantile mapping", GREEN, ":", "P"),
    "published": FieldStyle("The paper's settings", BLACK, "-", "X"),
}


def field_style(name: str) -> FieldStyle:
    """Give the style of a field: `truth`, `ensemble`, `mean` or a baseline; unknown ones are grey."""
    return _STYLES.get(name, FieldStyle(name.replace("_", " "), "0.35", "-", "X"))


def in_order(names: Iterable[str]) -> list[str]:
    """Give fields in the order of legends: known ones first."""
    known = list(_STYLES)
    return sorted(set(names), key=lambda name: (known.index(name) if name in known else len(known), name))


def rain_colours() -> Colormap:
    """Give the colours of rain: white where dry, grey where missing."""
    return colormaps["viridis_r"].with_extremes(bad=MISSING, under=_DRY)


def rain_scale(images: Sequence[np.ma.MaskedArray], dry_below: float) -> LogNorm:
    """Give one scale for all images, from `dry_below` to nearly the largest value.

    A decade at least, so that drizzle looks weak.
    """
    values = np.concatenate([image.compressed() for image in images]) if images else np.zeros(0)
    high = float(np.quantile(values, 0.999)) if values.size else 0.0
    return LogNorm(dry_below, max(high, 10 * dry_below))


def image(values: ArrayLike, valid: ArrayLike) -> np.ma.MaskedArray:
    """Mask what is missing: (H, W) values and bool, True = valid."""
    field = np.asarray(values, dtype=np.float32)
    return np.ma.masked_where(~np.asarray(valid, dtype=bool) | ~np.isfinite(field), field)


def lifted(picture: np.ma.MaskedArray, dry_below: float) -> np.ma.MaskedArray:
    """Lift 0, which a logarithmic scale takes for missing, just off zero, into the colour of dry."""
    return np.ma.maximum(picture, dry_below * 1e-3)


def draw_rain(axes: Axes, picture: np.ma.MaskedArray, norm: LogNorm) -> Any:
    """Draw one image without ticks; gives the drawn image."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="0.4", linewidth=0.6)
    return axes.imshow(
        lifted(picture, float(norm.vmin or 0)),
        cmap=rain_colours(),
        norm=norm,
        interpolation="nearest",
        origin="upper",
    )


def rain_bar(figure: Figure, axes: Axes, drawn: Any, units: str, inches: float) -> None:
    """Draw the colour bar that holds for all images, in `axes` of this height."""
    bar = figure.colorbar(drawn, cax=axes, extend="both")
    bar.set_label(units, fontsize=10)
    ticks = log_ticks(drawn.norm.vmin, drawn.norm.vmax, min(max(5, int(inches / _TICK)), _MOST_TICKS))
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.tick_params(labelsize=9)


def to_png(figure: Figure) -> bytes:
    """Render a figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
