"""Sampling a whole domain as one field: tiles are denoised one by one, and joined after every step.

Every step of the sampler needs the clean field that the network predicts. It is predicted tile by tile, and
joined by the tiles' weights (MultiDiffusion, Bar-Tal et al. 2023, equation 5): overlapping tiles go on from
one common field, and end in it without seams. What is joined does not depend on how many tiles are
denoised at once, nor on who does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.config import SamplingSettings
from pipeline.data.batch import Batch
from pipeline.diffusion.noise import field_noise
from pipeline.diffusion.samplers import SAMPLERS, Update, combine
from pipeline.downscaling.lattice import Lattice, Tile
from pipeline.downscaling.scratch import Scratch
from pipeline.models.family import Look, SuperResolutionModel

_BAND = 64  # fine rows that are updated at once: any number gives the same fields


class Frame(Protocol):
    """One coarse frame with its context, as far as sampling sees it."""

    def batch(self, corners: Sequence[tuple[int, int]], shape: tuple[int, int]) -> Batch:
        """Cut out windows of this shape at fine rows and columns."""
        ...

    def position(self, y: int, x: int) -> tuple[int, int, int]:
        """Give the absolute indices of the first fine frame, a row and a column."""
        ...

    def wet(self) -> np.ndarray:
        """Tell which fine pixels lie in wet cells of the frame that is refined, (H, W) bool."""
        ...


@dataclass(frozen=True)
class JointSampler:
    """Draws members of whole domains.

    Attributes
    ----------
    model : SuperResolutionModel
        In evaluation mode, on `device`.
    lattice : Lattice
    sampling : SamplingSettings
        Sampler and number of evaluations.
    seed : int
    device : torch.device
    batch : int
        Fields (tiles times members) that are denoised at once.
    precision : torch.dtype
        What the networks compute in.
    even : bool
        Always denoise as many at once, for compiled networks: the last ones with copies.
    """

    model: SuperResolutionModel
    lattice: Lattice
    sampling: SamplingSettings
    seed: int
    device: torch.device
    batch: int = 16
    precision: torch.dtype = torch.float32
    even: bool = False

    @torch.no_grad()
    def draw(self, frame: Frame, members: Sequence[int], scratch: Scratch) -> np.ndarray:
        """Draw members of one coarse frame, in physical units, not yet conserving.

        A tile whose cells are all dry or missing comes out dry (`SuperResolutionModel.finish`): the network
        is not asked about it, which for rain is most of what a large domain would cost.

        Parameters
        ----------
        frame : Frame
        members : sequence of int
            Their numbers.
        scratch : Scratch
            Where whole fields are kept.

        Returns
        -------
        np.ndarray
            (members, tau, H, W) float32, in `scratch`.
        """
        tau, (H, W) = self.model.spec.pair.time, (self.lattice.height, self.lattice.width)
        tiles = self.lattice.where(frame.wet())
        centre, contexts = self._look(frame, tiles, scratch)
        noisy, clean, previous = (scratch.zeros((len(members), tau, H, W)) for _ in range(3))
        for band in self._bands(scratch):
            noisy[:, :, band] = self._noise(frame, members, band, draw=0)
        updates = SAMPLERS[self.sampling.sampler](self.model.schedule, self.sampling.steps)
        for k, update in enumerate(updates):
            self._denoise(frame, update.time, noisy, centre, tiles, contexts, clean, scratch)
            for band in self._bands(scratch):
                fresh = self._noise(frame, members, band, draw=k + 1) if update.fresh else None
                noisy[:, :, band] = _combined(update, noisy, clean, previous, fresh, band)
                previous[:, :, band] = 0  # the next step's tiles are added up here
            clean, previous = previous, clean
        for band in self._bands(scratch):
            middle = self._there(centre[:, band]).expand(len(members), -1, -1, -1)
            noisy[:, :, band] = self.model.compose(middle, self._there(noisy[:, :, band])).cpu().numpy()
        return noisy

    def _look(self, frame: Frame, tiles: Sequence[Tile], scratch: Scratch) -> tuple[np.ndarray, Tensor]:
        """Join the centres of the tiles, (tau, H, W), and keep each one's context, (N, ...)."""
        lattice, contexts = self.lattice, []
        centre = scratch.zeros((self.model.spec.pair.time, lattice.height, lattice.width))
        for new, group in self._groups(tiles, self.batch):
            batch = frame.batch([tile.corner for tile in group], lattice.shape).to(self.device)
            with self._computing():
                look = self.model.look(batch)
            for tile, one in zip(group[:new], look.centre.float().cpu().numpy(), strict=False):
                centre[:, tile.y, tile.x] += tile.weights * one
            contexts.append(look.context[:new])
            scratch.rest()
        return centre, torch.cat(contexts) if contexts else torch.zeros(0)

    def _denoise(
        self,
        frame: Frame,
        time: int,
        noisy: np.ndarray,
        centre: np.ndarray,
        tiles: Sequence[Tile],
        contexts: Tensor,
        clean: np.ndarray,
        scratch: Scratch,
    ) -> None:
        """Predict the clean field of every tile, and add the predictions up in `clean`."""
        lattice, members = self.lattice, len(noisy)
        first = 0
        for new, group in self._groups(tiles, max(1, self.batch // members)):
            batch = frame.batch([tile.corner for tile in group], lattice.shape).last_frame().to(self.device)
            middle = np.stack([centre[:, tile.y, tile.x] for tile in group])  # (B, tau, H', W')
            context = contexts[first : first + new]
            context = torch.cat([context, context[-1:].expand(len(group) - new, *context.shape[1:])])
            first += new
            cut = np.stack([noisy[:, :, tile.y, tile.x] for tile in group])  # (B, M, tau, H', W')
            with self._computing():
                guide = self.model.guide(batch, Look(self._there(middle), context), members)
                predicted = guide(self._there(cut).flatten(0, 1), time).float()
            answers = predicted.unflatten(0, (len(group), members)).cpu().numpy()
            for tile, one in zip(group[:new], answers, strict=False):
                clean[:, :, tile.y, tile.x] += tile.weights * one
            scratch.rest()

    def _groups(self, tiles: Sequence[Tile], size: int) -> Iterator[tuple[int, list[Tile]]]:
        """Give a few tiles at a time, and how many of them are new; the rest are copies of the last."""
        for first in range(0, len(tiles), size):
            group = list(tiles[first : first + size])
            yield len(group), group + group[-1:] * (size - len(group) if self.even else 0)

    def _noise(self, frame: Frame, members: Sequence[int], band: slice, draw: int) -> np.ndarray:
        """(M, tau, rows, W) noise of the place."""
        time, row, column = frame.position(band.start, 0)
        shape = (self.model.spec.pair.time, band.stop - band.start, self.lattice.width)
        fields = [
            field_noise(self.seed, member, time=time, y=row, x=column, shape=shape, draw=draw)
            for member in members
        ]
        return torch.stack(fields).numpy()

    def _bands(self, scratch: Scratch) -> Iterator[slice]:
        for first in range(0, self.lattice.height, _BAND):
            yield slice(first, min(first + _BAND, self.lattice.height))
            scratch.rest()

    def _there(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def _computing(self) -> torch.autocast:
        half = self.precision is not torch.float32
        return torch.autocast(self.device.type, self.precision if half else None, enabled=half)


def _combined(
    update: Update,
    noisy: np.ndarray,
    clean: np.ndarray,
    previous: np.ndarray,
    fresh: np.ndarray | None,
    band: slice,
) -> np.ndarray:
    x, now, before = (torch.from_numpy(np.array(field[:, :, band])) for field in (noisy, clean, previous))
    return combine(update, x, now, before, None if fresh is None else torch.from_numpy(fresh)).numpy()
