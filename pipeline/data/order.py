"""The order of an epoch: random, and yet kind to the chunks that a store is read in."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch

from pipeline.data.importance import Importance
from pipeline.data.windows import Windows
from pipeline.diffusion.noise import step_generator


@dataclass(frozen=True)
class Groups:
    """Windows whose targets begin in the same chunk, so that reading one makes the others cheap.

    Attributes
    ----------
    of : ndarray
        (N,) int32, each window's group, from 0 without a gap.
    count : int
    pool : int
        Groups whose windows are mixed with each other at a time.
    """

    of: np.ndarray
    count: int
    pool: int

    @classmethod
    def by_chunk(cls, windows: Windows, pool_bytes: float) -> Groups:
        """Group windows by the chunk that their target begins in.

        Parameters
        ----------
        windows : Windows
        pool_bytes : float
            What the chunks that a pool's windows lie in may take.
        """
        blocks = np.array(windows.view.blocks)
        numbers = windows.places.astype(np.int64) // blocks
        sizes = numbers.max(axis=0) + 1
        keys = (numbers[:, 0] * sizes[1] + numbers[:, 1]) * sizes[2] + numbers[:, 2]
        kept, of = np.unique(keys, return_inverse=True)
        return cls(of.reshape(-1).astype(np.int32), len(kept), max(1, int(pool_bytes / _reach(windows))))


def _reach(windows: Windows) -> int:
    """Give the bytes of the chunks that the windows of one group may lie in."""
    depth, tall, wide = windows.view.blocks
    tau, side = windows.pair.time, windows.patch
    frames, height, width = windows.view.shape
    past, ahead = (windows.context - 1) * tau, tau - 1
    chunks = min(1 + -(-past // depth) + -(-ahead // depth), -(-frames // depth))
    for chunk, size in ((tall, height), (wide, width)):
        chunks *= min(1 + -(-(side - 1) // chunk), -(-size // chunk))
    variables = 1 + len(windows.covariates.dynamics)
    return chunks * depth * tall * wide * 4 * variables


@dataclass(frozen=True)
class EpochOrder:
    """What an epoch consists of, and in which order: a function of seed, stage and number of the epoch.

    Without groups it is a plain shuffle. With groups, those are shuffled, and every window comes at a random
    moment while its group is one of `pool` in the pool: groups enter and leave one by one, and those at the
    end of the epoch are in the pool at its beginning too, so that all batches are mixed alike.

    Attributes
    ----------
    count : int
        N, the windows, and what an epoch has.
    seed : int
    stage : str
    groups : Groups, optional
    importance : Importance, optional
        Windows are drawn by it, instead of each once.
    """

    count: int
    seed: int
    stage: str
    groups: Groups | None = None
    importance: Importance | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _made: OrderedDict[int, np.ndarray] = field(default_factory=OrderedDict, repr=False, compare=False)

    def positions(self, start: int, stop: int) -> np.ndarray:
        """Give the windows at positions [start, stop) of all epochs one after the other."""
        parts = []
        while start < stop:
            epoch, first = divmod(start, self.count)
            last = min(self.count, first + stop - start)
            parts.append(self.epoch(epoch)[first:last])
            start += last - first
        return np.concatenate(parts).astype(np.int64)

    def epoch(self, number: int) -> np.ndarray:
        """Give the windows (N,) int32 of one epoch; the last two that were asked for are kept."""
        with self._lock:
            if number not in self._made:
                self._made[number] = self._make(number)
                while len(self._made) > 2:
                    self._made.popitem(last=False)
            return self._made[number]

    def _make(self, number: int) -> np.ndarray:
        generator = step_generator(self.seed, self.stage, "epoch", number)
        drawn = None
        if self.importance is not None:
            offset = float(torch.rand((), generator=generator, dtype=torch.float64))
            drawn = self.importance.draw(offset)
        groups = self.groups
        if groups is None or groups.pool >= groups.count:
            order = torch.randperm(self.count, generator=generator).numpy().astype(np.int32)
        else:
            turns = torch.randperm(groups.count, generator=generator).numpy()
            enters = turns[groups.of if drawn is None else groups.of[drawn]]  # (N,)
            waits = torch.rand(self.count, generator=generator, dtype=torch.float64).numpy()
            moments = (enters + waits * groups.pool) % groups.count
            order = np.argsort(moments, kind="stable").astype(np.int32)
        return order if drawn is None else drawn[order]


@dataclass(frozen=True)
class Mixing:
    """How well an order mixes.

    Attributes
    ----------
    variance : float
        Variance of the batches' mean wetness over that of a full shuffle: 1 is as good, more is worse.
    blocks : float
        Blocks of time that a batch has windows of, on average.
    blocks_shuffled : float
        The same for a full shuffle.
    """

    variance: float
    blocks: float
    blocks_shuffled: float

    @classmethod
    def of(cls, order: np.ndarray, windows: Windows, batch: int) -> Mixing:
        """Look at the whole batches of an epoch.

        Parameters
        ----------
        order : ndarray
            (N,) windows of one epoch.
        windows : Windows
            With their wetness.
        batch : int
            Windows per batch, at least 2 batches of them.
        """
        assert windows.wetness is not None
        shuffled = np.random.Generator(np.random.Philox(0)).permutation(order)
        wetness, times = windows.wetness.astype(np.float64), windows.places[:, 0] // windows.view.blocks[0]
        found = [_batches(each, wetness, times, batch) for each in (order, shuffled)]
        # Of a full shuffle the variance of a mean is known: that of single windows over their number.
        drawn = wetness[order]
        expected = drawn.var() / batch * (len(drawn) - batch) / max(1, len(drawn) - 1)
        return cls(float(found[0][0] / max(expected, 1e-300)), found[0][1], found[1][1])


def _batches(order: np.ndarray, wetness: np.ndarray, times: np.ndarray, batch: int) -> tuple[float, float]:
    """Give the variance of batches' mean wetness, and how many blocks of time they have on average."""
    whole = order[: len(order) // batch * batch].reshape(-1, batch)
    blocks = np.sort(times[whole], axis=1)
    distinct = 1 + (np.diff(blocks, axis=1) > 0).sum(axis=1)
    return float(wetness[whole].mean(axis=1).var()), float(distinct.mean())
