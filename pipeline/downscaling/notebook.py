"""`pipeline.downscale`: a coarse field in, an ensemble of fine ones out, as xarray objects."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.config_layers import load_config
from pipeline.downscaling.destination import Destination, write_to
from pipeline.downscaling.opening import InputRequest
from pipeline.downscaling.options import period
from pipeline.downscaling.run import prepare, sampling_of
from pipeline.errors import UserError
from pipeline.evaluation.pieces import pick_device
from pipeline.ingest.inputs import Request
from pipeline.ingest.options import box
from pipeline.registered_model import SCHEME, fetch_registered
from pipeline.storage import files
from pipeline.store.engines import load_xarray

if TYPE_CHECKING:
    import xarray as xr


def downscale(
    model: str,
    coarse: xr.DataArray | str,
    *,
    members: int = 8,
    output: str | None = None,
    coarsen: bool = False,
    statics: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    bbox: tuple[float, float, float, float] | None = None,
    time: tuple[str | None, str | None] | None = None,
    overwrite: bool = False,
    tracking_uri: str | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Refine a coarse field.

    Parameters
    ----------
    model : str
        Folder of a finished model, or `models:/NAME@ALIAS`.
    coarse : xr.DataArray or str
        (time, y, x) with coordinates and the attribute `units`; or the URL of a store or a file.
    members : int
    output : str, optional
        Where the fields are written, a Zarr store or a `.nc` file; without it they are loaded into memory.
    coarsen : bool
        `coarse` is a fine field, and is coarsened first.
    statics : str, optional
        File with the static covariates of the model on the fine pixels.
    seed : int
    device : {"cpu", "cuda", "auto"}
    bbox : tuple of float, optional
        (x0, y0, x1, y1) of the part to be refined.
    time : tuple of str, optional
        First and last time or date to be refined, as in `("2020-06-01", "2020-06-02")`; None leaves an end
        open.
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
    chosen = pick_device(device).type
    selection = period(None if time is None else "/".join(_moment(end) for end in time))
    selection = replace(selection, bbox=box(None if bbox is None else ",".join(map(str, map(float, bbox)))))
    sampling = {name: settings.pop(name) for name in ("steps", "sampler") if name in settings}
    changes = {"seed": seed, "downscaling": {"members": members, **settings}, "sampling": sampling}
    with tempfile.TemporaryDirectory(prefix="finescale-") as folder:
        if model.startswith(SCHEME):
            model = _fetched(model, tracking_uri, folder)
        destination = Destination.of(f"{folder}/fine.zarr" if output is None else output)
        destination.check()
        given = coarse if isinstance(coarse, str) else _stored(coarse, f"{folder}/coarse.zarr")
        config = load_config(_flat(changes), defaults={"sampling": sampling_of(model)})
        request = Request((given,), selection=selection, ingest_flags=False)
        replaced = overwrite or not destination.begun
        wanted = InputRequest(request, destination.ingested, statics, coarsen, overwrite=replaced)
        write_to(prepare(config, model, wanted, device=chosen), destination, overwrite=overwrite)
        if destination.is_file:
            found: xr.Dataset = xarray.open_dataset(destination.url, engine="h5netcdf")
        else:
            found = xarray.open_zarr(destination.url)
        return found if output else found.load()


def _moment(end: str | None) -> str:
    return "" if end is None else str(end).replace(" ", "T")


def _fetched(model: str, uri: str | None, folder: str) -> str:
    """Copy a registered model out of MLflow."""
    from pipeline.mlflow_view.address import tracking_uri  # MLflow takes long to load

    config = load_config([] if uri is None else [("tracking.uri", uri)])
    return fetch_registered(model, tracking_uri(config.tracking, files.resolve(config.output)), folder)


def _flat(tree: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Write a tree as dotted keys."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flat(value, f"{above}{name}.") if isinstance(value, dict) else [(f"{above}{name}", value)]
    return pairs


def _stored(field: xr.DataArray, url: str) -> str:
    """Write a field in memory as NetCDF, whose reading checks it."""
    if set(field.dims) != {"time", "y", "x"}:
        raise UserError(f"coarse field: has dimensions {field.dims}; time, y and x are wanted")
    path = url.removesuffix(".zarr") + ".nc"
    field.to_dataset(name=str(field.name or "precipitation")).to_netcdf(path, engine="h5netcdf")
    return path
