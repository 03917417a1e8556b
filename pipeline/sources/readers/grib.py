"""GRIB through cfgrib: the messages of one variable, lined up by the time that they are valid at."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.sources.readers.base import needed
from pipeline.store.engines import load_xarray

if TYPE_CHECKING:
    import xarray as xr

_KEYS = ("cfVarName", "typeOfLevel", "level", "number", "validityDate", "validityTime")


def open_grib(path: str, variable: str) -> xr.Dataset:
    """Open the messages of one variable.

    Their forecasts' starts and steps do not matter: the time axis is that of validity. No index file is
    written.
    """
    _load(path)
    # The class, because looking for an engine by its name would load every plug-in of xarray.
    engine = importlib.import_module("cfgrib.xarray_plugin").CfGribBackend
    return load_xarray().open_dataset(
        path,
        engine=engine,
        chunks=None,
        decode_timedelta=False,
        indexpath="",
        time_dims=("valid_time",),
        errors="raise",
        filter_by_keys={"cfVarName": variable},
    )


def choose_variable(path: str, wanted: str | None, name: str) -> str:
    """Find the variable: the wanted one, else the only one.

    Parameters
    ----------
    path : str
        Local.
    wanted : str, optional
    name : str
        The file's, for messages.

    Raises
    ------
    UserError
        If it is not there or there are several, or a time comes twice: forecasts that overlap.
    """
    _load(name)
    dataset, messages = (importlib.import_module(f"cfgrib.{part}") for part in ("dataset", "messages"))
    index: Any = dataset.open_fileindex(messages.FileStream(path, errors="raise"), "", _KEYS)
    present = sorted(map(str, index.header_values.get("cfVarName", [])))
    listed = ", ".join(present) or "none"
    if wanted is None and len(present) != 1:
        raise UserError(f"{name}: which variable? It has: {listed}; choose one with --variable NAME")
    if wanted is not None and wanted not in present:
        raise UserError(f"{name}: no variable {wanted!r}; it has: {listed}")
    variable = wanted or present[0]
    for values, fields in index.field_ids_index:
        known = dict(zip(index.index_keys, values, strict=True))
        if known["cfVarName"] == variable and len(fields) > 1:
            moment = f"{known['validityDate']} {int(known['validityTime']):04d}"
            raise UserError(
                f"{name}: {variable} has {len(fields)} messages that are valid at {moment} (forecasts that "
                "overlap?); leave one of them out"
            )
    return variable


def _load(name: str) -> None:
    load_xarray()
    needed("cfgrib", "grib", name)
