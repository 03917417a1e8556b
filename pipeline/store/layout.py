"""How a field lies in a Zarr group: backends, chunks and shards, the arrays and their CF attributes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr

CHUNK = (24, 128, 128)  # two hours of 5-minute frames; 1.5 MiB before compression: what a window needs
SHARD_SIDE = 1024  # chunks of one object: few objects to list and pay for, still read one by one
DIGESTS, STATISTICS = "frame_digest", "frame_statistics"
RESERVED = frozenset({"time", "y", "x", "crs", DIGESTS, STATISTICS})  # no names for fields
STATISTICS_COLUMNS = ("valid", "wet", "sum", "maximum")
_BUFFER_BYTES = 2**30  # largest buffer of a writer: very large grids get chunks of fewer frames
_TIMES_PER_CHUNK = 8192  # of the arrays with one row per frame: rewritten whole with every append


def backend(url: str, *, read_only: bool = False) -> Any:
    """Name the Zarr store class, so that `memory://` is fsspec's and not a private one of Zarr's."""
    if "://" in url:
        return zarr.storage.FsspecStore.from_url(url, read_only=read_only)
    return zarr.storage.LocalStore(url, read_only=read_only)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Zarr about the manifest (no Zarr object) and about consolidated metadata in format 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def chunks_of(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Choose the chunks of a field (frames, rows, columns); the number of frames may still grow."""
    depth = max(1, min(CHUNK[0], _BUFFER_BYTES // (4 * shape[1] * shape[2])))
    return depth, min(CHUNK[1], shape[1]), min(CHUNK[2], shape[2])


def create_arrays(
    group: zarr.Group,
    shape: tuple[int, int, int],
    variable: str,
    dynamics: Sequence[str],
    attributes: Mapping[str, Mapping[str, Any]],
) -> None:
    """Create the arrays that grow along time: the field, its dynamic covariates, and a row per frame."""
    chunks = chunks_of(shape)
    for name in (variable, *dynamics):
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            shards=_shards(chunks, shape),
            dtype="<f4",
            fill_value=float("nan"),  # chunks with nothing but missing values take no space
            dimension_names=("time", "y", "x"),
            attributes=dict(attributes.get(name, {})),
        )
    rows: dict[str, tuple[tuple[int, ...], str, tuple[str, ...], str]] = {
        "time": ((), "<i8", ("time",), "time"),
        DIGESTS: ((32,), "u1", ("time", "byte"), "SHA-256 of each frame"),
        STATISTICS: ((4,), "<f8", ("time", "statistic"), f"of each frame: {', '.join(STATISTICS_COLUMNS)}"),
    }
    for name, (tail, dtype, dimensions, text) in rows.items():
        group.create_array(
            name,
            shape=(shape[0], *tail),
            chunks=(_TIMES_PER_CHUNK, *tail),
            dtype=dtype,
            fill_value=0,
            dimension_names=dimensions,
            attributes=dict(attributes.get(name, {"long_name": text})),
        )


def _shards(chunks: tuple[int, int, int], shape: tuple[int, int, int]) -> Any:
    """Bundle the chunks of one depth into objects of up to 1024 x 1024 pixels.

    The index comes first: what lies behind `gs://` need not know requests for the last bytes of an object.
    """
    sides = [
        min(-(-size // side) * side, SHARD_SIDE // side * side)
        for size, side in zip(shape[1:], chunks[1:], strict=True)
    ]
    if tuple(sides) == chunks[1:]:
        return None
    return {"shape": (chunks[0], *sides), "index_location": "start"}


def grow(group: zarr.Group, names: Sequence[str], frames: int) -> None:
    """Give the arrays this many frames, and say so in the group's consolidated metadata."""
    for name in (*names, "time", DIGESTS, STATISTICS):
        array = group[name]
        if array.shape[0] != frames:
            array.resize((frames, *array.shape[1:]))
    with quiet():  # one request opens the store on an object store
        known = zarr.open_group(group.store, mode="r").metadata.consolidated_metadata
        if known is None or known.metadata["time"].shape[0] != frames:
            zarr.consolidate_metadata(group.store)


def small_array(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dimensions: tuple[str, ...],
    attributes: Mapping[str, Any],
) -> None:
    """Write an array that fits into one chunk: a coordinate, the projection, a covariate."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape or "auto",
        dtype=values.dtype,
        fill_value=float("nan") if values.dtype.kind == "f" else 0,
        dimension_names=dimensions,
        attributes=dict(attributes.get(name, {})),
    )
    array[...] = values


def complete_attributes(
    given: Mapping[str, Mapping[str, Any]], name: str, variable: str, units: str, crs: str | None
) -> dict[str, dict[str, Any]]:
    """Add to the attributes at hand what CF asks for."""
    complete = {key: dict(values) for key, values in given.items()}
    complete[""] = {"title": name} | complete.get("", {}) | {"Conventions": "CF-1.11"}
    complete["time"] = {
        "standard_name": "time",
        "axis": "T",
        "units": "seconds since 1970-01-01",
        "calendar": "proleptic_gregorian",
    }
    for axis, row in (("y", "row"), ("x", "column")):
        # Without a unit of length or angle it is an index, and CF has no standard name for that.
        plain = {"long_name": f"{row} of the grid", "units": "1"}
        complete[axis] = {"axis": axis.upper()} | (complete.get(axis) or plain)
    if crs is not None or "crs" in complete:
        complete["crs"] = ({"proj_text": crs} if crs is not None else {}) | complete.get("crs", {})
    described: dict[str, Any] = {"long_name": variable.replace("_", " ")}
    if units == "mm/h":
        described["standard_name"] = "lwe_precipitation_rate"
    complete[variable] = described | complete.get(variable, {}) | {"units": units}
    if "crs" in complete:
        complete[variable]["grid_mapping"] = "crs"
    return complete
