"""`pipeline.downscale`: a coarse field in, an ensemble of fine ones out, as xarray objects."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.config_layers import load_config
from pipeline.data.engines import load_xarray
from pipeline.data.readers import Selection
from pipeline.downscaling.opening import InputRequest
from pipeline.downscaling.run import downscale_to, prepare, sampling_of
from pipeline.errors import UserError
from pipeline.ingest.inputs import Request

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
    **settings: Any,
) -> xr.Dataset:
    """Refine a coarse field.

    Parameters
    ----------
    model : str
        Folder of a finished model.
    coarse : xr.DataArray or str
        (time, y, x) with coordinates and the attribute `units`; or the URL of a store or a file.
    members : int
    output : str, optional
        Where the fields are written; without it they are loaded into memory.
    coarsen : bool
        `coarse` is a fine field, and is coarsened first.
    statics : str, optional
        File with the static covariates of the model on the fine pixels.
    seed : int
    device : str
        Such as `cuda`.
    bbox : tuple of float, optional
        (x0, y0, x1, y1) of the part to be refined.
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
    sampling = {name: settings.pop(name) for name in ("steps", "sampler") if name in settings}
    changes = {"seed": seed, "downscaling": {"members": members, **settings}, "sampling": sampling}
    with tempfile.TemporaryDirectory(prefix="finescale-") as folder:
        given = coarse if isinstance(coarse, str) else _stored(coarse, f"{folder}/coarse.zarr")
        defaults = {"sampling": sampling_of(model)}
        config = load_config(_flat(changes), defaults=defaults)
        url = files.resolve(output) if output else f"{folder}/fine.zarr"
        request = Request((given,), selection=Selection(bbox=bbox))
        wanted = InputRequest(request, f"{url}.input", statics, coarsen)
        downscale_to(prepare(config, model, wanted, device=device), url)
        found: xr.Dataset = xarray.open_zarr(url)
        return found if output else found.load()


def _flat(tree: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Write a tree as dotted keys."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flat(value, f"{above}{name}.") if isinstance(value, dict) else [(f"{above}{name}", value)]
    return pairs


def _stored(field: xr.DataArray, url: str) -> str:
    """Write a field in memory as NetCDF, whose reading checks it."""
    if set(field.dims) != {"time", "y", "x"} and len(field.dims) != 3:
        raise UserError(f"coarse field: has dimensions {field.dims}; time, y and x are wanted")
    path = url.removesuffix(".zarr") + ".nc"
    field.to_dataset(name=str(field.name or "precipitation")).to_netcdf(path, engine="h5netcdf")
    return path
