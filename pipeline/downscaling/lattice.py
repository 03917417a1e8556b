"""Tiles over a domain: where they lie, and how much each of them counts at every pixel.

The tiles lie on one fixed lattice, they overlap, and their weights add up to 1 at every pixel. So the
weighted sum of what the tiles say is the joined field, and a sum over the domain is that over the tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.factors import FactorPair


@dataclass(frozen=True)
class Tile:
    """One tile of a lattice.

    Attributes
    ----------
    y, x : slice
        Its fine pixels in the domain.
    down, across : np.ndarray
        (H',) and (W',), how much it counts in a row and in a column.
    total : np.ndarray or None
        (H, W) float32, what the weights of all tiles add up to; none: 1 everywhere.
    """

    y: slice
    x: slice
    down: np.ndarray
    across: np.ndarray
    total: np.ndarray | None = None

    @property
    def weights(self) -> np.ndarray:
        """(H', W') float32, how much it counts at its pixels."""
        weights = np.outer(self.down, self.across).astype(np.float32)
        if self.total is None:
            return weights
        # Where no weight is there is no field either.
        return weights / np.maximum(self.total[self.y, self.x], np.finfo(np.float32).tiny)

    @property
    def corner(self) -> tuple[int, int]:
        """Its first row and column."""
        return self.y.start, self.x.start


@dataclass(frozen=True)
class Lattice:
    """Overlapping tiles of one size over a domain.

    Attributes
    ----------
    height, width : int
        Fine pixels of the domain, multiples of the space factor.
    side : int
        Of a tile in fine pixels, a multiple of the space factor; on a smaller domain tiles are as wide as it.
    stride : int
        From one tile to the next, a multiple of the space factor.
    row, column : int
        Where on the lattice of the whole plane the domain begins, in fine pixels: tiles begin where these
        numbers are multiples of the stride, whatever part of an archive is refined. Only the first and the
        last ones are moved to the domain's edges.
    """

    height: int
    width: int
    side: int
    stride: int
    row: int = 0
    column: int = 0

    @classmethod
    def over(
        cls,
        height: int,
        width: int,
        side: int,
        overlap: float,
        pair: FactorPair,
        corner: tuple[int, int] = (0, 0),
    ) -> Lattice:
        """Lay tiles so that neighbours share this part of their side, in whole coarse cells.

        Parameters
        ----------
        height, width : int
        side : int
            Rounded down to whole cells, one at least.
        overlap : float
            In [0, 1).
        pair : FactorPair
        corner : (int, int)
            Absolute row and column of the domain's first pixel.
        """
        cells = max(1, side // pair.space)
        step = min(cells, max(1, math.floor(cells * (1 - overlap) + 1e-9)))
        row, column = (place // pair.space % step * pair.space for place in corner)
        return cls(height, width, cells * pair.space, step * pair.space, row, column)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every tile."""
        return min(self.side, self.height), min(self.side, self.width)

    @cached_property
    def _axes(self) -> tuple[list[int], np.ndarray, list[int], np.ndarray]:
        return (
            *_axis(self.height, self.shape[0], self.stride, self.row),
            *_axis(self.width, self.shape[1], self.stride, self.column),
        )

    def __len__(self) -> int:
        ys, _, xs, _ = self._axes
        return len(ys) * len(xs)

    def __iter__(self) -> Iterator[Tile]:
        """Give all tiles, row by row."""
        ys, down, xs, across = self._axes
        rows, columns = self.shape
        for y, by in zip(ys, down, strict=True):
            for x, bx in zip(xs, across, strict=True):
                yield Tile(slice(y, y + rows), slice(x, x + columns), by, bx)

    def where(self, wanted: np.ndarray) -> list[Tile]:
        """Give the tiles that touch wanted pixels, with weights that add up to 1 wherever there is one.

        Parameters
        ----------
        wanted : np.ndarray
            (H, W) bool.
        """
        tiles = [tile for tile in self if wanted[tile.y, tile.x].any()]
        if len(tiles) == len(self):
            return tiles
        total = np.zeros(wanted.shape, np.float32)
        for tile in tiles:
            total[tile.y, tile.x] += tile.weights
        return [replace(tile, total=total) for tile in tiles]


def _axis(length: int, side: int, stride: int, offset: int) -> tuple[list[int], np.ndarray]:
    """Give the starts (n,) of tiles along one axis, and their weights (n, side), which add up to 1.

    A tile's own weight falls as sin^2 from its middle to its edges, where the network sees least around it.
    """
    last = length - side
    starts = sorted({0, *range(-offset % stride, last, stride), last})
    bump = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + side] += bump
    return starts, np.stack([bump / total[start : start + side] for start in starts])
