"""Which windows a rank trains on at which step, read ahead while the device computes."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline.config import TrainingSettings
from pipeline.data.batch import Batch
from pipeline.data.chunk_cache import Pieces
from pipeline.data.importance import Importance
from pipeline.data.order import EpochOrder, Groups
from pipeline.data.symmetries import EVERY
from pipeline.data.windows import Windows
from pipeline.diffusion.noise import StepDraws
from pipeline.errors import UserError
from pipeline.ranks import Ranks, part

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MicroBatch:
    """Windows that go through the model at once, with the randomness that belongs to them."""

    batch: Batch
    draws: StepDraws


@dataclass(frozen=True)
class Feed:
    """A rank's part of every batch of a stage.

    Windows come in epochs: each once per epoch, or by importance, in an order drawn from seed, stage and
    epoch. What a step gets is a function of its number, so a resumed training stands exactly where it was,
    whatever its ranks and their memory.

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
        if self.ranks.main:
            for note in notes(self.windows, self.settings):
                _say(note)

    @functools.cached_property
    def order(self) -> EpochOrder:
        """What every epoch consists of, and in which order."""
        windows, settings = self.windows, self.settings
        whole = _gib(windows) <= settings.shuffle_gib
        groups = None if whole else Groups.by_chunk(windows, settings.pool_gib * 2**30)
        importance = None
        if settings.sampling == "wet":
            if windows.wetness is None or len(windows.wetness) != len(windows):
                raise ValueError("windows without their wetness cannot be sampled by it")
            importance = Importance.of(windows.wetness, settings.sampling_floor)
        return EpochOrder(len(windows), self.seed, self.stage, groups, importance)

    def step(self, step: int) -> list[MicroBatch]:
        """Read this rank's windows of one step, as `accumulate` micro-batches."""
        mine, count = self.ranks.share(range(self.settings.batch)), self.settings.parallel.accumulate
        indices = self.indices(step)
        return [self._read(step, part(mine, k, count), indices) for k in range(count)]

    def steps(self, first: int, stop: int) -> Generator[list[MicroBatch], None, None]:
        """Read steps `first` to `stop` in threads, `prefetch` of them ahead, and give them in order."""
        parallel = self.settings.parallel
        if not parallel.prefetch:
            yield from map(self.step, range(first, stop))
            return
        waiting: deque[Future[list[MicroBatch]]] = deque()
        readers = ThreadPoolExecutor(parallel.readers, thread_name_prefix="feed")
        try:
            for step in range(first, stop):
                while len(waiting) <= parallel.prefetch and step + len(waiting) < stop:
                    waiting.append(readers.submit(self.step, step + len(waiting)))
                yield waiting.popleft().result()
        finally:
            readers.shutdown(wait=True, cancel_futures=True)

    def indices(self, step: int) -> np.ndarray:
        """Give the windows (batch,) of one step, all ranks together."""
        batch = self.settings.batch
        return self.order.positions(step * batch, (step + 1) * batch)

    def _read(self, step: int, numbers: range, indices: np.ndarray) -> MicroBatch:
        draws = StepDraws(self.seed, self.stage, step, self.settings.batch, numbers)
        chosen = indices[numbers.start : numbers.stop]
        batch = self.windows.batch(chosen, self._turns(draws) if self.settings.augment else None)
        if self.order.importance is not None:
            weights = torch.from_numpy(self.order.importance.weights(chosen))
            batch = replace(batch, weights=weights)
        if self.ranks.device.type == "cuda":
            batch = batch.pinned()
        return MicroBatch(batch, draws)

    def _turns(self, draws: StepDraws) -> list[int]:
        allowed = self.windows.symmetries  # 8, 4 or 1 of them: each falls to as many draws
        return [allowed[number % len(allowed)] for number in draws.symmetries()]


def notes(windows: Windows, settings: TrainingSettings) -> list[str]:
    """Say in a line each what a user may not expect of a training on these windows."""
    said = []
    if settings.augment and len(windows.symmetries) < len(EVERY):
        said.append(
            "training.augment: windows are mirrored, not transposed, for a pixel of this grid is not square"
            if len(windows.symmetries) > 1
            else "training.augment: windows stay as they are, for a dynamic covariate is a vector's component"
        )
    if isinstance(windows.view.values, Pieces):
        kept, whole = windows.view.values.cache.capacity / 2**30, _gib(windows)
        needed = whole if whole <= settings.shuffle_gib else settings.pool_gib
        if kept < needed:
            said.append(
                f"data.cache_gib: {kept:.2g} GiB hold less than the {needed:.2g} GiB that "
                "windows are mixed over, so chunks are decoded again and again; raise it, or lower "
                f"training.{'shuffle_gib' if whole <= settings.shuffle_gib else 'pool_gib'}"
            )
    return said


@functools.cache
def _say(note: str) -> None:
    log.warning(note)


def _gib(windows: Windows) -> float:
    """Give the size of the split's field and of the dynamic covariates that are read with it."""
    fields = 1 + len(windows.covariates.dynamics)
    return 4 * fields * float(np.prod(windows.view.shape, dtype=np.float64)) / 2**30


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
