"""The field store: a fine field as Zarr v3 on any fsspec URL, complete once its manifest is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from pipeline import files
from pipeline.data import layout, manifest
from pipeline.data.manifest import MANIFEST, MARKER, StoreInfo
from pipeline.errors import UserError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class FieldStore:
    """A complete store, opened for reading. Cheap to open, and arrays are read only when indexed.

    Attributes
    ----------
    url : str
        Absolute path or URL.
    info : StoreInfo
        The manifest.
    """

    url: str
    info: StoreInfo

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
        if tuple(shape) != store.info.shape:
            raise UserError(
                f"store {url}: {store.info.variable} is {tuple(shape)}, {MANIFEST} says {store.info.shape}; "
                "ingest again with --overwrite"
            )
        return store

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(layout.backend(self.url, read_only=True), mode="r")

    @cached_property
    def field(self) -> zarr.Array:
        """The data, (time, y, x) float32 with NaN for missing, in `info.units`."""
        return self._group[self.info.variable]

    @cached_property
    def times(self) -> np.ndarray:
        """(T,) datetime64[s]."""
        return np.asarray(self._group["time"][:]).astype("datetime64[s]")

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
        import xarray as xr

        with layout.quiet():
            return xr.open_dataset(layout.backend(self.url, read_only=True), engine="zarr", chunks=None)


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
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    source: Mapping[str, Any] | None = None,
    expected: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> FieldStore:
    """Write a store as its frames arrive, in bounded memory; the manifest comes last.

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
    attributes : mapping of str to mapping, optional
        CF attributes per array (`"y"`, `"x"`, `variable`, `"crs"`, a static), and of the group under `""`.
    source : mapping, optional
        Note of where the field comes from, for the manifest (JSON values).
    expected : str, optional
        Fingerprint that must come out.
    overwrite : bool
        Replace a complete store.
    progress : callable, optional
        Told how many frames were written, after each block.

    Raises
    ------
    UserError
        If a complete store is there and `overwrite` is false, if something else is there, or if the content
        is not the one expected.
    ValueError
        If the frames do not agree with the times and coordinates.
    """
    url = files.resolve(url)
    statics = {key: manifest.canonical(values) for key, values in (statics or {}).items()}
    times = np.asarray(times).astype("datetime64[s]")
    shape = (len(times), len(y), len(x))
    cadence = _cadence(times)
    reserved = {"time", "y", "x", "crs"} & {variable, *statics}
    if reserved or variable in statics or any(values.shape != shape[1:] for values in statics.values()):
        raise ValueError(
            f"statics {sorted(statics)} of {variable}: a taken name, or a shape other than {shape[1:]}"
        )
    refuse_to_replace(url, overwrite)
    attributes = layout.complete_attributes(attributes or {}, name, variable, units, crs)

    files.write_text(files.join(url, MARKER), "{}\n")
    try:
        _clear(url, keep_marker=True)
        group = zarr.create_group(layout.backend(url), zarr_format=3, attributes=attributes[""])
        seconds = times.astype("int64")
        for key, values in {"time": seconds, "y": np.asarray(y, "<f8"), "x": np.asarray(x, "<f8")}.items():
            layout.small_array(group, key, values, (key,), attributes)
        if "crs" in attributes:
            layout.small_array(group, "crs", np.zeros((), "i4"), (), attributes)
        for key, values in statics.items():
            layout.small_array(group, key, values, ("y", "x"), attributes)
        digests, missing = layout.write_frames(group, frames, shape, variable, attributes[variable], progress)
        content = manifest.fingerprint(variable, units, times, digests, statics)
        if expected not in (None, content):
            raise UserError(f"store {url}: the input changed while it was read; run the same command again")
        with layout.quiet():  # consolidated metadata: one request opens the store on an object store
            zarr.consolidate_metadata(layout.backend(url))
        info = StoreInfo(
            name=name,
            variable=variable,
            units=units,
            shape=shape,
            cadence_seconds=cadence,
            start=str(times[0]),
            end=str(times[-1]),
            fingerprint=content,
            statics=tuple(sorted(statics)),
            crs=crs,
            missing_fraction=float(missing / np.prod(shape)),
            source=dict(source or {}),
        )
        files.write_text(files.join(url, MANIFEST), info.to_json())
    except BaseException:
        _clear(url)
        raise
    _remove(url, MARKER)
    return FieldStore.open(url)


def refuse_to_replace(url: str, overwrite: bool) -> None:
    """Raise a `UserError` if a store must not be written at this URL."""
    found = manifest.state(files.resolve(url))
    if found == "complete" and not overwrite:
        raise UserError(f"store {url}: a complete store is there already; add --overwrite to replace it")
    if found == "foreign":  # whatever it is, it is not ours to remove
        raise UserError(f"store {url}: something else is there already; choose another place")


def _cadence(times: np.ndarray) -> float:
    steps = np.unique(np.diff(times.astype("int64")))
    if len(steps) != 1 or steps[0] <= 0:
        raise ValueError(
            f"times must be evenly spaced and at least two, not {len(times)} with steps {steps[:5]} s"
        )
    return float(steps[0])


def _clear(url: str, *, keep_marker: bool = False) -> None:
    """Remove a store: manifest first, marker last, so that a kill in between leaves it incomplete."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    _remove(url, MANIFEST)
    for entry in fs.ls(path, detail=False):
        if entry.rstrip("/").rsplit("/", 1)[-1] not in (MARKER, ""):
            fs.rm(entry, recursive=True)
    if not keep_marker:
        _remove(url, MARKER)
        if fs.exists(path):  # object stores have no empty folders
            fs.rm(path, recursive=True)


def _remove(url: str, name: str) -> None:
    import fsspec

    fs, path = fsspec.core.url_to_fs(files.join(url, name))
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)
