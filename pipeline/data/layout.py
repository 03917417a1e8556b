"""How a field lies in a Zarr group: backends, chunks, the arrays and their CF attributes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import zarr

from pipeline.data import manifest

CHUNK = (24, 128, 128)  # two hours of 5-minute frames; 1.5 MiB before compression
_BUFFER_BYTES = 2**30  # largest buffer of a writer: very large grids get chunks of fewer frames


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


def write_frames(
    group: zarr.Group,
    frames: Iterable[np.ndarray],
    shape: tuple[int, int, int],
    variable: str,
    attributes: Mapping[str, Any],
    progress: Callable[[int], None] | None,
) -> tuple[list[bytes], int]:
    """Write the data array; return every frame's digest and the number of missing values."""
    frame_bytes = 4 * shape[1] * shape[2]
    depth = max(1, min(CHUNK[0], shape[0], _BUFFER_BYTES // frame_bytes))
    field = group.create_array(
        variable,
        shape=shape,
        chunks=(depth, min(CHUNK[1], shape[1]), min(CHUNK[2], shape[2])),
        dtype="<f4",
        fill_value=float("nan"),  # chunks with nothing but missing values take no space
        dimension_names=("time", "y", "x"),
        attributes=dict(attributes),
    )
    buffer = np.empty((depth, *shape[1:]), "<f4")
    digests: list[bytes] = []
    missing = 0
    for frame in _single_frames(frames):
        if frame.shape != shape[1:] or len(digests) == shape[0]:
            raise ValueError(
                f"frame {len(digests)} of shape {frame.shape} does not fit into a field of shape {shape}"
            )
        slot = len(digests) % depth
        buffer[slot] = manifest.canonical(frame)
        missing += int(np.isnan(buffer[slot]).sum())
        digests.append(manifest.frame_digest(buffer[slot]))
        done = len(digests)
        if slot == depth - 1 or done == shape[0]:
            field[done - slot - 1 : done] = buffer[: slot + 1]
            if progress is not None:
                progress(slot + 1)
    if len(digests) != shape[0]:
        raise ValueError(f"{len(digests)} frames arrived for {shape[0]} times")
    return digests, missing


def _single_frames(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for block in frames:
        yield from block if np.ndim(block) == 3 else (block,)


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
