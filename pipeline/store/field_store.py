"""The field store: a fine field as Zarr v3 on any fsspec URL, complete once its manifest is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from pipeline.errors import UserError
from pipeline.storage import files
from pipeline.store import layout, manifest
from pipeline.store.engines import load_xarray
from pipeline.store.frame_rows import FrameRows, present_in, times_of
from pipeline.store.manifest import LOCK, MANIFEST, MARKER, StoreInfo
from pipeline.store.writer import StoreWriter, clear, create_group, refuse_to_replace, writing

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class FieldStore:
    """A store as it was when it was opened: frames that are added later are not seen.

    Cheap to open, and arrays are read only when indexed.

    Attributes
    ----------
    url : str
        Absolute path or URL.
    info : StoreInfo
        The manifest.
    """

    url: str
    info: StoreInfo

    def __hash__(self) -> int:
        return hash((self.url, self.info.fingerprint))

    @classmethod
    def open(cls, url: str) -> FieldStore:
        """Open a store.

        Raises
        ------
        UserError
            If nothing is there, it is something else, it is incomplete or its format is newer than this code.
        """
        url = files.resolve(url)
        store = cls(url, manifest.read_info(url))
        try:
            shape = store.field.shape
        except (KeyError, OSError, ValueError) as error:
            raise UserError(
                f"store {url}: its arrays cannot be read ({manifest.one_line(error)}); "
                "ingest again with --overwrite"
            ) from error
        if shape[0] < store.info.shape[0] or tuple(shape[1:]) != store.info.shape[1:]:
            raise UserError(
                f"store {url}: {store.info.variable} is {tuple(shape)}, {MANIFEST} says {store.info.shape}; "
                "ingest again with --overwrite"
            )
        return store

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(layout.backend(self.url, read_only=True), mode="r")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(time, y, x) of what counts."""
        return self.info.shape

    @property
    def chunks(self) -> tuple[int, int, int]:
        """(time, y, x) of the pieces that are read and decoded as one."""
        return tuple(self.field.chunks)

    def read(
        self,
        start: int,
        stop: int,
        rows: slice = slice(None),
        columns: slice = slice(None),
        variable: str | None = None,
    ) -> np.ndarray:
        """Read frames [start, stop) as (T, h, w) float32, NaN where missing.

        Parameters
        ----------
        start, stop : int
        rows, columns : slice
        variable : str, optional
            A dynamic covariate; none: the field.

        Raises
        ------
        IndexError
            If the frames are not all there.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"frames {start} to {stop} are outside a store of {self.shape[0]}")
        values = np.asarray(self._group[variable or self.info.variable][start:stop, rows, columns])
        for first, count in self.info.gaps:
            # An ingest of late files may be writing there; it counts once the manifest says so.
            values[max(first - start, 0) : max(first + count - start, 0)] = np.nan
        return values

    @cached_property
    def field(self) -> zarr.Array:
        """The Zarr array, (time, y, x) float32 with NaN for missing; `read` heeds what counts of it."""
        return self._group[self.info.variable]

    @cached_property
    def times(self) -> np.ndarray:
        """(T,) datetime64[s]."""
        return times_of(self.info, np.datetime64(self.info.start, "s"), 0, self.shape[0])

    def up_to(self, time: np.datetime64) -> FieldStore:
        """Give the store as if it ended at this time: the same, fingerprint too, while frames are added.

        Late frames that fill a gap before that time change it.

        Raises
        ------
        UserError
            If it begins later, or is of the first format.
        """
        count = int(np.searchsorted(self.times, time, side="right"))
        rows = self.rows.only(np.ones(count, bool))
        if rows.length() < 2:
            raise UserError(
                f"store {self.url}: data.until = {time} leaves fewer than two frames of it; it runs from "
                f"{self.info.start} to {self.info.end}"
            )
        return FieldStore(self.url, self._described(rows))

    def check_unchanged(self) -> None:
        """Make sure that every frame still is what it was; others may have been added.

        Raises
        ------
        UserError
            If the store was replaced.
        """
        now = FieldStore.open(self.url)
        if now.info.fingerprint == self.info.fingerprint:
            return
        mine = present_in(self.info)
        grown = now.shape[0] >= len(mine) and now.info.start == self.info.start
        if not grown or now._described(now.rows.only(mine)).fingerprint != self.info.fingerprint:
            raise UserError(f"store {self.url}: it was replaced meanwhile; start again")

    def _described(self, rows: FrameRows) -> StoreInfo:
        statics = {name: self.static(name) for name in self.info.statics}
        return rows.described(self.info, self.times[0], statics)

    @cached_property
    def rows(self) -> FrameRows:
        """Presence, digest and statistics of every frame."""
        return FrameRows.of(self._group, self.info, self.shape[0])

    @property
    def digests(self) -> np.ndarray:
        """(T, 32) uint8, SHA-256 of every frame; zeros in gaps.

        Raises
        ------
        UserError
            If the store is of the first format, which had none.
        """
        return self.rows.digests

    @property
    def statistics(self) -> np.ndarray:
        """(T, 4) float64: valid values of every frame, wet ones (above 0.1), their sum and maximum."""
        return self.rows.statistics

    @cached_property
    def y(self) -> np.ndarray:
        """(H,) float64 coordinate of the rows."""
        return np.asarray(self._group["y"][:])

    @cached_property
    def x(self) -> np.ndarray:
        """(W,) float64 coordinate of the columns."""
        return np.asarray(self._group["x"][:])

    def static(self, name: str) -> np.ndarray:
        """Read a covariate, (H, W) float32.

        Raises
        ------
        UserError
            If the store has none of that name.
        """
        if name not in self.info.statics:
            known = ", ".join(self.info.statics) or "none"
            raise UserError(f"store {self.url}: no static covariate {name!r}; it has: {known}")
        return np.asarray(self._group[name][:])

    def to_xarray(self) -> xr.Dataset:
        """Open as a lazy xarray data set (nothing is read before it is asked for)."""
        with layout.quiet():
            dataset = load_xarray().open_dataset(
                layout.backend(self.url, read_only=True), engine="zarr", chunks=None
            )
        return dataset.isel(time=slice(self.shape[0]))  # an ingest may be at work behind that


def write_store(
    url: str,
    frames: Iterable[np.ndarray],
    *,
    times: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    name: str,
    variable: str = "precipitation",
    units: str = "mm/h",
    crs: str | None = None,
    statics: Mapping[str, np.ndarray] | None = None,
    dynamics: Mapping[str, np.ndarray] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    source: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> FieldStore:
    """Write a whole store as its frames arrive, in bounded memory; the manifest comes last.

    Whatever an exception interrupts is removed. What a killed process left is replaced by the next writer.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    frames : iterable of np.ndarray
        (H, W) frames or (n, H, W) blocks in time order, `units`, NaN for missing.
    times : np.ndarray
        (T,) datetime64, evenly spaced, T >= 2.
    y, x : np.ndarray
        (H,) and (W,) coordinates.
    name : str
        Name of the data set.
    variable, units : str
    crs : str, optional
        Map projection (PROJ or WKT).
    statics : mapping of str to np.ndarray, optional
        (H, W) covariates.
    dynamics : mapping of str to np.ndarray, optional
        (T, H, W) covariates.
    attributes : mapping of str to mapping, optional
        CF attributes per array (`"y"`, `"x"`, `variable`, `"crs"`, a covariate), and of the group under `""`.
    source : mapping, optional
        Note of where the field comes from, for the manifest (JSON values).
    overwrite : bool
        Replace a complete store.
    progress : callable, optional
        Told how many frames were written, after each block.

    Raises
    ------
    UserError
        If a complete store is there and `overwrite` is false, if something else is there, or if another
        process is writing there.
    ValueError
        If the frames do not agree with the times and coordinates.
    """
    url = files.resolve(url)
    statics = {key: manifest.canonical(values) for key, values in (statics or {}).items()}
    dynamics = dict(sorted((dynamics or {}).items()))
    times = np.asarray(times).astype("datetime64[s]")
    info = StoreInfo(
        name=name,
        variable=variable,
        units=units,
        shape=(0, len(y), len(x)),
        cadence_seconds=_cadence(times),
        start=str(times[0]),
        end=str(times[0]),
        fingerprint="",
        statics=tuple(sorted(statics)),
        dynamics=tuple(dynamics),
        crs=crs,
        source=dict(source or {}),
    )
    refuse_to_replace(url, overwrite)
    with writing(url):
        try:
            clear(url, keep=(LOCK, MARKER))
            create_group(url, info, y, x, len(times), statics, attributes or {})
            writer = StoreWriter(url, info, times[0], len(times), statics)
            count = 0
            for block in _blocks(frames, info.shape[1:]):
                if count + len(block) > len(times):
                    raise ValueError(f"more frames than the {len(times)} times")
                for frame in block:
                    fields = [frame, *(values[count] for values in dynamics.values())]
                    writer.put(count, fields, manifest.frame_digest(*fields))
                    count += 1
                if progress is not None:
                    progress(len(block))
            if count != len(times):
                raise ValueError(f"{count} frames arrived for {len(times)} times")
            writer.close()
        except BaseException:
            clear(url, keep=(LOCK,) if files.is_remote(url) else ())
            raise
    return FieldStore.open(url)


def _blocks(frames: Iterable[np.ndarray], grid: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Give (n, H, W) blocks, however the frames arrive."""
    for block in frames:
        block = block[None] if np.ndim(block) == 2 else block
        if block.shape[1:] != grid:
            raise ValueError(f"frames of shape {block.shape[1:]} do not fit into a field of {grid}")
        yield block


def _cadence(times: np.ndarray) -> float:
    steps = np.unique(np.diff(times.astype("int64")))
    if len(steps) != 1 or steps[0] <= 0:
        raise ValueError(
            f"times must be evenly spaced and at least two, not {len(times)} with steps {steps[:5]} s"
        )
    return float(steps[0])
