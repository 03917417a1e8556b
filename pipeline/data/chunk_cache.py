"""Decoded pieces of a store, as many as fit into the memory that is given for them."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from pipeline.data.splits import Segment
from pipeline.store.field_store import FieldStore


class ChunkCache:
    """Arrays by key, the least recently used ones dropped; for any number of threads.

    What one thread is loading the others wait for, so nothing is loaded twice at once.

    Parameters
    ----------
    capacity : int
        Bytes. What is being loaded comes on top, one array per thread.

    Attributes
    ----------
    held : int
        Bytes that are kept.
    loads : int
        Arrays loaded so far.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self.loads = 0
        self._lock = threading.Lock()
        self._arrays: OrderedDict[Hashable, Future[np.ndarray]] = OrderedDict()

    def __reduce__(self) -> tuple[type[ChunkCache], tuple[int]]:
        return ChunkCache, (self.capacity,)  # another process fills its own

    def get(self, key: Hashable, load: Callable[[], np.ndarray]) -> np.ndarray:
        """Give the array of `key`, by `load` if it is not there; it must not be written to.

        An error of `load` goes to all that wait for the array; who asks later loads again.
        """
        with self._lock:
            future = self._arrays.get(key)
            mine = future is None
            if future is None:
                future = self._arrays[key] = Future()
            else:
                self._arrays.move_to_end(key)
        if mine:
            self._load(key, future, load)
        return future.result()

    def _load(self, key: Hashable, future: Future[np.ndarray], load: Callable[[], np.ndarray]) -> None:
        try:
            array = load()
        except BaseException as error:
            with self._lock:
                del self._arrays[key]
            future.set_exception(error)
            return
        array.flags.writeable = False
        with self._lock:
            future.set_result(array)
            self.held += array.nbytes
            self.loads += 1
            finished = (one for one, other in self._arrays.items() if other.done())
            while self.held > self.capacity:
                oldest = next(finished)
                self.held -= self._arrays[oldest].result().nbytes
                del self._arrays[oldest]
                finished = (one for one, other in self._arrays.items() if other.done())


@functools.lru_cache(maxsize=1)
def shared_cache(url: str, fingerprint: str, capacity: int) -> ChunkCache:
    """Give the one cache that the splits of a store have together in this process."""
    return ChunkCache(capacity)


@dataclass(frozen=True)
class Pieces:
    """Frames of a store, read by way of its chunks, cut to a split.

    Attributes
    ----------
    store : FieldStore
    segment : Segment
        What may be read; a chunk that reaches beyond it is decoded for the part in it.
    cache : ChunkCache
    """

    store: FieldStore
    segment: Segment
    cache: ChunkCache

    @functools.cached_property
    def _chunks(self) -> tuple[int, int, int]:
        return self.store.chunks  # which Zarr works out anew every time

    @property
    def shape(self) -> tuple[int, int, int]:
        """(time, y, x) of the split."""
        return (len(self.segment), *self.store.shape[1:])

    def read(
        self,
        start: int,
        stop: int,
        rows: slice = slice(None),
        columns: slice = slice(None),
        variable: str | None = None,
    ) -> np.ndarray:
        """Read absolute frames [start, stop) as (T, h, w) float32, see `FieldStore.read`."""
        _, height, width = self.shape
        depth, tall, wide = self._chunks
        top, bottom, _ = rows.indices(height)
        left, right, _ = columns.indices(width)
        out = np.empty((stop - start, bottom - top, right - left), dtype=np.float32)
        for t, times, in_times in _overlaps(start, stop, depth):
            for y, across, in_rows in _overlaps(top, bottom, tall):
                for x, along, in_columns in _overlaps(left, right, wide):
                    piece = self._piece(variable, t, y, x)
                    first = max(t * depth, self.segment.start) - t * depth  # the part before is not there
                    inside = slice(in_times.start - first, in_times.stop - first)
                    out[times, across, along] = piece[inside, in_rows, in_columns]
        return out

    def _piece(self, variable: str | None, t: int, y: int, x: int) -> np.ndarray:
        depth, tall, wide = self._chunks
        start, stop = max(t * depth, self.segment.start), min((t + 1) * depth, self.segment.stop)
        _, height, width = self.shape

        def load() -> np.ndarray:
            rows = slice(y * tall, min((y + 1) * tall, height))
            columns = slice(x * wide, min((x + 1) * wide, width))
            return np.ascontiguousarray(self.store.read(start, stop, rows, columns, variable))

        return self.cache.get((variable, start, stop, y, x), load)


def _overlaps(start: int, stop: int, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Give the pieces that [start, stop) lies in: number, the part of the range, the part of the piece."""
    for number in range(start // size, -(-stop // size)):
        first, last = max(start, number * size), min(stop, (number + 1) * size)
        yield number, slice(first - start, last - start), slice(first - number * size, last - number * size)
