"""Which windows a rank trains on at which step, read ahead while the device computes."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.config import TrainingSettings
from pipeline.data.batch import Batch
from pipeline.data.windows import Windows
from pipeline.diffusion.noise import StepDraws, step_generator
from pipeline.errors import UserError
from pipeline.ranks import Ranks, part


@dataclass(frozen=True)
class MicroBatch:
    """Windows that go through the model at once, with the randomness that belongs to them."""

    batch: Batch
    draws: StepDraws


@dataclass(frozen=True)
class Feed:
    """A rank's part of every batch of a stage.

    Windows come in epochs: each once per epoch, in an order drawn from seed, stage and epoch. What a step
    gets is a function of its number, so a resumed training stands exactly where it was, whatever its ranks.

    Attributes
    ----------
    windows : Windows
    settings : TrainingSettings
    seed : int
    stage : str
    ranks : Ranks

    Raises
    ------
    UserError
        If a batch is too small for every rank to have a window in each micro-batch.
    """

    windows: Windows
    settings: TrainingSettings
    seed: int
    stage: str
    ranks: Ranks

    def __post_init__(self) -> None:
        check_batch(self.settings, self.ranks.world)

    def step(self, step: int) -> list[MicroBatch]:
        """Read this rank's windows of one step, as `accumulate` micro-batches."""
        mine, count = self.ranks.share(range(self.settings.batch)), self.settings.parallel.accumulate
        indices = self.indices(step)
        return [self._read(step, part(mine, k, count), indices) for k in range(count)]

    def steps(self, first: int, stop: int) -> Generator[list[MicroBatch], None, None]:
        """Read steps `first` to `stop` in a thread, `prefetch` of them ahead."""
        if not self.settings.parallel.prefetch:
            yield from map(self.step, range(first, stop))
            return
        waiting: deque[Future[list[MicroBatch]]] = deque()
        reader = ThreadPoolExecutor(1, thread_name_prefix="feed")
        try:
            for step in range(first, stop):
                while len(waiting) <= self.settings.parallel.prefetch and step + len(waiting) < stop:
                    waiting.append(reader.submit(self.step, step + len(waiting)))
                yield waiting.popleft().result()
        finally:
            reader.shutdown(wait=True, cancel_futures=True)

    def indices(self, step: int) -> np.ndarray:
        """Give the windows (batch,) of one step, all ranks together."""
        count, batch = len(self.windows), self.settings.batch
        drawn = range(step * batch, (step + 1) * batch)
        return np.array([_order(count, self.seed, self.stage, n // count)[n % count] for n in drawn])

    def _read(self, step: int, numbers: range, indices: np.ndarray) -> MicroBatch:
        draws = StepDraws(self.seed, self.stage, step, self.settings.batch, numbers)
        chosen = indices[numbers.start : numbers.stop]
        batch = self.windows.batch(chosen, draws.symmetries() if self.settings.augment else None)
        if self.ranks.device.type == "cuda":
            batch = batch.pinned()
        return MicroBatch(batch, draws)


def check_batch(settings: TrainingSettings, workers: int) -> None:
    """Refuse a batch that is too small for every worker to have a window in each micro-batch.

    Raises
    ------
    UserError
    """
    least = workers * settings.parallel.accumulate
    if settings.batch < least:
        raise UserError(
            f"training.batch: {settings.batch} windows are fewer than {workers} workers x "
            f"{settings.parallel.accumulate} micro-batches; give --set training.batch={least} or fewer of "
            "them"
        )


def micro_batch_size(settings: TrainingSettings, world: int) -> int:
    """Give the windows of the largest micro-batch."""
    return -(-settings.batch // (world * settings.parallel.accumulate))


@functools.lru_cache(maxsize=8)  # the epochs in use, of the stages and pairs of one process
def _order(count: int, seed: int, stage: str, epoch: int) -> np.ndarray:
    return torch.randperm(count, generator=step_generator(seed, stage, "epoch", epoch)).numpy()
