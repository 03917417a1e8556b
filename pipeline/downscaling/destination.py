"""Where an output goes: a Zarr store, or one NetCDF file that is copied from a store beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline import environment
from pipeline.downscaling.netcdf import fingerprint_of, refuse_netcdf, to_netcdf
from pipeline.downscaling.output_plan import OutputPlan
from pipeline.downscaling.record import refuse_foreign, state
from pipeline.downscaling.run import ALREADY, Prepared, downscale_to
from pipeline.errors import UserError
from pipeline.storage import files

_OTHERS = (
    *("nc3", "nc4", "cdf", "netcdf", "netcdf3", "netcdf4", "h5", "he5", "hdf", "hdf4", "hdf5"),
    *("grib", "grib1", "grib2", "grb", "grb1", "grb2", "tif", "tiff", "gtiff", "geotiff", "cog", "vrt"),
    *("csv", "txt", "json", "yaml", "parquet", "npy", "npz", "pt", "mat", "bin", "png", "jpg", "zip", "gz"),
)
"""Endings of formats that are not written here."""


@dataclass(frozen=True)
class Destination:
    """What the user named, made absolute.

    Attributes
    ----------
    url : str
    """

    url: str

    @classmethod
    def of(cls, given: str) -> Destination:
        """Read what the user gave.

        Raises
        ------
        UserError
            If it is empty, names another format, or nothing can be written there.
        """
        given = given.strip().rstrip("/")
        if not given:
            raise UserError("--output '': it is empty; name a Zarr store, or a .nc file for small outputs")
        ending = files.last_name(given).rpartition(".")[2].lower()
        if "." in files.last_name(given) and ending in _OTHERS:
            raise UserError(
                f"output {given}: .{ending} is no format that is written here; name a Zarr store, as in "
                "x.zarr, or x.nc for NetCDF"
            )
        found = cls(files.resolve(given))
        environment.resolve_output(f"{given}.zarr" if found.is_file else given)
        return found

    @property
    def is_file(self) -> bool:
        """Whether it is to be one NetCDF file."""
        return self.url.lower().endswith(".nc")

    @property
    def store(self) -> str:
        """The Zarr store: for a file one that is removed in the end, and that nobody else has made."""
        return f"{self.url}.zarr" if self.is_file else self.url

    @property
    def ingested(self) -> str:
        """Where files that are to be refined are ingested to."""
        return f"{self.url}.input"

    @property
    def begun(self) -> bool:
        """Whether a downscaling has been begun here that may need what was ingested for it."""
        return state(self.store) in ("incomplete", "complete")

    def check(self) -> None:
        """Refuse what is not ours to replace, or cannot be written to; nothing is written.

        Of an object store only this is known without writing to it: that the bucket is there and answers.

        Raises
        ------
        UserError
            If something else is there, or nothing can be, or a file is to be written to an object store.
        """
        refuse_foreign(self.store)
        if (refused := files.why_unwritable(self.store)) is not None:
            place, error = refused
            reason = error.strerror or type(error).__name__
            raise UserError(
                f"output {self.store}: nothing can be written to {place} ({reason}); give another --output"
            )
        if self.is_file:
            refuse_netcdf(0, self.url)
            if os.path.exists(self.url) and fingerprint_of(self.url) is None:
                raise UserError(f"output {self.url}: something else is there already; give another --output")

    def holds(self, plan: OutputPlan, *, overwrite: bool) -> bool:
        """Tell whether there is a file with the fields of a plan.

        Raises
        ------
        UserError
            If it would be too large, or one with other fields is there and is not to be replaced.
        """
        if not self.is_file:
            return False
        refuse_netcdf(plan.nbytes, self.url)
        if overwrite or not os.path.exists(self.url):
            return False
        if fingerprint_of(self.url) != plan.fingerprint:
            raise UserError(
                f"output {self.url}: it was made with other settings or of another input; give another "
                "--output, or add --overwrite to replace it"
            )
        return True


def write_to(
    prepared: Prepared, destination: Destination, *, workers: int | None = None, overwrite: bool = False
) -> str:
    """Refine what is left to be refined, and say what was done.

    What a NetCDF file was made of is removed once the file is there: the file tells of which fields it is.

    Parameters
    ----------
    prepared : Prepared
    destination : Destination
    workers : int, optional
        See `downscale_to`.
    overwrite : bool
        Replace what an earlier downscaling has written there.

    Raises
    ------
    UserError
        If the output is not ours to write.
    GaveUpError
        If workers died too often.
    """
    destination.check()
    if destination.holds(prepared.plan, overwrite=overwrite):
        done = ALREADY
    else:
        done = downscale_to(prepared, destination.store, workers=workers, overwrite=overwrite)
        if destination.is_file:
            to_netcdf(destination.store, destination.url, overwrite=overwrite)
    if destination.is_file:
        if destination.begun:
            files.remove_folder(destination.store)
        if prepared.ingested:
            files.remove_folder(prepared.source.store.url)
    return done
