"""One NetCDF file of an output that is small enough for one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import h5netcdf  # type: ignore[import-untyped]
import h5py
import numpy as np
import zarr

from pipeline.downscaling.output import FINGERPRINT
from pipeline.downscaling.record import state
from pipeline.errors import UserError
from pipeline.storage import files
from pipeline.store import layout

LIMIT = 2 * 2**30  # bytes before compression


def refuse_netcdf(nbytes: int, path: str, limit: int = LIMIT) -> None:
    """Say beforehand that an output will not be written as NetCDF.

    Parameters
    ----------
    nbytes : int
        Of the arrays before compression, as in `OutputPlan.nbytes`.
    path : str
    limit : int

    Raises
    ------
    UserError
        If it is too large, or the path is on an object store.
    """
    if files.is_remote(path):
        raise UserError(f"{path}: NetCDF is written to a local path only; take one, and copy the file")
    if nbytes > limit:
        raise UserError(
            f"{path}: {nbytes / 2**30:.3g} GiB is more than the {limit / 2**30:.3g} GiB allowed for one "
            "NetCDF file; use the Zarr output, or refine less at once (--bbox, --time, --members)"
        )


def to_netcdf(output_url: str, path: str, *, limit: int = LIMIT, overwrite: bool = False) -> None:
    """Copy a complete output into one NetCDF-4 file, in memory of one chunk's depth.

    A file that was made of the same output is left as it is.

    Parameters
    ----------
    output_url : str
    path : str
        Local; written under a temporary name first.
    limit : int
        Bytes of the arrays before compression.
    overwrite : bool
        Replace another file.

    Raises
    ------
    UserError
        If the output is not complete or too large, or another file is there.
    """
    output_url = files.resolve(output_url)
    if state(output_url) != "complete":
        raise UserError(f"output {output_url}: not complete; run the same downscale command again first")
    with files.reached(output_url):
        group = zarr.open_group(layout.backend(output_url, read_only=True), mode="r")
        arrays = dict(group.arrays())
    refuse_netcdf(sum(array.nbytes for array in arrays.values()), path, limit)
    path = files.local_path(files.resolve(path))
    if os.path.exists(path) and not overwrite:
        if fingerprint_of(path) == group.attrs[FINGERPRINT]:
            return
        raise UserError(f"{path}: another file is there already; choose another name, or add --overwrite")
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with files.reached(path):
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with h5netcdf.File(temporary, "w") as file:
                file.attrs.update(group.attrs)
                _copy(output_url, arrays, file)
            os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def fingerprint_of(path: str) -> str | None:
    """Read of which output a local file was made; none if it is no such file."""
    try:
        with h5py.File(path, "r") as file:
            value = file.attrs.get(FINGERPRINT)
    except OSError:
        return None
    return value.decode() if isinstance(value, bytes) else value


def _copy(url: str, arrays: dict[str, Any], file: h5netcdf.File) -> None:
    for array in arrays.values():
        for name, length in zip(array.metadata.dimension_names or (), array.shape, strict=True):
            if name not in file.dimensions:
                file.dimensions[name] = length
    for name, array in sorted(arrays.items()):
        field = array.dtype == np.float32
        variable = file.create_variable(
            name,
            array.metadata.dimension_names or (),
            array.dtype,
            fillvalue=np.float32("nan") if field else None,
            chunks=array.chunks if field else None,
            compression="gzip" if field else None,
            compression_opts=1 if field else None,
            shuffle=field,
        )
        variable.attrs.update(array.attrs)
        for part in _parts(array) if field else [...]:
            with files.reached(url):
                values = array[part]
            variable[part] = values


def _parts(array: zarr.Array) -> Iterator[tuple[int | slice, ...]]:
    """Go through a field, one chunk deep in time and one member at a time."""
    depth = array.chunks[-3]
    for lead in np.ndindex(*array.shape[:-3]):
        for start in range(0, array.shape[-3], depth):
            yield (*lead, slice(start, start + depth))
