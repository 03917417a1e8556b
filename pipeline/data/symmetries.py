"""The eight symmetries of the square, and which of them a field may be turned by."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import numpy as np
from torch import Tensor

from pipeline.store.field_store import FieldStore
from pipeline.store.grids import attributes_of

EVERY = tuple(range(8))
_FLIPS = tuple(range(4))

_COMPONENT_STANDARD_NAMES = ("eastward_", "northward_", "x_wind", "y_wind")
_COMPONENT_NAMES = ("u", "v", "uwnd", "vwnd", "ua", "va", "uas", "vas")
_COMPONENT_PARTS = ("u_component", "v_component", "eastward", "northward", "x_wind", "y_wind")


def turn(field: Tensor, symmetry: int) -> Tensor:
    """Turn (..., side, side) by a symmetry of the square: bits 1 and 2 mirror it, 4 transposes it."""
    if symmetry & 1:
        field = field.flip(-1)
    if symmetry & 2:
        field = field.flip(-2)
    return field.transpose(-1, -2) if symmetry & 4 else field


def grid_symmetries(store: FieldStore) -> tuple[int, ...]:
    """Tell by which symmetries the grid of a store lets windows be turned.

    All eight; without transposition where a pixel is not square, or the grid is one of degrees.
    """
    units = [str(attributes_of(store, axis).get("units", "")) for axis in ("y", "x")]
    if any(unit.startswith("degree") for unit in units) or not _is_square(store.y, store.x):
        return _FLIPS
    return EVERY


def vector_components(store: FieldStore) -> tuple[str, ...]:
    """Name the dynamic covariates that are components of a vector, such as the wind's."""
    return tuple(
        name
        for name in store.info.dynamics
        if _is_component(name, str(attributes_of(store, name).get("standard_name", "")))
    )


def symmetries_allowed(
    grid: tuple[int, ...], dynamics: Iterable[str], vectors: Collection[str]
) -> tuple[int, ...]:
    """Tell by which symmetries windows can be turned and still be of their kind.

    Parameters
    ----------
    grid : tuple of int
        See `grid_symmetries`.
    dynamics : iterable of str
        Dynamic covariates in use.
    vectors : collection of str
        See `vector_components`. With one of them in use nothing but the identity is left: turned, it would
        have to change its sign, or become the other component.
    """
    return EVERY[:1] if any(name in vectors for name in dynamics) else grid


def _is_component(name: str, standard_name: str) -> bool:
    name = name.lower()
    words = re.split(r"[^a-z]+", name)  # u10, v_100m, wind_u, 10u
    return (
        standard_name.startswith(_COMPONENT_STANDARD_NAMES)
        or any(word in _COMPONENT_NAMES for word in words)
        or any(part in name for part in _COMPONENT_PARTS)
    )


def _is_square(y: np.ndarray, x: np.ndarray) -> bool:
    if len(y) < 2 or len(x) < 2:
        return True
    down, across = (abs(float(axis[-1] - axis[0])) / (len(axis) - 1) for axis in (y, x))
    return bool(np.isclose(down, across, rtol=1e-3))
