"""Writing into a field store, block by block, so that what its manifest vouches for is whole at any moment.

The manifest says which frames count; what lies at other times is not looked at. So a writer may put new
frames behind the last one, or into gaps, while others read, and a kill leaves the store as its last manifest
says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from pipeline.errors import TroubleError, UserError
from pipeline.storage import files
from pipeline.storage.locks import Lease, leased
from pipeline.store import layout, manifest
from pipeline.store.frame_rows import FrameRows, frame_statistics, times_of
from pipeline.store.manifest import MANIFEST, MARKER, StoreInfo


class FrameDiffersError(Exception):
    """Another frame is there already at this place."""


class StoreWriter:
    """Puts frames into the arrays of a store that this process holds alone.

    Parameters
    ----------
    url : str
    info : StoreInfo
        Manifest before; for a new store, one of no frames.
    start : np.datetime64
        Time of frame 0.
    frames : int
        How many there may be at the end.
    statics : mapping of str to np.ndarray
        (H, W) covariates, for the fingerprint.
    step_by_step : bool
        Let every block count as soon as it is written, so that a kill costs one block; else all at the end.
    still_alone : callable, optional
        Called before each block; raises if another process may be writing by now.
    """

    def __init__(
        self,
        url: str,
        info: StoreInfo,
        start: np.datetime64,
        frames: int,
        statics: Mapping[str, np.ndarray],
        *,
        step_by_step: bool = False,
        still_alone: Callable[[], None] = lambda: None,
    ) -> None:
        self._url, self._before, self._start, self._statics = url, info, start, statics
        self._step_by_step, self._still_alone = step_by_step, still_alone
        self._group = zarr.open_group(layout.backend(url), mode="r+", use_consolidated=False)
        self._names: Sequence[str] = (info.variable, *info.dynamics)
        self._depth = self._group[info.variable].chunks[0]
        self._block = -1
        self._buffers: dict[str, np.ndarray] = {}
        self._touched: set[int] = set()
        self.info = info
        known, frames = info.shape[0], max(frames, info.shape[0])
        self.rows = FrameRows.of(self._group, info, frames)
        layout.grow(self._group, self._names, frames)
        if frames > known:
            self._group["time"][known:] = times_of(info, start, known, frames).astype("int64")

    def put(self, slot: int, fields: Sequence[np.ndarray], digest: bytes) -> bool:
        """Put one frame, in time order.

        Parameters
        ----------
        slot : int
            Its place on the time axis.
        fields : sequence of np.ndarray
            (H, W) float32 each: the field, then the dynamic covariates.
        digest : bytes

        Returns
        -------
        bool
            Whether it is new; a frame that is there already with the same digest changes nothing.

        Raises
        ------
        FrameDiffersError
            If another frame is there.
        """
        if self.rows.present[slot]:
            if self.rows.digests[slot].tobytes() != digest:
                raise FrameDiffersError(slot)
            return False
        block = slot // self._depth
        if block != self._block:
            self._flush(commit=self._step_by_step)
            self._load(block)
        for name, values in zip(self._names, fields, strict=True):
            self._buffers[name][slot - block * self._depth] = manifest.canonical(values)
        self.rows.present[slot] = True
        self.rows.digests[slot] = np.frombuffer(digest, "u1")
        self.rows.statistics[slot] = frame_statistics(fields[0])
        return True

    def _flush(self, *, commit: bool) -> None:
        """Write the block at hand, and the manifest that makes it count."""
        if self._block >= 0:
            self._write()
            if commit:
                self._commit()

    def _commit(self) -> None:
        """Say in the manifest what is there."""
        if self.rows.length():
            self.info = self.rows.described(self.info, self._start, self._statics)
            files.write_text(files.join(self._url, MANIFEST), self.info.to_json())

    def close(self) -> StoreInfo:
        """Write what is left, cut the arrays to what counts, and give the manifest."""
        self._flush(commit=True)
        self._cut()
        return self.info

    def rollback(self) -> None:
        """Make the store what it was before this writer."""
        files.write_text(files.join(self._url, MANIFEST), self._before.to_json())
        self.info = self._before
        self.rows = FrameRows.of(self._group, self._before, len(self.rows.present))
        self._block, self._buffers = -1, {}
        self._cut()
        for block in sorted(self._touched):
            if block * self._depth < self.info.shape[0]:
                self._load(block)
                self._write()

    def _cut(self) -> None:
        """End the arrays where what counts ends, with nothing behind it in the last chunk."""
        count = self.info.shape[0]
        for name in ("time", layout.DIGESTS, layout.STATISTICS):
            if self._group[name].shape[0] > count:
                self._group[name][count:] = 0
        layout.grow(self._group, self._names, count)

    def _load(self, block: int) -> None:
        """Fill the buffers with what counts of a block, and with missing values elsewhere."""
        first = block * self._depth
        last = min(first + self._depth, self._group[self._names[0]].shape[0])
        there = self.rows.present[first:last]
        for name in self._names:
            buffer = np.full((last - first, *self.info.shape[1:]), np.nan, "<f4")
            if there.any():
                np.copyto(buffer, self._group[name][first:last], where=there[:, None, None])
            self._buffers[name] = buffer
        self._block = block

    def _write(self) -> None:
        self._still_alone()
        first, count = self._block * self._depth, len(self._buffers[self._names[0]])
        rows = slice(first, first + count)
        for name in self._names:
            self._group[name][rows] = self._buffers[name]
        there = self.rows.present[rows, None]
        self._group[layout.DIGESTS][rows] = np.where(there, self.rows.digests[rows], 0)
        self._group[layout.STATISTICS][rows] = np.where(there, self.rows.statistics[rows], 0)
        self._touched.add(self._block)
        self._block, self._buffers = -1, {}


def create_group(
    url: str,
    info: StoreInfo,
    y: np.ndarray,
    x: np.ndarray,
    frames: int,
    statics: Mapping[str, np.ndarray],
    attributes: Mapping[str, Mapping[str, Any]],
) -> None:
    """Create the arrays of a new store, with its coordinates and statics written.

    Raises
    ------
    ValueError
        If a static covariate has a taken name or does not fit the grid.
    """
    grid = (len(y), len(x))
    names = [info.variable, *info.dynamics, *statics]
    taken = layout.RESERVED & set(names)
    if taken or len(set(names)) < len(names) or any(values.shape != grid for values in statics.values()):
        raise ValueError(f"covariates {names[1:]} of {names[0]}: a taken name, or a shape other than {grid}")
    complete = layout.complete_attributes(attributes, info.name, info.variable, info.units, info.crs)
    group = zarr.create_group(layout.backend(url), zarr_format=3, attributes=complete[""])
    for key, values in {"y": np.asarray(y, "<f8"), "x": np.asarray(x, "<f8")}.items():
        layout.small_array(group, key, values, (key,), complete)
    if "crs" in complete:
        layout.small_array(group, "crs", np.zeros((), "i4"), (), complete)
    for key, values in statics.items():
        layout.small_array(group, key, values, ("y", "x"), complete)
    layout.create_arrays(group, (frames, *grid), info.variable, info.dynamics, complete)


@contextlib.contextmanager
def writing(url: str) -> Iterator[Lease]:
    """Hold a store alone while it is written to, and mark it as being written to.

    Raises
    ------
    UserError
        If another process writes to it, or it must not be written there.
    """
    message = f"store {url}: another ingest is writing to it; wait for its end"
    with leased(files.join(url, manifest.LOCK), message) as lease:
        if not files.is_remote(url) and files.exists(files.join(url, MARKER)):
            files.remove_unfinished(url)
        files.write_text(files.join(url, MARKER), "{}\n")
        try:
            yield lease
        except TroubleError:
            raise
        except UserError:
            _leave(url)
            raise
        lease.check()
        files.remove(files.join(url, MARKER))


def _leave(url: str) -> None:
    """Take the marks of a writer off a store; where there is none, nothing stays."""
    if manifest.state(url) == "complete":
        files.remove(files.join(url, MARKER))
    elif manifest.state(url) == "incomplete":
        clear(url, keep=(manifest.LOCK,) if files.is_remote(url) else ())  # a lease is given back by itself


def clear(url: str, *, keep: Sequence[str] = ()) -> None:
    """Remove what is in a store, its manifest first, so that a kill in between leaves it incomplete.

    Parameters
    ----------
    url : str
    keep : sequence of str
        Names that stay; if there are none, the folder goes too.
    """
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    files.remove(files.join(url, MANIFEST))
    for entry in fs.ls(path, detail=False):
        if entry.rstrip("/").rsplit("/", 1)[-1] not in (*keep, MARKER, manifest.LOCK, ""):
            fs.rm(entry, recursive=True)
    for name in (MARKER, manifest.LOCK):  # with the first, what is left is known to be ours
        if name not in keep:
            files.remove(files.join(url, name))
    if not keep and fs.exists(path):  # object stores have no empty folders
        fs.rm(path, recursive=True)


def refuse_to_replace(url: str, overwrite: bool) -> None:
    """Raise a `UserError` if a store must not be written at this URL."""
    found = manifest.state(files.resolve(url))
    if found == "complete" and not overwrite:
        raise UserError(f"store {url}: a complete store is there already; add --overwrite to replace it")
    if found == "foreign":  # whatever it is, it is not ours to remove
        raise UserError(f"store {url}: something else is there already; choose another place")
