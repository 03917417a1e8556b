"""Regular grids: their pixels, what their axes are measured in, and the finer grid inside their cells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from pipeline.errors import UserError
from pipeline.store import layout

if TYPE_CHECKING:
    from pipeline.store.field_store import FieldStore

_UNEVEN = 0.01  # of a pixel that steps may differ by: coordinates are often rounded to float32


def attributes_of(store: FieldStore, name: str) -> dict[str, Any]:
    """Read the CF attributes of an array of a store: its field, `y`, `x`, `crs`, a covariate."""
    return dict(zarr.open_array(layout.backend(store.url, read_only=True), path=name, mode="r").attrs)


def pixel_step(axis: np.ndarray) -> float:
    """Give the mean step of an axis of at least two pixel centres; negative where it falls."""
    return float(axis[-1] - axis[0]) / (len(axis) - 1)


def check_even(axis: np.ndarray, name: str, where: str) -> None:
    """Refuse an axis that has no pixel size.

    Parameters
    ----------
    axis : np.ndarray
        (n,) centres.
    name, where : str
        `y` or `x`, and what has it, for the message.

    Raises
    ------
    UserError
        If there is one value only, or steps differ by more than a hundredth.
    """
    if len(axis) < 2:
        raise UserError(f"{where}: one value of {name} only, from which no pixel size can be told; give more")
    step, steps = pixel_step(axis), np.diff(axis)
    if not step or np.abs(steps - step).max() > _UNEVEN * abs(step):
        raise UserError(
            f"{where}: {name} is not evenly spaced (steps from {steps.min():g} to {steps.max():g}); "
            "interpolate it to a regular grid first"
        )


def refined(axis: np.ndarray, factor: int) -> np.ndarray:
    """Give the centres of the `factor` equal parts of every pixel, (factor n,); their mean is its centre."""
    parts = (np.arange(factor) - (factor - 1) / 2) / factor * pixel_step(axis)
    return (axis[:, None] + parts).reshape(-1)  # (n, factor) to (n factor,)


def coarsened(axis: np.ndarray, factor: int) -> np.ndarray:
    """Give the centres of blocks of `factor` pixels, (n // factor,); a rest that fills none is left out."""
    whole = len(axis) // factor * factor
    return np.asarray(axis[:whole].reshape(-1, factor).mean(axis=1))


def edge_index(axis: np.ndarray) -> int:
    """Number an axis' first pixel as on an endless axis of such pixels that has an edge at 0.

    Parts of one grid agree in where they lie on it, rising or falling.
    """
    step = pixel_step(axis)
    # Edges lie on whole numbers of pixels, or on halves where centres do: neither is near to where this cuts.
    return math.floor((float(axis[0]) - step / 2) / step + 0.25)
