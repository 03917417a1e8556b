"""Choosing the reader of a file: by its rules, or by its content."""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.sources.readers.base import Selection, Source, explained
from pipeline.sources.readers.places import Kind, Place
from pipeline.sources.rules import SourceRules, load_rules, packaged
from pipeline.storage.cloud import reached

_KINDS: dict[str, tuple[Kind, ...]] = {
    "grid": ("hdf5", "netcdf3", "zarr", "grib"),
    "geotiff": ("tiff",),
    "odim": ("hdf5",),
    "hdf5": ("hdf5",),
}
_WORDS: dict[Kind, str] = {
    "hdf5": "HDF5",
    "netcdf3": "NetCDF 3",
    "zarr": "a Zarr group",
    "grib": "GRIB",
    "tiff": "a TIFF image",
}
_PLAIN = SourceRules(description="NetCDF, Zarr or GRIB that says everything itself")


def open_source(
    path: str,
    rules: SourceRules | None = None,
    selection: Selection | None = None,
    variable: str | None = None,
) -> Source:
    """Read the header of a file.

    Parameters
    ----------
    path : str
        Local path or fsspec URL of a file, or of a Zarr group.
    rules : SourceRules, optional
        What kind of data it is; recognised by its content unless given (KNMI HDF5, ODIM composites, NetCDF,
        Zarr, GRIB).
    selection : Selection, optional
        The part that is wanted; all of it unless given.
    variable : str, optional
        Which one, before what the rules say; needed where a file has several and none is called
        `precipitation`.

    Raises
    ------
    UserError
        In one line that begins with the path: if the file cannot be read, is of another kind, or has no such
        variable.
    """
    place = Place.of(path, rules)
    with reached(path, anonymous=place.anonymous):
        kind = _kind(place)
    with explained(path):
        if rules is None:
            rules = _recognised(place, kind)
    if kind not in _KINDS[rules.reader]:
        raise UserError(
            f"{path}: is {_WORDS[kind]}, and the rules ({rules.description}) are for reader: {rules.reader}; "
            "choose others with --source"
        )
    if rules.reader == "grid":
        from pipeline.sources.readers.grid import GridSource

        return GridSource(path, rules, selection, variable, kind)
    if rules.reader == "hdf5":
        from pipeline.sources.readers.hdf5 import Hdf5Source

        return Hdf5Source(path, rules, selection, variable)
    if rules.reader == "odim":
        from pipeline.sources.readers.odim import OdimSource

        return OdimSource(path, rules, selection, variable)
    from pipeline.sources.readers.geotiff import GeotiffSource

    return GeotiffSource(path, rules, selection, variable)


def _kind(place: Place) -> Kind:
    with explained(place.path):
        return place.kind()


def _recognised(place: Place, kind: Kind) -> SourceRules:
    if kind == "tiff":
        fitting = [name for name in packaged() if load_rules(name).reader == "geotiff"]
        raise UserError(
            f"{place.path}: a GeoTIFF says neither its time nor what its values are; name its rules "
            f"with --source: {', '.join(fitting)}, or a file of your own (.yaml)"
        )
    if kind == "hdf5":
        import h5py

        with place.binary() as stream, h5py.File(stream) as file:
            if "image1/image_data" in file and "overview" in file:
                return load_rules("knmi")
            if _text(file.attrs.get("Conventions", "")).startswith("ODIM_H5"):
                return load_rules("odim")
    return _PLAIN


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
