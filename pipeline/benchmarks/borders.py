"""Whether a field steps at the borders of tiles more than beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.downscaling.lattice import Lattice

_BESIDE = (-2, -1, 1, 2)  # cells from a tile border to the cell borders that it is compared with


@dataclass(frozen=True)
class Seam:
    """How much larger steps are at tile borders than beside them.

    Attributes
    ----------
    ratio : float
        1 where nothing is to be seen of the tiles; NaN where there is nothing to compare.
    error : float
        Its standard error.
    """

    ratio: float
    error: float

    def __str__(self) -> str:
        return "-" if math.isnan(self.ratio) else f"{self.ratio:.2f} ({self.error:.2f})"


def seam(difference: np.ndarray, lattice: Lattice, cell: int) -> Seam:
    """Compare steps at tile borders with those at the cell borders beside them.

    A field that keeps the amount of every cell steps at cell borders anyway, and rain differs from place to
    place. So, with S_b the sum of |step| over the n_b pairs of neighbouring pixels that border b parts,
    rows and columns alike, and m_b the mean |step| at the cell borders within two cells of b that are no tile
    borders,

        ratio = sum_b S_b / sum_b n_b m_b,

    where steps are those of the difference to a field drawn in one piece, in which no rain is seen. Its
    standard error is the jackknife's over borders (Efron and Stein 1981, doi:10.1214/aos/1176345462).

    Parameters
    ----------
    difference : np.ndarray
        (tau, H, W), NaN where missing.
    lattice : Lattice
        A tile border is where a tile begins or ends inside the domain.
    cell : int
        Fine pixels along a side of a coarse cell.
    """
    found: list[tuple[float, float]] = []
    for axis, borders in zip((1, 2), tile_borders(lattice), strict=True):
        total, pairs = steps(difference, axis)
        length = difference.shape[axis]
        for b in borders:
            around = [b + k * cell for k in _BESIDE]
            near = [p for p in around if 0 < p < length and p not in borders]
            among = sum(pairs[near])
            if pairs[b] and among:
                found.append((total[b], pairs[b] * sum(total[near]) / among))
    at, beside = np.array(found).reshape(-1, 2).T
    if not beside.sum() > 0 or len(at) < 2:
        return Seam(math.nan, math.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (at.sum() - at) / (beside.sum() - beside)
    spread = (len(at) - 1) * without.var()
    return Seam(float(at.sum() / beside.sum()), math.sqrt(spread))


def tile_borders(lattice: Lattice) -> tuple[list[int], list[int]]:
    """Give the rows and the columns inside the domain at which a tile begins or ends."""
    rows = {end for tile in lattice for end in (tile.y.start, tile.y.stop)}
    columns = {end for tile in lattice for end in (tile.x.start, tile.x.stop)}
    return sorted(rows - {0, lattice.height}), sorted(columns - {0, lattice.width})


def steps(field: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum |field at p - field at p - 1| over all pixels whose place on an axis is p, and count them.

    Parameters
    ----------
    field : np.ndarray
        (tau, H, W), NaN where missing.
    axis : {1, 2}

    Returns
    -------
    total, pairs : np.ndarray
        (H,) or (W,), 0 at p = 0.
    """
    size = np.abs(np.diff(field.astype(np.float64), axis=axis))
    others = (0, 3 - axis)
    total, pairs = np.nansum(size, axis=others), np.isfinite(size).sum(axis=others)
    return np.pad(total, (1, 0)), np.pad(pairs, (1, 0))
