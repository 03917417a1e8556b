"""What a training holds that reads a store much larger than the memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import zarr

from pipeline import environment
from pipeline.benchmarks.pair import the_pair
from pipeline.config import Config
from pipeline.data.pair_data import PairData
from pipeline.data.synthetic import synthetic_rain
from pipeline.errors import UserError
from pipeline.factors import FactorPair
from pipeline.models.families import family_stages
from pipeline.models.family import ModelSpec
from pipeline.prior import paper_prior
from pipeline.settings.data import SyntheticSettings
from pipeline.storage import files
from pipeline.store import layout
from pipeline.store.field_store import FieldStore, write_store
from pipeline.store.manifest import MANIFEST
from pipeline.training.fit import fit
from pipeline.training.memory import readable

_FRAMES, _SIDE = 3000, 2048  # 50 GB
_TILE = 512  # pixels of rain that the grid is tiled with


@dataclass(frozen=True)
class LoaderMemory:
    """The peak of a training's process, and how long it took to begin.

    Attributes
    ----------
    size : int
        Bytes of the field.
    given : int
        Bytes of `data.cache_gib`.
    before, peak : int
        Most resident bytes with everything imported, and at the end.
    windows : int
    prepared, searched, trained : float
        Seconds to fit the transform, to find the training windows, and to train.
    steps : int
    """

    size: int
    given: int
    before: int
    peak: int
    windows: int
    prepared: float
    searched: float
    trained: float
    steps: int

    def __str__(self) -> str:
        return (
            f"loader-memory: a field of {self.size / 1e9:.1f} GB with data.cache_gib of "
            f"{readable(self.given)}: peak {readable(self.peak)}, of which {readable(self.before)} are the "
            f"imports; transform fitted in {self.prepared:.0f} s, {self.windows:,} training windows found in "
            f"{self.searched:.0f} s, {self.steps} steps in {self.trained:.0f} s"
        )


def loader_memory(config: Config) -> LoaderMemory:
    """Train on a field of 50 GB in a process of its own; most of its chunks are links to a few.

    Raises
    ------
    UserError
        If the output is not a local folder.
    """
    pair, output = the_pair(config), environment.resolve_output(config.output)
    if files.is_remote(output):
        raise UserError(f"output: {output} is no local folder; give one with --output")
    return loader_memory_benchmark(config, pair, f"{output}/benchmark/large.zarr", _FRAMES, _SIDE)


def loader_memory_benchmark(
    config: Config, pair: FactorPair, path: str, frames: int, side: int
) -> LoaderMemory:
    """Make the field at `path` if it is not there, and train every stage of the preset on it."""
    if not (Path(path) / MANIFEST).exists():
        large_store(path, frames, side)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        return alone.submit(train_on, config, pair, path).result()


def large_store(path: str, frames: int, side: int) -> FieldStore:
    """Write one block of time of `side` x `side` rain, and link its chunks until there are `frames`."""
    depth, tile = layout.CHUNK[0], min(_TILE, side)
    rain = SyntheticSettings(frames=depth, height=tile, width=tile)

    def tiled() -> Iterator[np.ndarray]:
        for frame in synthetic_rain(rain):
            yield np.tile(frame, (-(-side // tile),) * 2)[:side, :side]

    times = np.datetime64("2020-01-01", "s") + np.arange(depth) * np.timedelta64(300, "s")
    axis = 1000.0 * np.arange(side)
    store = write_store(path, tiled(), times=times, y=axis, x=axis, name="large", overwrite=True)
    chunks = Path(store.url) / store.info.variable / "c"
    for number in range(1, frames // depth):
        for chunk in (chunks / "0").rglob("*"):
            linked = chunks / str(number) / chunk.relative_to(chunks / "0")
            if chunk.is_file():
                linked.parent.mkdir(parents=True, exist_ok=True)
                os.link(chunk, linked)
    count = frames // depth * depth
    layout.grow(zarr.open_group(layout.backend(store.url)), [store.info.variable], count)
    end = times[0] + (count - 1) * np.timedelta64(300, "s")
    info = replace(store.info, shape=(count, side, side), end=str(end))
    files.write_text(files.join(store.url, MANIFEST), info.to_json())
    return FieldStore.open(store.url)


def train_on(config: Config, pair: FactorPair, path: str) -> LoaderMemory:
    """Train every stage of the preset on a store, in this process."""
    before, store, parameters = peak_memory(), FieldStore.open(path), paper_prior(pair)
    began = time.perf_counter()
    data = PairData.prepare(store, pair, config.data, config.tuning.max_context)
    context = min(parameters.context, config.tuning.max_context, data.max_context)
    parameters = parameters.model_copy(update={"context": context})
    spec = ModelSpec.fitted(data, parameters, config.model)
    prepared = time.perf_counter()
    windows = data.training_windows(context)
    searched = time.perf_counter()
    fit(spec, windows, config.training, seed=config.seed)
    trained = time.perf_counter()
    return LoaderMemory(
        size=4 * int(np.prod(store.shape, dtype=np.int64)),
        given=int(config.data.cache_gib * 2**30),
        before=before,
        peak=peak_memory(),
        windows=len(windows),
        prepared=prepared - began,
        searched=searched - prepared,
        trained=trained - searched,
        steps=sum(stage.steps for stage in family_stages(config.model, config.training)),
    )


def peak_memory() -> int:
    """Give the most resident bytes of this program; `getrusage` would count those of its parent, too."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
