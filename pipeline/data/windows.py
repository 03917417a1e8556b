"""Windows of a field store: where they lie, and how they become batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import DataSettings
from pipeline.data.batch import Batch
from pipeline.data.coarsen import block_mean, whole_cells
from pipeline.data.splits import Segment
from pipeline.data.store import FieldStore
from pipeline.errors import UserError
from pipeline.factors import FactorPair


@dataclass(frozen=True)
class FieldView:
    """The fine frames of one split, read into memory if they fit, else window by window from the store.

    Attributes
    ----------
    values : array or zarr.Array
        (time, y, x) float32, NaN where missing.
    offset : int
        Absolute index of `values[0]`.
    statics : Tensor
        (S, H, W) standardised covariates.
    """

    values: Any
    offset: int
    statics: Tensor

    @classmethod
    def load(cls, store: FieldStore, segment: Segment, memory_gib: float) -> FieldView:
        """Open the frames of `segment`."""
        size = len(segment) * store.field.shape[1] * store.field.shape[2] * 4
        statics = _standardised([store.static(name) for name in store.info.statics], store.field.shape[1:])
        if size <= memory_gib * 2**30:
            return cls(np.asarray(store.field[segment.start : segment.stop]), segment.start, statics)
        return cls(store.field, 0, statics)

    def read(self, start: int, stop: int, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """Read absolute frames [start, stop) as (T, H, W), NaN where missing.

        Raises
        ------
        IndexError
            If they are not all there (a negative index would quietly count from the end).
        """
        if start < self.offset or stop > self.offset + self.values.shape[0]:
            raise IndexError(f"frames {start} to {stop} are outside the view, which starts at {self.offset}")
        return torch.from_numpy(
            np.asarray(self.values[start - self.offset : stop - self.offset, rows, columns])
        )


def _standardised(fields: list[np.ndarray], shape: tuple[int, int]) -> Tensor:
    if not fields:
        return torch.zeros(0, *shape)
    stacked = torch.from_numpy(np.stack(fields).astype(np.float32))
    mean, spread = stacked.mean(dim=(1, 2), keepdim=True), stacked.std(dim=(1, 2), keepdim=True)
    return (stacked - mean) / spread.clamp(min=1e-6)


@dataclass(frozen=True)
class Windows:
    """The windows of one split and pair.

    Attributes
    ----------
    view : FieldView
    pair : FactorPair
    context : int
        L.
    patch : int
        Side in fine pixels.
    places : ndarray
        (N, 3) int64: absolute index of the target's first fine frame, row and column.
    """

    view: FieldView
    pair: FactorPair
    context: int
    patch: int
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def with_context(self, context: int) -> Windows:
        """Give the same targets seen with another L."""
        return replace(self, context=context)

    def batch(self, indices: np.ndarray | list[int], symmetries: Sequence[int] | None = None) -> Batch:
        """Read windows and coarsen them.

        Parameters
        ----------
        indices : array of int
            (B,) into `places`.
        symmetries : sequence of int, optional
            One of the square's eight symmetries per window; none: windows as they are.
        """
        s, tau, side = self.pair.space, self.pair.time, self.patch
        fields, statics = [], []
        for number, (time, row, column) in enumerate(self.places[np.asarray(indices)].tolist()):
            rows, columns = slice(row, row + side), slice(column, column + side)
            field = self.view.read(time - (self.context - 1) * tau, time + tau, rows, columns)
            static = self.view.statics[:, rows, columns]
            if symmetries is not None:
                field, static = _turn(field, symmetries[number]), _turn(static, symmetries[number])
            fields.append(field)
            statics.append(static)
        field = torch.stack(fields)  # (B, L tau, side, side)
        mask = torch.isfinite(field)
        field = torch.where(mask, field, 0.0)
        coarse, coarse_mask = block_mean(field, mask, self.pair)  # (B, L, side / s, side / s)
        assert coarse.shape[1:] == (self.context, side // s, side // s)
        return Batch(
            fine=field[:, -tau:],
            mask=mask[:, -tau:],
            coarse=coarse,
            coarse_mask=coarse_mask,
            statics=torch.stack(statics),
            position=torch.from_numpy(self.places[np.asarray(indices)]),
        )


def _turn(field: Tensor, symmetry: int) -> Tensor:
    """Apply one of the eight symmetries of the square to (..., side, side)."""
    if symmetry & 1:
        field = field.flip(-1)
    if symmetry & 2:
        field = field.flip(-2)
    return field.transpose(-1, -2) if symmetry & 4 else field


def check_divides(pair: FactorPair, settings: DataSettings, height: int, width: int) -> None:
    """Refuse a pair that does not fit the patch or the grid.

    Raises
    ------
    UserError
        Naming the pair, the size and the remedy.
    """
    s, patch = pair.space, settings.patch
    if patch % s:
        around = {patch // s * s, (patch // s + 1) * s}
        near = sorted(side for side in around if side >= 8)  # the least `data.patch` there is
        raise UserError(
            f"factor pair {pair}: {s} does not divide the patch of {patch} pixels; "
            f"give --patch {' or '.join(map(str, near))}"
        )
    if min(height, width) < patch:
        raise UserError(
            f"factor pair {pair}: the grid of {height} x {width} pixels is smaller than the patch of {patch}"
            f"; give a --patch of at most {min(height, width) // s * s}"
        )
    if not settings.trim and (height % s or width % s):
        raise UserError(
            f"factor pair {pair}: {s} does not divide the grid of {height} x {width} pixels; "
            f"give --set data.trim=true to leave out the last {height % s} rows and {width % s} columns, "
            "or cut the grid"
        )


def find_windows(
    view: FieldView,
    segment: Segment,
    pair: FactorPair,
    settings: DataSettings,
    *,
    context: int,
    margin: int,
    dense: bool,
) -> Windows:
    """List the windows of a split with enough valid and wet values.

    The choice looks at the target's coarse frame only, which a user of the model has too: at least
    `min_valid` of its fine values valid, at least `min_wet` of its cells wetter than `wet_threshold`.

    Parameters
    ----------
    view : FieldView
    segment : Segment
    pair : FactorPair
    settings : DataSettings
    context : int
        L.
    margin : int
        Largest L in use: targets start late enough for it, so that they are the same for every L up to it.
    dense : bool
        Training: every start time, patches overlapping by half. Otherwise disjoint targets.

    Raises
    ------
    UserError
        If there is none.
    ValueError
        If L is above the margin: its context could lie in another split.
    """
    if context > margin:
        raise ValueError(
            f"context {context} is above {margin}, the largest that these windows leave room for"
        )
    tau, patch = pair.time, settings.patch
    step = max(pair.space, patch // 2 // pair.space * pair.space) if dense else patch
    places = []
    first = segment.start + (margin - 1) * tau
    for time in range(first, segment.stop - tau + 1, 1 if dense else tau):
        corners = _usable_corners(view.read(time, time + tau), pair, settings, step)
        if settings.split.tiles:
            corners = [c for c in corners if _on_chessboard(*c, patch, tile=2 * patch, white=not dense)]
        places += [(time, row, column) for row, column in corners]
    if not places:
        raise UserError(
            f"factor pair {pair}: frames {segment.start} to {segment.stop} hold no window "
            f"of {patch} x {patch} pixels with {settings.min_valid:.0%} valid and {settings.min_wet:.0%} wet "
            "values; lower data.min_valid or data.min_wet, or give a longer period"
        )
    return Windows(view, pair, context, patch, np.array(places, dtype=np.int64))


def _usable_corners(
    field: Tensor, pair: FactorPair, settings: DataSettings, step: int
) -> list[tuple[int, int]]:
    """Give the corners, `step` apart, of the patches of (tau, H, W) that are valid and wet enough."""
    field = whole_cells(field, pair)
    mask = torch.isfinite(field)
    coarse, known = block_mean(field, mask, pair)  # (1, h, w)
    s, patch = pair.space, settings.patch
    valid = _window_means(mask.float().mean(dim=0), patch, step)
    wet = _window_means((known & (coarse > settings.wet_threshold))[0].float(), patch // s, step // s)
    usable = torch.nonzero((valid >= settings.min_valid) & (wet >= settings.min_wet))  # (N, 2)
    return [(row * step, column * step) for row, column in usable.tolist()]


def _on_chessboard(row: int, column: int, patch: int, tile: int, *, white: bool) -> bool:
    """Tell whether a patch lies wholly in one tile of the wanted colour."""
    inside = row // tile == (row + patch - 1) // tile and column // tile == (column + patch - 1) // tile
    return inside and ((row // tile + column // tile) % 2 == 1) == white


def _window_means(image: Tensor, side: int, step: int) -> Tensor:
    """Average every `side` x `side` window of an (H, W) image, `step` apart."""
    return torch.nn.functional.avg_pool2d(image[None, None], side, stride=step)[0, 0]


def thin(windows: Windows, count: int, seed: int) -> Windows:
    """Keep at most `count` windows, drawn without replacement from `seed`, in their order."""
    if len(windows) <= count:
        return windows
    kept = np.random.Generator(np.random.Philox(seed)).choice(len(windows), size=count, replace=False)
    return replace(windows, places=windows.places[np.sort(kept)])
