"""Where files lie, local paths and fsspec URLs with or without credentials, and of what kind they are."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.sources.readers.stream import Stream
from pipeline.sources.rules import SourceRules
from pipeline.store import manifest

Kind = Literal["hdf5", "netcdf3", "zarr", "grib", "tiff"]
_ANONYMOUS: dict[str, dict[str, Any]] = {
    "gs": {"token": "anon"},
    "gcs": {"token": "anon"},
    "s3": {"anon": True},
    "s3a": {"anon": True},
}
_ZARR_FILES = ("zarr.json", ".zmetadata", ".zgroup")
_SIGNATURES: dict[bytes, Kind] = {
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"CDF\x01": "netcdf3",
    b"CDF\x02": "netcdf3",
    b"GRIB": "grib",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
}


@dataclass(frozen=True)
class Place:
    """A path or URL, and how it is reached.

    Attributes
    ----------
    path : str
    anonymous : bool
        Without credentials; for this file system object only.
    """

    path: str
    anonymous: bool = False

    @classmethod
    def of(cls, path: str, rules: SourceRules | None) -> Place:
        """Say how the rules want it reached."""
        return cls(path, rules is not None and rules.anonymous)

    @property
    def is_local(self) -> bool:
        """Whether libraries can open it by its path."""
        return "://" not in self.path

    @property
    def options(self) -> dict[str, Any]:
        """What the file system is to be told."""
        return _ANONYMOUS.get(self.path.partition("://")[0], {}) if self.anonymous else {}

    def file_system(self) -> tuple[Any, str]:
        """Give the file system and the path on it."""
        import fsspec

        try:
            fs, inside = fsspec.core.url_to_fs(self.path, **self.options)
        except (ImportError, ValueError) as error:
            protocol = self.path.partition("://")[0]
            remedy = "; pip install 'finescale[s3]'" if protocol.startswith("s3") else ""
            raise UserError(f"{self.path}: {protocol}:// cannot be read ({error}){remedy}") from error
        return fs, inside

    @contextlib.contextmanager
    def binary(self) -> Iterator[Any]:
        """Give a local path as it is, and an open file for anything else."""
        if self.is_local:
            yield self.path
        else:
            fs, inside = self.file_system()
            with fs.open(inside, "rb") as remote:
                yield Stream(remote)

    @contextlib.contextmanager
    def local(self) -> Iterator[str]:
        """Give a local path; a remote file is copied to a temporary folder, which is removed afterwards."""
        if self.is_local:
            yield self.path
        else:
            fs, inside = self.file_system()
            with tempfile.TemporaryDirectory(prefix=f"finescale-{os.getpid()}-") as folder:
                copy = os.path.join(folder, PurePosixPath(inside).name)
                fs.get_file(inside, copy)
                yield copy

    def zarr(self) -> Any:
        """Give the Zarr store, to be read."""
        import zarr

        if self.is_local:
            return zarr.storage.LocalStore(self.path, read_only=True)
        return zarr.storage.FsspecStore.from_url(self.path, storage_options=self.options, read_only=True)

    def kind(self) -> Kind:
        """Recognise a file by its content.

        Raises
        ------
        UserError
            If nothing is there, or it is of no known kind.
        """
        fs, inside = self.file_system()
        on_web = "http" in (fs.protocol if isinstance(fs.protocol, tuple | list) else (fs.protocol,))
        # A web server gives a page for a folder, so that only its name tells a Zarr group.
        folder = ".zarr" in PurePosixPath(inside).name if on_web else fs.isdir(inside)
        if folder and any(fs.exists(f"{inside.rstrip('/')}/{name}") for name in _ZARR_FILES):
            if not on_web and not self.anonymous and manifest.state(self.path) == "incomplete":
                manifest.read_info(self.path)  # raises
            return "zarr"
        if folder and not on_web:
            raise UserError(
                f"{self.path}: a folder, not a Zarr group; give the files in it, as in "
                f"{self.path.rstrip('/')}/*"
            )
        if not (fs.exists(inside, strict=True) if on_web else fs.exists(inside)):
            hint = "; on the web there are no patterns, name each file" if on_web and "*" in inside else ""
            raise UserError(f"{self.path}: no such file{hint}")
        with fs.open(inside, "rb") as stream:
            start = stream.read(8)
        for signature, kind in _SIGNATURES.items():
            if start.startswith(signature):
                return kind
        if start.startswith(b"CDF"):
            raise UserError(f"{self.path}: NetCDF CDF-5; convert it with: nccopy -k nc4 {self.path} NEW.nc")
        if not start:
            raise UserError(f"{self.path}: is empty")
        raise UserError(
            f"{self.path}: cannot be read (neither HDF5, NetCDF, Zarr, GRIB nor GeoTIFF; its first bytes are "
            f"{start!r})"
        )
