"""Coarse frames: those of a store, or made of the fine frames of one as training windows are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.data.coarsen import block_mean
from pipeline.factors import FactorPair
from pipeline.store.field_store import FieldStore
from pipeline.store.frame_rows import present_in
from pipeline.store.grids import coarsened, edge_index, refined

_BAND_VALUES = 2**24  # fine values that are coarsened together


@dataclass(frozen=True, eq=False)
class Archive:
    """The coarse frames that a store holds or, with `coarsen`, that its fine frames make.

    Times are the ends of intervals. With `coarsen`, coarse frame k is the mean of the fine frames
    [k tau, (k + 1) tau) of the store and has the time of the last of them.

    Attributes
    ----------
    store : FieldStore
    pair : FactorPair
    coarsen : bool
        The store is fine.
    factor : float
        What turns its values into the model's units.
    """

    store: FieldStore
    pair: FactorPair
    coarsen: bool = False
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Coarse frames, and rows and columns of cells."""
        frames, height, width = self.store.shape
        if not self.coarsen:
            return frames, height, width
        return frames // self.pair.time, height // self.pair.space, width // self.pair.space

    @property
    def cadence_seconds(self) -> float:
        """Time between fine frames."""
        cadence = self.store.info.cadence_seconds
        return cadence if self.coarsen else cadence / self.pair.time

    @cached_property
    def times(self) -> np.ndarray:
        """(n,) datetime64[s], the end of each coarse frame."""
        if not self.coarsen:
            return self.store.times
        return self.store.times[self.pair.time - 1 :: self.pair.time]

    @cached_property
    def present(self) -> np.ndarray:
        """(n,) bool: not in a gap; of fine frames, at least half of a coarse frame's are not."""
        there = present_in(self.store.info)
        if not self.coarsen:
            return there
        tau = self.pair.time
        return 2 * there[: self.shape[0] * tau].reshape(-1, tau).sum(axis=1) >= tau

    @cached_property
    def y(self) -> np.ndarray:
        """(h,) centres of the rows of cells."""
        return coarsened(self.store.y, self.pair.space) if self.coarsen else self.store.y

    @cached_property
    def x(self) -> np.ndarray:
        """(w,) centres of the columns of cells."""
        return coarsened(self.store.x, self.pair.space) if self.coarsen else self.store.x

    @cached_property
    def fine_y(self) -> np.ndarray:
        """(s h,) centres of the rows of fine pixels."""
        return self._fine(self.store.y, self.shape[1])

    @cached_property
    def fine_x(self) -> np.ndarray:
        """(s w,) centres of the columns of fine pixels."""
        return self._fine(self.store.x, self.shape[2])

    def _fine(self, axis: np.ndarray, cells: int) -> np.ndarray:
        return axis[: cells * self.pair.space] if self.coarsen else refined(axis, self.pair.space)

    @cached_property
    def corner(self) -> tuple[int, int]:
        """Absolute row and column of the first fine pixel, see `edge_index`."""
        return edge_index(self.fine_y), edge_index(self.fine_x)

    def read(self, start: int, stop: int, rows: slice, columns: slice, variable: str | None = None) -> Tensor:
        """Read coarse frames [start, stop) of some cells.

        Parameters
        ----------
        start, stop : int
            Frames before the first one are missing.
        rows, columns : slice
            Of cells, with both ends.
        variable : str, optional
            A dynamic covariate, in the store's units; none: the field, in the model's.

        Returns
        -------
        Tensor
            (stop - start, h', w') float32, NaN where missing.
        """
        first = max(start, 0)
        get = self._coarsened if self.coarsen else self._stored
        values = get(first, max(stop, first), rows, columns, variable)
        if variable is None and self.factor != 1:
            values = values * self.factor
        before = values.new_full((first - start, *values.shape[1:]), math.nan)
        return torch.cat([before, values]) if len(before) else values

    def _stored(self, start: int, stop: int, rows: slice, columns: slice, variable: str | None) -> Tensor:
        return torch.from_numpy(self.store.read(start, stop, rows, columns, variable))

    def _coarsened(self, start: int, stop: int, rows: slice, columns: slice, variable: str | None) -> Tensor:
        """Read fine frames in bands of rows, so that memory is that of the coarse ones, and coarsen them."""
        s, tau, wide = self.pair.space, self.pair.time, columns.stop - columns.start
        out = torch.empty(stop - start, rows.stop - rows.start, wide)
        band = max(1, _BAND_VALUES // max(1, (stop - start) * self.pair.pixels_per_cell * wide))
        across = slice(columns.start * s, columns.stop * s)
        for top in range(rows.start, rows.stop, band):
            bottom = min(top + band, rows.stop)
            down = slice(top * s, bottom * s)
            frames = torch.from_numpy(self.store.read(start * tau, stop * tau, down, across, variable))
            values, known = block_mean(frames, torch.isfinite(frames), self.pair)
            out[:, top - rows.start : bottom - rows.start] = torch.where(known, values, math.nan)
        return out
