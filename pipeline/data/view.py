"""The fine frames of one split: in memory if they fit, else by way of decoded chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline.data.chunk_cache import Pieces, shared_cache
from pipeline.data.splits import Segment
from pipeline.data.symmetries import EVERY, grid_symmetries, vector_components
from pipeline.store.field_store import FieldStore
from pipeline.store.layout import CHUNK


@dataclass(frozen=True)
class FieldView:
    """The fine frames of one split, and the covariates beside them.

    Attributes
    ----------
    values : ndarray or Pieces
        (time, y, x) float32, NaN where missing.
    offset : int
        Absolute index of the first frame.
    statics : Tensor
        (S, H, W) static covariates in the store's units.
    names : tuple of str
        Of the statics, in their order.
    dynamics : mapping of str to ndarray
        (time, y, x) dynamic covariates, where `values` is an array.
    blocks : tuple of int
        (time, y, x) of what is decoded at once.
    symmetries : tuple of int
        Those of the square that the grid lets windows be turned by.
    vectors : tuple of str
        Dynamic covariates that are components of a vector.
    """

    values: np.ndarray | Pieces
    offset: int
    statics: Tensor
    names: tuple[str, ...] = ()
    dynamics: Mapping[str, np.ndarray] = field(default_factory=dict)
    blocks: tuple[int, int, int] = CHUNK
    symmetries: tuple[int, ...] = EVERY
    vectors: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, store: FieldStore, segment: Segment, memory_gib: float, cache_gib: float = 1.0
    ) -> FieldView:
        """Open the frames of `segment`.

        Parameters
        ----------
        store : FieldStore
        segment : Segment
        memory_gib : float
            If the split, its dynamic covariates included, is not larger, it is read now.
        cache_gib : float
            Else so much is kept as decoded chunks, of all splits of a store together.
        """
        info, names = store.info, store.info.statics
        statics = torch.zeros(0, *store.shape[1:])
        if names:
            statics = torch.from_numpy(np.stack([store.static(name) for name in names]).astype(np.float32))
        values: np.ndarray | Pieces
        dynamics = {}
        size = 4 * len(segment) * store.shape[1] * store.shape[2] * (1 + len(info.dynamics))
        if size <= memory_gib * 2**30:
            values = store.read(segment.start, segment.stop)
            dynamics = {
                name: store.read(segment.start, segment.stop, variable=name) for name in info.dynamics
            }
        else:
            cache = shared_cache(store.url, info.fingerprint, int(cache_gib * 2**30))
            values = Pieces(store, segment, cache)
        return cls(
            values,
            segment.start,
            statics,
            names,
            dynamics,
            store.chunks,
            grid_symmetries(store),
            vector_components(store),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(time, y, x) of the frames."""
        frames, height, width = self.values.shape
        return frames, height, width

    def read(
        self,
        start: int,
        stop: int,
        rows: slice = slice(None),
        columns: slice = slice(None),
        variable: str | None = None,
    ) -> Tensor:
        """Read absolute frames [start, stop) as (T, h, w), NaN where missing.

        Parameters
        ----------
        start, stop : int
        rows, columns : slice
        variable : str, optional
            A dynamic covariate; none: the field.

        Raises
        ------
        IndexError
            If they are not all there (a negative index would quietly count from the end).
        """
        if start < self.offset or stop > self.offset + self.shape[0]:
            raise IndexError(f"frames {start} to {stop} are outside the view, which starts at {self.offset}")
        if isinstance(self.values, Pieces):
            return torch.from_numpy(self.values.read(start, stop, rows, columns, variable))
        values = self.values if variable is None else self.dynamics[variable]
        return torch.from_numpy(np.asarray(values[start - self.offset : stop - self.offset, rows, columns]))

    def static(self, name: str) -> Tensor:
        """Give a static covariate, (H, W) in the store's units.

        Raises
        ------
        ValueError
            If the view has none of that name.
        """
        return self.statics[self.names.index(name)]
