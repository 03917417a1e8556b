"""How fast windows are read, how well they are mixed, and whether a training ever waits for them."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.benchmarks.pair import the_pair
from pipeline.config import Config, TrainingSettings
from pipeline.data.chunk_cache import ChunkCache, Pieces
from pipeline.data.dataset import open_dataset
from pipeline.data.order import Mixing
from pipeline.data.pair_data import PairData
from pipeline.data.splits import Segment
from pipeline.data.windows import Windows
from pipeline.factors import FactorPair
from pipeline.models.families import build_model, family_stages
from pipeline.models.family import ModelSpec
from pipeline.prior import paper_prior
from pipeline.ranks import Ranks
from pipeline.store.field_store import FieldStore
from pipeline.training.feed import Feed
from pipeline.training.loop import train_stage

_FRAMES, _SIDE = 6, 64  # of the windows that are read
_WINDOWS = 4096  # per round and way of reading

Read = Callable[[np.ndarray], Iterator[Any]]
"""Reads windows, given by their number, one after the other or in batches."""


@dataclass(frozen=True)
class LoaderSpeed:
    """Windows per second of each way of reading, the mixing of epochs, and what reading costs a training.

    Attributes
    ----------
    pair : FactorPair
    windows : int
        Read per round.
    rates : dict
        Windows per second in each round, by way of reading; empty if it is not installed.
    mixing : Mixing
        Of the first epoch.
    batch : int
    cache, split : int
        Bytes: what may be kept, and what there is.
    busy : tuple of float
        Steps per second read through the cache over steps per second from memory, per round.
    steps : int
        Of each of those trainings.
    """

    pair: FactorPair
    windows: int
    rates: dict[str, list[float]]
    mixing: Mixing
    batch: int
    cache: int
    split: int
    busy: tuple[float, ...]
    steps: int

    def __str__(self) -> str:
        plain = statistics.median(self.rates["xarray"])
        lines = [
            f"loader: {self.windows} windows of {_FRAMES} x {_SIDE} x {_SIDE} per round, from a split of "
            f"{self.split / 2**20:.0f} MiB, with {self.cache / 2**20:.0f} MiB of decoded chunks"
        ]
        for name, found in self.rates.items():
            if not found:
                lines.append(f"  {name:<26} not installed: pip install {name}")
                continue
            rate = statistics.median(found)
            lines.append(
                f"  {name:<26}{rate:9.0f} windows/s ({min(found):.0f} to {max(found):.0f} in {len(found)} "
                f"rounds): {rate / plain:6.1f} times xarray"
            )
        mixing, busy = self.mixing, statistics.median(self.busy)
        lines += [
            f"  mixing: variance of the mean wetness of a batch of {self.batch} over a full shuffle's: "
            f"{mixing.variance:.2f}; blocks of time per batch: {mixing.blocks:.2f}, there "
            f"{mixing.blocks_shuffled:.2f}",
            f"  device busy: {busy:.1%} ({min(self.busy):.1%} to {max(self.busy):.1%}) of the steps per "
            f"second from memory, over {self.steps} steps",
        ]
        return "\n".join(lines)


def loader_speed(config: Config) -> LoaderSpeed:
    """Measure reading for the one pair that is asked for."""
    return loader_benchmark(config, the_pair(config), windows=_WINDOWS, rounds=3)


def loader_benchmark(config: Config, pair: FactorPair, *, windows: int, rounds: int) -> LoaderSpeed:
    """Read the same windows in several ways, in turns, each time from the start.

    Ours reads through a cache that is empty at first and holds `data.cache_gib`, or half of the training
    split if that is less, in the order of its first epoch: bare values, as the others do, and whole batches,
    coarsened and masked. The trainings are those of the preset, both stages. What the operating system keeps
    of the files is there for all.

    Parameters
    ----------
    config : Config
    pair : FactorPair
    windows : int
        To be read per round and way.
    rounds : int
    """
    store = open_dataset(config.data, config.output)
    crops = _crops(config, store, pair)
    settings, capacity = _settings(config, crops)
    order = Feed(_cold(crops, store, capacity), settings, config.seed, "mean", Ranks()).order
    chosen = order.epoch(0)[: min(windows, len(crops)) // settings.batch * settings.batch]
    ways = _ways(crops, store, config, settings, capacity)
    rates: dict[str, list[float]] = {name: [] for name in (*ways, "xbatcher")}
    for _ in range(rounds):
        for name, prepare in ways.items():
            read = prepare()
            began = time.perf_counter()
            for _ in read(chosen):
                pass
            rates[name].append(len(chosen) / (time.perf_counter() - began))
    mixing = Mixing.of(order.epoch(0), crops, settings.batch)
    busy, steps = _busy(config, store, pair, rounds)
    split = 4 * int(np.prod(crops.view.shape, dtype=np.int64))
    return LoaderSpeed(pair, len(chosen), rates, mixing, settings.batch, capacity, split, busy, steps)


def _crops(config: Config, store: FieldStore, pair: FactorPair) -> Windows:
    """Give the training windows of 6 x 64 x 64 values, or as close to them as the pair has it."""
    side = min(_SIDE, *store.shape[1:]) // pair.space * pair.space
    data = config.data.model_copy(update={"patch": side})
    context = max(1, _FRAMES // pair.time)
    prepared = PairData.prepare(store, pair, data, context)
    return prepared.training_windows(min(context, prepared.max_context))


def _settings(config: Config, windows: Windows) -> tuple[TrainingSettings, int]:
    """Give settings that mix within a pool, and the bytes of the cache: too little for the split."""
    split = 4 * int(np.prod(windows.view.shape, dtype=np.int64))
    capacity = min(int(config.data.cache_gib * 2**30), split // 2)
    pool = min(config.training.pool_gib, 0.8 * capacity / 2**30)
    return config.training.model_copy(update={"shuffle_gib": 0.0, "pool_gib": pool}), capacity


def _cold(windows: Windows, store: FieldStore, capacity: int) -> Windows:
    """Give the same windows, read through a cache with nothing in it."""
    first = windows.view.offset
    segment = Segment(first, first + windows.view.shape[0])
    values = Pieces(store, segment, ChunkCache(capacity))
    return replace(windows, view=replace(windows.view, values=values, dynamics={}))


def _ways(
    windows: Windows,
    store: FieldStore,
    config: Config,
    settings: TrainingSettings,
    capacity: int,
) -> dict[str, Callable[[], Read]]:
    """Give what makes each way of reading ready, which is not timed."""
    frames = windows.context * windows.pair.time

    def crops() -> Read:
        cold = _cold(windows, store, capacity)

        def read(chosen: np.ndarray) -> Iterator[Any]:
            for t, y, x in _corners(windows, chosen):
                along = slice(y, y + windows.patch), slice(x, x + windows.patch)
                yield cold.view.read(t, t + frames, *along).numpy()

        return read

    def batches(prefetch: int) -> Read:
        parallel = settings.parallel.model_copy(update={"prefetch": prefetch})
        reading = settings.model_copy(update={"parallel": parallel})
        feed = Feed(_cold(windows, store, capacity), reading, config.seed, "mean", Ranks())

        def read(chosen: np.ndarray) -> Iterator[Any]:
            yield from feed.steps(0, len(chosen) // settings.batch)

        return read

    def xarray() -> Read:
        field = store.to_xarray()[store.info.variable]

        def read(chosen: np.ndarray) -> Iterator[Any]:
            for t, y, x in _corners(windows, chosen):
                along = slice(t, t + frames), slice(y, y + windows.patch), slice(x, x + windows.patch)
                yield field.isel(dict(zip(field.dims, along, strict=True))).values

        return read

    def xbatcher(library: Any) -> Read:
        field = store.to_xarray()[store.info.variable]
        side, s = windows.patch, windows.pair.space
        step = max(s, side // 2 // s * s)
        sizes = dict(zip(field.dims, (frames, side, side), strict=True))
        shared = dict(zip(field.dims, (frames - 1, side - step, side - step), strict=True))
        generator = library.BatchGenerator(
            field, sizes, {name: size for name, size in shared.items() if size}
        )
        down, across = ((size - side) // step + 1 for size in field.shape[1:])

        def read(chosen: np.ndarray) -> Iterator[Any]:
            for t, y, x in _corners(windows, chosen):
                yield generator[(t * down + y // step) * across + x // step].values

        return read

    ways = {
        "finescale": crops,
        "xarray": xarray,
        "finescale, whole batches": lambda: batches(0),
        f"the same, {settings.parallel.readers} readers": lambda: batches(max(1, settings.parallel.prefetch)),
    }
    try:
        library = importlib.import_module("xbatcher")
    except ImportError:
        return ways
    return ways | {"xbatcher": lambda: xbatcher(library)}


def _corners(windows: Windows, chosen: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Give the first frame, row and column of windows with their context."""
    past = (windows.context - 1) * windows.pair.time
    for t, y, x in windows.places[chosen].tolist():
        yield t - past, y, x


def _busy(config: Config, store: FieldStore, pair: FactorPair, rounds: int) -> tuple[tuple[float, ...], int]:
    """Train both stages through a cold cache and from memory, in turns; gives the ratios and the steps."""
    parameters = paper_prior(pair)
    memory = config.data.model_copy(update={"memory_gib": 1e6})
    data = PairData.prepare(store, pair, memory, config.tuning.max_context)
    context = min(parameters.context, config.tuning.max_context, data.max_context)
    parameters = parameters.model_copy(update={"context": context})
    spec, windows = ModelSpec.fitted(data, parameters, config.model), data.training_windows(context)
    pooled, capacity = _settings(config, windows)
    ratios = []
    for _ in range(rounds):
        through = _seconds(config, spec, _cold(windows, store, capacity), pooled)
        ratios.append(_seconds(config, spec, windows, config.training) / through)
    return tuple(ratios), sum(stage.steps for stage in family_stages(config.model, config.training))


def _seconds(config: Config, spec: ModelSpec, windows: Windows, settings: TrainingSettings) -> float:
    began = time.perf_counter()
    for stage in family_stages(spec.settings, settings):
        train_stage(build_model(spec, config.seed), stage, windows, settings, seed=config.seed)
    return time.perf_counter() - began
