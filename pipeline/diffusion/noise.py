"""Gaussian noise that belongs to a place: keyed by seed, member, time and absolute position.

The same pixel of the same member gets the same noise whatever the batch, the rank or the tile it is computed
in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.diffusion.process import draw_times

_BLOCK = 32  # side of the blocks that are drawn whole; any value works, changing it changes every ensemble


def field_noise(
    seed: int, member: int, *, time: int, y: int, x: int, shape: tuple[int, int, int], draw: int = 0
) -> Tensor:
    """Draw standard normal noise for a box of space-time.

    Parameters
    ----------
    seed, member : int
        The ensemble's seed and the member's number.
    time, y, x : int
        Absolute index of the box's first fine frame, row and column.
    shape : (int, int, int)
        (tau, H, W).
    draw : int
        Number of the draw, for samplers that add noise at every step.

    Returns
    -------
    Tensor
        (tau, H, W) float32; two overlapping boxes agree where they overlap.
    """
    frames, height, width = shape
    row, column = y // _BLOCK, x // _BLOCK
    rows, columns = -(-(y + height) // _BLOCK) - row, -(-(x + width) // _BLOCK) - column
    out = np.empty((frames, rows * _BLOCK, columns * _BLOCK), dtype=np.float32)
    for t in range(frames):
        for i in range(rows):
            for j in range(columns):
                block = _block(seed, member, draw, time + t, row + i, column + j)
                out[t, i * _BLOCK : (i + 1) * _BLOCK, j * _BLOCK : (j + 1) * _BLOCK] = block
    top, left = y - row * _BLOCK, x - column * _BLOCK
    return torch.from_numpy(out[:, top : top + height, left : left + width].copy())


def _block(*key: int) -> np.ndarray:
    digest = hashlib.blake2b(np.array(key, dtype=np.int64).tobytes(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64)))
    return generator.standard_normal((_BLOCK, _BLOCK), dtype=np.float32)


def step_generator(seed: int, *key: int | str) -> torch.Generator:
    """Make the generator of one training step: its randomness comes from its number alone.

    So a resumed training needs no stored random state.
    """
    text = "/".join(str(part) for part in (seed, *key))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
    return torch.Generator().manual_seed(number)


@dataclass(frozen=True)
class StepDraws:
    """The randomness of one training step, for some of the windows of its batch.

    What a window gets depends on its number in the whole batch, not on the rank or the micro-batch it is in.

    Attributes
    ----------
    seed : int
    stage : str
    step : int
    batch : int
        Windows in the whole batch.
    numbers : range
        Those of the windows here.
    """

    seed: int
    stage: str
    step: int
    batch: int
    numbers: range

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal values (B, *shape), B the windows here."""
        return torch.stack([torch.randn(shape, generator=self._of("noise", n)) for n in self.numbers])

    def times(self, steps: int) -> Tensor:
        """Draw (B,) times in [0, steps), stratified over the whole batch."""
        drawn = draw_times(self.batch, steps, self._of("times"))
        return drawn[self.numbers.start : self.numbers.stop]

    def symmetries(self) -> list[int]:
        """Draw one of the eight symmetries of the square per window."""
        return [int(torch.randint(8, (), generator=self._of("symmetry", n))) for n in self.numbers]

    def _of(self, *key: int | str) -> torch.Generator:
        return step_generator(self.seed, self.stage, self.step, *key)
