"""Static covariates on the fine pixels of a domain, cut out of a field store or another file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.sources import axes
from pipeline.sources.readers.base import explained
from pipeline.sources.readers.places import Place
from pipeline.storage import files
from pipeline.store import layout, manifest
from pipeline.store.engines import load_xarray
from pipeline.store.field_store import FieldStore
from pipeline.store.grids import pixel_step

_APART = 0.1  # of a fine pixel that centres may lie apart: coordinates are often rounded to float32

_Get = Callable[[str], np.ndarray]


@dataclass(frozen=True, eq=False)
class StaticFields:
    """Static fields of a file, on some of its pixels.

    Attributes
    ----------
    url : str
        A field store, a NetCDF file or a Zarr group.
    names : tuple of str
        In channel order.
    rows, columns : np.ndarray
        (H,) and (W,) int: the file's row of each row of the domain, and its column of each column.
    """

    url: str
    names: tuple[str, ...]
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def find(cls, url: str, names: Sequence[str], y: np.ndarray, x: np.ndarray) -> StaticFields:
        """Find the pixels with these centres.

        Parameters
        ----------
        url : str
        names : sequence of str
        y, x : np.ndarray
            (H,) and (W,) centres of the domain's fine pixels.

        Raises
        ------
        UserError
            If the file cannot be read, lacks one of the fields, or has not all of the pixels.
        """
        url = files.resolve(url)
        there_y, there_x, _ = _opened(url, names)
        return cls(url, tuple(names), _places(there_y, y, "y", url), _places(there_x, x, "x", url))

    @cached_property
    def values(self) -> Tensor:
        """(S, H, W) float32 in the file's units, NaN where missing; each process reads them once."""
        *_, get = _opened(self.url, self.names)
        return torch.from_numpy(
            np.stack([get(name)[np.ix_(self.rows, self.columns)].astype(np.float32) for name in self.names])
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the values behind when sent to another process."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def find_statics(
    names: Sequence[str], url: str | None, y: np.ndarray, x: np.ndarray, *, fallback: str | None
) -> tuple[StaticFields | None, list[str]]:
    """Find a model's static covariates.

    Parameters
    ----------
    names : sequence of str
        Those of the model, in channel order.
    url : str or None
        What the user gave for them.
    y, x : np.ndarray
        (H,) and (W,) centres of the domain's fine pixels.
    fallback : str or None
        What may have them too.

    Returns
    -------
    StaticFields or None
        None if the model has none.
    list of str
        What the user should know, one line each: what is not read, and what is missing.

    Raises
    ------
    UserError
        If they are not there.
    """
    if not names:
        return None, [] if url is None else [f"--statics {url}: not read, the model has none"]
    place = url or fallback
    if place is None:
        raise UserError(
            f"the model needs static covariates on the fine pixels: {', '.join(names)}; give a field store "
            "or a NetCDF file that has them with --statics"
        )
    statics = StaticFields.find(place, names, y, x)
    missing = (~torch.isfinite(statics.values)).float().mean(dim=(1, 2)).tolist()
    return statics, [
        f"static covariate {name}: {share:.1%} of the domain is missing, and taken for its mean"
        for name, share in zip(names, missing, strict=True)
        if share
    ]


def _opened(url: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, _Get]:
    """Give the coordinates of rows and columns, and what reads a field of that grid by its name."""
    if manifest.state(url) in ("complete", "incomplete"):
        store = FieldStore.open(url)
        for name in names:
            _refuse_unless(name in store.info.statics, url, name, store.info.statics)
        return store.y, store.x, store.static
    return _of_data_set(url, names)


def _of_data_set(url: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, _Get]:
    """Read fields of a NetCDF file or a Zarr group: they are small, and the file is closed again."""
    xr = load_xarray()
    place = Place(url)
    with explained(url):
        kind = place.kind()
        if kind not in ("hdf5", "netcdf3", "zarr"):
            raise UserError(f"statics {url}: neither a field store nor NetCDF nor Zarr; convert it first")
        engine = {"hdf5": "h5netcdf", "netcdf3": "scipy", "zarr": "zarr"}[kind]
        with place.binary() as binary, layout.quiet():
            source = place.zarr() if kind == "zarr" else binary
            with xr.open_dataset(source, engine=engine, chunks=None, decode_timedelta=False) as dataset:
                there = [str(name) for name, data in dataset.data_vars.items() if data.ndim >= 2]
                found = {}
                for name in names:
                    _refuse_unless(name in there, url, name, there)
                    data = axes.standard_order(dataset[name], url)[0]
                    y, x = (axes.coordinate(data, str(dimension)) for dimension in data.dims)
                    found[name] = (y, x, np.asarray(data.values, np.float32))
    first_y, first_x, _ = found[names[0]]
    for name, (y, x, _) in found.items():
        if not (np.array_equal(y, first_y) and np.array_equal(x, first_x)):
            raise UserError(f"statics {url}: {name} is not on the grid of {names[0]}; put them on one grid")
    return first_y, first_x, lambda name: found[name][2]


def _refuse_unless(there: bool, url: str, name: str, known: Sequence[str]) -> None:
    if not there:
        raise UserError(
            f"statics {url}: no static field {name!r}, which the model needs; it has: "
            f"{', '.join(known) or 'none'}; give a file that has it with --statics"
        )


def _places(axis: np.ndarray, wanted: np.ndarray, name: str, url: str) -> np.ndarray:
    """Find centres on an axis, (n,) int; each must lie on one of them."""
    order = np.argsort(axis)
    after = np.clip(np.searchsorted(axis[order], wanted), 1, max(1, len(axis) - 1))
    candidates = order[np.stack([after - 1, np.minimum(after, len(axis) - 1)])]  # (2, n)
    apart = np.abs(axis[candidates] - wanted)
    nearest = candidates[apart.argmin(axis=0), np.arange(len(wanted))]
    if not apart.min(axis=0).max() <= _APART * abs(pixel_step(wanted)):
        raise UserError(
            f"statics {url}: {len(axis)} pixels with {name} from {axis[0]:g} to {axis[-1]:g} are not the "
            f"domain's fine pixels, {len(wanted)} from {wanted[0]:g} to {wanted[-1]:g}; interpolate them to "
            "those, or choose a smaller --bbox"
        )
    return np.asarray(nearest)
