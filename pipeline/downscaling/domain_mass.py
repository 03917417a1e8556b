"""Mass conservation over a whole domain: what `conserve` does for one window, for fields of any size.

With the scopes `cell` (every coarse cell keeps its amount) and `none` nothing changes. With the scope `tile`
the one factor of a window becomes a smooth field of factors: with tile weights b_w that add up to 1,

    y = f(x) * sum_w b_w A_w / S_w,    A_w = sum b_w LR,    S_w = sum b_w f(x),

without seams. Every tile puts its weighted amount into the sum, sum b_w f(x) A_w / S_w = A_w, and all A_w add
up to the amount of LR: that of the domain is exact. Those of single tiles are not: where tiles overlap the
factors of the neighbours count too, so that sum b_w y differs from A_w (unless there is one tile, or all have
the same factor).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from pipeline.conservation import DRY, conserve, taper
from pipeline.downscaling.lattice import Lattice
from pipeline.factors import Conservation, FactorPair, Scope


def conserve_domain(
    field: np.ndarray,
    coarse: np.ndarray,
    known: np.ndarray,
    lattice: Lattice,
    pair: FactorPair,
    conservation: Conservation,
    *,
    scale: float,
    rows: int,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Conserve the amounts of one coarse frame, band by band.

    Parameters
    ----------
    field : np.ndarray
        (tau, H, W) float32 in physical units; negative values count as 0.
    coarse : np.ndarray
        (H / s, W / s) the coarse frame, same units.
    known : np.ndarray
        (H / s, W / s) bool.
    lattice : Lattice
        Of the tiles.
    pair : FactorPair
    conservation : Conservation
    scale : float
        The amount that x = 1 stands for in f(x).
    rows : int
        Fine rows of a band, a multiple of s.

    Yields
    ------
    rows : slice
    values : np.ndarray
        (tau, rows, W) float32, not negative; NaN in missing cells.
    """
    coarse = np.where(known, coarse, 0.0).astype(np.float32)
    by_tile = conservation.scope is Scope.TILE
    factors: list[float] = []
    even: list[float] = []
    if by_tile:
        factors, even = _tile_factors(field, coarse, known, lattice, pair, conservation, scale)
    for first in range(0, lattice.height, rows):
        band = slice(first, min(first + rows, lattice.height))
        cells = slice(band.start // pair.space, band.stop // pair.space)
        inside = spread(known[cells], pair)  # (rows, W)
        values = torch.from_numpy(np.array(field[:, band]))
        if by_tile:
            gain, spare = _joined(lattice, factors, even, band)
            tapered = taper(values.clamp(min=0) / scale, conservation).double().numpy()
            result = tapered * gain + spare * spread(coarse[cells], pair)
        else:
            amounts, there = (torch.from_numpy(np.array(part[cells]))[None, None] for part in (coarse, known))
            result = conserve(
                values[None], amounts, pair, conservation, scale=scale, coarse_mask=there
            )[0].numpy()  # fmt: skip
        yield band, np.where(inside, result, np.nan).astype(np.float32)


def _tile_factors(
    field: np.ndarray,
    coarse: np.ndarray,
    known: np.ndarray,
    lattice: Lattice,
    pair: FactorPair,
    conservation: Conservation,
    scale: float,
) -> tuple[list[float], list[float]]:
    """Give A_w / S_w of every tile; and 1 for those where only LR is wet, whose amount is spread evenly."""
    factors, even = [], []
    for tile in lattice:
        cells = tuple(slice(cut.start // pair.space, cut.stop // pair.space) for cut in (tile.y, tile.x))
        weights = tile.weights.astype(np.float64) * spread(known[cells], pair)
        amount = pair.time * float((weights * spread(coarse[cells], pair)).sum())
        values = torch.from_numpy(np.array(field[:, tile.y, tile.x]))
        tapered = taper(values.clamp(min=0) / scale, conservation).double().numpy()
        total = float((weights * tapered).sum())
        dry = total <= DRY
        factors.append(0.0 if dry else amount / total)
        even.append(1.0 if dry and amount > 0 else 0.0)
    return factors, even


def _joined(
    lattice: Lattice, factors: list[float], even: list[float], band: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Join the tiles' numbers to two fields (rows, W)."""
    gain, spare = (np.zeros((band.stop - band.start, lattice.width)) for _ in range(2))
    for tile, factor, evenly in zip(lattice, factors, even, strict=True):
        top, bottom = max(tile.y.start, band.start), min(tile.y.stop, band.stop)
        if top < bottom:
            weights = tile.weights[top - tile.y.start : bottom - tile.y.start]
            here = slice(top - band.start, bottom - band.start), tile.x
            gain[here] += weights * factor
            spare[here] += weights * evenly
    return gain, spare


def spread(cells: np.ndarray, pair: FactorPair) -> np.ndarray:
    """Give every fine pixel its cell's value, for fields of NumPy: (h, w) to (H, W)."""
    return cells.repeat(pair.space, axis=0).repeat(pair.space, axis=1)
