"""`pipeline.downscale`: a coarse field in, an ensemble of fine ones out, as xarray objects."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.config_layers import load_config
from pipeline.devices import pick_device
from pipeline.downscaling.destination import Destination, write_to
from pipeline.downscaling.opening import InputRequest
from pipeline.downscaling.options import period
from pipeline.downscaling.run import defaults_of, prepare
from pipeline.errors import UserError
from pipeline.ingest.inputs import Request
from pipeline.ingest.options import box
from pipeline.registered_model import SCHEME, fetch_configured
from pipeline.sources.readers import Selection
from pipeline.store.engines import load_xarray

if TYPE_CHECKING:
    import xarray as xr

_ARGUMENTS = (
    *("members", "output", "coarsen", "statics", "seed", "device", "bbox", "time", "overwrite"),
    *("tracking-uri", "steps", "tile", "quantiles", "exceed"),
)
"""What has the same name here as on the command line, of which most messages speak."""
_FLAG = re.compile(rf"(?<![^\s(])--({'|'.join(_ARGUMENTS)})(?![\w-])")


def downscale(
    model: str | os.PathLike[str],
    coarse: xr.DataArray | str | os.PathLike[str],
    *,
    members: int = 8,
    output: str | os.PathLike[str] | None = None,
    coarsen: bool = False,
    statics: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    bbox: tuple[float, float, float, float] | str | None = None,
    time: tuple[str | None, str | None] | str | None = None,
    overwrite: bool = False,
    tracking_uri: str | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Refine a coarse field.

    Parameters
    ----------
    model : str or path
        Folder of a finished model, or `models:/NAME@ALIAS`.
    coarse : xr.DataArray, str or path
        (time, y, x) with coordinates and the attribute `units`; or the URL of a store or a file.
    members : int
    output : str or path, optional
        Where the fields are written, a Zarr store or a `.nc` file; without it they are loaded into memory.
    coarsen : bool
        `coarse` is a fine field, and is coarsened first.
    statics : str or path, optional
        File with the static covariates of the model on the fine pixels.
    seed : int
    device : {"cpu", "cuda", "auto"}
    bbox : tuple of float or str, optional
        (x0, y0, x1, y1) of the part to be refined; or as on the command line, `"x0,y0,x1,y1"`.
    time : tuple of str or str, optional
        First and last time or date to be refined, as in `("2020-06-01", "2020-06-02")`; None leaves an end
        open. Or as on the command line: `"2020-06-01/2020-06-02"`, or one date or moment.
    overwrite : bool
        Replace what an earlier downscaling has written to `output`.
    tracking_uri : str, optional
        MLflow server or database that knows `models:/NAME@ALIAS`; else as configured for the jobs.
    **settings
        Any of `downscaling.*`, and `steps` and `sampler` of `sampling.*`.

    Returns
    -------
    xr.Dataset
        With the variable (member, time, y, x), and the summaries that were asked for.

    Raises
    ------
    UserError
        If model, field and settings do not go together.
    """
    xarray = load_xarray()
    if device not in ("cpu", "cuda", "auto"):
        raise UserError(f"device = {device!r}: give cpu, cuda or auto")
    sampling = {name: settings.pop(name) for name in ("steps", "sampler") if name in settings}
    changes = {"seed": seed, "downscaling": {"members": members, **settings}, "sampling": sampling}
    with _speaking_of_arguments(), tempfile.TemporaryDirectory(prefix="finescale-") as folder:
        chosen = pick_device(device).type
        selection = replace(_period(time), bbox=_box(bbox))
        url = _address("model", model)
        if url.startswith(SCHEME):
            uri = [] if tracking_uri is None else [("tracking.uri", tracking_uri)]
            url = fetch_configured(url, load_config(uri), folder)
        destination = Destination.of(f"{folder}/fine.zarr" if output is None else _address("output", output))
        destination.check()
        request = Request((_given(coarse, folder),), selection=selection, ingest_flags=False)
        config = load_config(_flat(changes), defaults=defaults_of(url))
        replaced = overwrite or not destination.begun
        beside = None if statics is None else _address("statics", statics)
        wanted = InputRequest(request, destination.ingested, beside, coarsen, overwrite=replaced)
        write_to(prepare(config, url, wanted, device=chosen), destination, overwrite=overwrite)
        if destination.is_file:
            found: xr.Dataset = xarray.open_dataset(destination.url, engine="h5netcdf")
        else:
            found = xarray.open_zarr(destination.url)
        return found if output else found.load()


@contextmanager
def _speaking_of_arguments() -> Iterator[None]:
    """Have messages speak of `time`, not of `--time`."""
    try:
        yield
    except UserError as error:
        error.args = (_FLAG.sub(lambda found: found[1].replace("-", "_"), str(error)),)
        raise


def _address(name: str, given: object) -> str:
    """Read a path or a URL."""
    if not isinstance(given, str | os.PathLike):
        raise UserError(f"{name}: {_kind(given)} was given; give a path or a URL")
    return str(os.fspath(given))


def _given(coarse: object, folder: str) -> str:
    """Give the URL of the input, which is written to a folder if it is a field in memory."""
    if isinstance(coarse, str | os.PathLike):
        return _address("coarse", coarse)
    if isinstance(coarse, load_xarray().DataArray):
        return _stored(coarse, folder)
    raise UserError(
        f"coarse: {_kind(coarse)} was given; give an xarray.DataArray (time, y, x) with coordinates and the "
        "attribute units, or the URL of a store or a file"
    )


def _period(time: Any) -> Selection:
    """Read `"A/B"` or (first, last), either of which may be None."""
    if time is None or isinstance(time, str):
        return period(time)
    try:
        first, last = time
    except (TypeError, ValueError) as error:
        raise UserError(f"time: {_kind(time)} was given; give (first, last) or 'A/B'") from error
    ends = ["" if end is None else str(end).replace(" ", "T") for end in (first, last)]
    return period("/".join(ends)) if any(ends) else Selection()


def _box(bbox: Any) -> tuple[float, float, float, float] | None:
    """Read `"x0,y0,x1,y1"` or four numbers."""
    if bbox is None or isinstance(bbox, str):
        return box(bbox)
    try:
        numbers = [float(number) for number in bbox]
    except (TypeError, ValueError) as error:
        raise UserError(f"bbox: {_kind(bbox)} was given; give four numbers (x0, y0, x1, y1)") from error
    return box(",".join(map(str, numbers)))


def _kind(given: object) -> str:
    """Name a thing by its type, and say what it is if that is short."""
    shown = repr(given)
    short = f" {shown}" if len(shown) <= 40 and shown.isprintable() else ""
    return f"{type(given).__name__}{short}"


def _flat(tree: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Write a tree as dotted keys."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flat(value, f"{above}{name}.") if isinstance(value, dict) else [(f"{above}{name}", value)]
    return pairs


def _stored(field: xr.DataArray, folder: str) -> str:
    """Write a field in memory as NetCDF, whose reading checks it."""
    if set(field.dims) != {"time", "y", "x"}:
        raise UserError(f"coarse field: has dimensions {field.dims}; time, y and x are wanted")
    path = f"{folder}/coarse.nc"
    field.to_dataset(name=str(field.name or "precipitation")).to_netcdf(path, engine="h5netcdf")
    return path
