"""Where the windows of a split lie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import DataSettings
from pipeline.data.coarsen import block_mean, whole_cells
from pipeline.data.splits import Segment
from pipeline.data.view import FieldView
from pipeline.data.windows import Windows
from pipeline.errors import UserError
from pipeline.factors import FactorPair

_BAND_BYTES = 2**26  # of fine values looked at together


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
    `min_valid` of its fine values valid, at least `min_wet` of its cells wetter than `wet_threshold`. How wet
    it is, the mean of 1 - exp(-x / `saturation`) over its cells (Ravuri et al. 2021,
    doi:10.1038/s41586-021-03854-z), is kept with each window.

    The split is read in blocks of time, each once. If there are more places than `most_windows`, only some
    blocks are looked at, evenly spread over the split.

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
    search = _Search(view, pair, settings, dense)
    first = segment.start + (margin - 1) * pair.time
    found = [search.block(times) for times in search.blocks(first, segment.stop)]
    places = np.concatenate([places for places, _ in found] or [np.zeros((0, 3), np.int32)])
    if not len(places):
        patch = settings.patch
        raise UserError(
            f"factor pair {pair}: frames {segment.start} to {segment.stop} hold no window "
            f"of {patch} x {patch} pixels with {settings.min_valid:.0%} valid and {settings.min_wet:.0%} wet "
            "values; lower data.min_valid or data.min_wet, or give a longer period"
        )
    wetness = np.concatenate([wetness for _, wetness in found])
    return Windows(view, pair, context, settings.patch, places, wetness=wetness)


@dataclass(frozen=True)
class _Search:
    """How the places of a split are gone through; the arguments are those of `find_windows`."""

    view: FieldView
    pair: FactorPair
    settings: DataSettings
    dense: bool

    @property
    def step(self) -> int:
        """Pixels between corners."""
        s, patch = self.pair.space, self.settings.patch
        return max(s, patch // 2 // s * s) if self.dense else patch

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of corners."""
        patch = self.settings.patch
        down, across = (
            (size // self.pair.space * self.pair.space - patch) // self.step + 1
            for size in self.view.shape[1:]
        )
        return down, across

    def blocks(self, first: int, stop: int) -> Iterator[np.ndarray]:
        """Give the start times of targets in [first, stop) by blocks, those that are looked at."""
        tau, depth = self.pair.time, self.view.blocks[0]
        times = np.arange(first, stop - tau + 1, 1 if self.dense else tau)
        blocks = np.split(times, np.flatnonzero(np.diff(times // depth)) + 1) if len(times) else []
        places = len(times) * math.prod(self.grid)
        most = self.settings.most_windows
        if places <= most:
            yield from blocks
            return
        count = max(1, len(blocks) * most // places)
        for number in range(count):
            block = blocks[(2 * number + 1) * len(blocks) // (2 * count)]
            inside = block[block % depth + tau <= depth]  # what needs no other block
            yield inside if len(inside) else block

    def block(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the places (N, 3) int32 and their wetness (N,), in order of time, row and column."""
        tau, width = self.pair.time, self.view.shape[2]
        frames = int(times[-1] - times[0]) + tau
        down = self.grid[0]
        room = _BAND_BYTES // (4 * frames * width) - self.settings.patch
        band = max(1, min(down, room // self.step + 1))
        places, wetness = [np.zeros((0, 3), np.int32)], [np.zeros(0, np.float32)]
        for top in range(0, down, band):
            bottom = min(top + band, down)
            for time, corners, wet in self._band(times, top, bottom):
                chosen = np.empty((len(corners), 3), np.int32)
                chosen[:, 0], chosen[:, 1:] = time, (corners + np.array([top, 0])) * self.step
                keep = self._in_tiles(chosen)
                places.append(chosen[keep])
                wetness.append(wet[keep])
        found, amounts = np.concatenate(places), np.concatenate(wetness)
        order = np.lexsort(found.T[::-1])
        return found[order], amounts[order]

    def _band(self, times: np.ndarray, top: int, bottom: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Look at rows `top` to `bottom` of the corners: the usable ones, see `_usable`, per time."""
        tau, patch = self.pair.time, self.settings.patch
        whole = bottom == self.grid[0]
        rows = slice(top * self.step, None if whole else (bottom - 1) * self.step + patch)
        first = int(times[0])
        field = whole_cells(self.view.read(first, int(times[-1]) + tau, rows), self.pair)
        # A mean of dry values is dry, up to rounding.
        wet = torch.amax(field.nan_to_num(nan=0.0), dim=(1, 2)) > 0.99 * self.settings.wet_threshold
        for time in times.tolist():
            target = slice(time - first, time - first + tau)
            if self.settings.min_wet == 0 or bool(wet[target].any()):
                yield time, *self._usable(field[target])

    def _usable(self, field: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Give the corners (N, 2), in steps, of the usable patches of (tau, h, W), and their wetness (N,)."""
        s, patch, settings = self.pair.space, self.settings.patch, self.settings
        mask = torch.isfinite(field)
        coarse, known = block_mean(field, mask, self.pair)  # (1, h / s, W / s)
        valid = _window_means(mask.float().mean(dim=0), patch, self.step)
        cells = patch // s, self.step // s
        wet = _window_means((known & (coarse > settings.wet_threshold))[0].float(), *cells)
        usable = (valid >= settings.min_valid) & (wet >= settings.min_wet)
        amount = _window_means(-torch.expm1(-coarse[0].clamp(min=0) / settings.saturation), *cells)
        return torch.nonzero(usable).numpy(), amount[usable].numpy()

    def _in_tiles(self, places: np.ndarray) -> np.ndarray:
        """Tell which places lie wholly in one tile of the chessboard, of the colour that is wanted."""
        if not self.settings.split.tiles:
            return np.ones(len(places), bool)
        patch = self.settings.patch
        first, last = places[:, 1:] // (2 * patch), (places[:, 1:] + patch - 1) // (2 * patch)
        white = first.sum(axis=1) % 2 == 1
        return (first == last).all(axis=1) & (white != self.dense)


def _window_means(image: Tensor, side: int, step: int) -> Tensor:
    """Average every `side` x `side` window of an (H, W) image, `step` apart."""
    return torch.nn.functional.avg_pool2d(image[None, None], side, stride=step)[0, 0]
