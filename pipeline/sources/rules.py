"""Source rules: what a YAML file says about a kind of data, so that a new one needs no code.

A file of rules tells which reader to use, where the time comes from, what the numbers in the file mean and
what the field is called in the store. The ones that come with Finescale lie in `pipeline/sources`.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from pipeline.errors import UserError
from pipeline.settings.base import Settings
from pipeline.sources.rule_parts import DbzRules as DbzRules
from pipeline.sources.rule_parts import Hdf5Rules as Hdf5Rules
from pipeline.sources.rule_parts import OtherVariable as OtherVariable
from pipeline.sources.rule_parts import Select
from pipeline.sources.rule_parts import TimeRules as TimeRules
from pipeline.storage import files

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
Codes = Annotated[tuple[float, ...], BeforeValidator(lambda value: _listed(value))]


def _listed(value: Any) -> Any:
    """Take one value for a list of one."""
    return value if isinstance(value, list | tuple) else [value]


class SourceRules(Settings):
    """What is to be known about a kind of files that they do not say themselves.

    Everything but `description` may be left out.
    """

    description: str = Field(description="What the data are: one line for the list of sources.")
    reader: Literal["grid", "geotiff", "odim", "hdf5"] = Field(
        "grid",
        description="grid: NetCDF, Zarr and GRIB; geotiff: one image per file; odim: ODIM_H5 composites; "
        "hdf5: any other HDF5 file with one image, described under `hdf5`.",
    )
    variable: str | None = Field(
        None, description="Name in the file (odim: the quantity); else the only one."
    )
    name: str | None = Field(None, description="Name of the field in the store; else the one in the file.")
    files: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="What is read when the command names no files: paths, URLs or patterns."
    )
    anonymous: bool = Field(False, description="Read gs:// and s3:// without credentials.")
    time: TimeRules = Field(TimeRules(), description="Where the time comes from.")
    missing: Codes = Field((), description="Values in the file that mean: missing.")
    dry: Codes = Field((), description="Values in the file that mean: no rain (radar: undetect).")
    gain: float | None = Field(None, description="Values are multiplied by this; else what the file says.")
    offset: float | None = Field(None, description="This is added then; else what the file says.")
    dbz: DbzRules | None = Field(None, description="Values are dBZ: how they become mm/h.")
    units: str | None = Field(None, description="Units of the values, instead of those in the file.")
    accumulation: str | None = Field(
        None,
        description="Interval one sum stands for: a number and s, min, h or d, as in 5min; else the file's.",
    )
    clip_below: float = Field(
        0.0,
        ge=0,
        description="Values from minus this up to 0 become 0 (rounding in packed files), in `units`.",
    )
    valid_range: tuple[float, float] | None = Field(
        None,
        description="Least and greatest value that can be true, in the store's units; others are a fault.",
    )
    select: Select = Field({}, description="One value of each further dimension, as in {level: 850}.")
    dynamics: dict[str, OtherVariable] = Field(
        {}, description="Further fields in time, by their name in the store."
    )
    statics: dict[str, OtherVariable] = Field(
        {}, description="Fields without time, by their name in the store."
    )
    attributes: dict[str, str] = Field({}, description="CF attributes of the field.")
    source: str | None = Field(None, description="Where the data come from: the store's attribute `source`.")
    hdf5: Hdf5Rules | None = Field(None, description="Where things lie, for the reader hdf5.")

    @property
    def interval_seconds(self) -> float | None:
        """`accumulation` in seconds."""
        return None if self.accumulation is None else _seconds(self.accumulation)

    @field_validator("accumulation")
    @classmethod
    def _an_interval(cls, text: str | None) -> str | None:
        if text is not None:
            _seconds(text)
        return text

    @field_validator("valid_range")
    @classmethod
    def _ordered(cls, values: tuple[float, float] | None) -> tuple[float, float] | None:
        if values is not None and values[0] >= values[1]:
            raise ValueError("the least value comes first")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> SourceRules:
        if self.time.stamp == "start" and self.accumulation is None:
            raise ValueError("time.stamp: start needs accumulation, the time from the start to the end")
        if (self.hdf5 is not None) != (self.reader == "hdf5"):
            raise ValueError("the section hdf5 and reader: hdf5 go together")
        if self.reader != "grid" and (self.dynamics or self.statics):
            raise ValueError("dynamics and statics are for reader: grid")
        if self.reader in ("odim", "hdf5") and self.select:
            raise ValueError("select is for reader: grid, and {band: 2} for geotiff")
        if self.reader == "geotiff" and not set(self.select) <= {"band"}:
            raise ValueError("select can only name a band of a GeoTIFF, as in {band: 2}")
        if self.reader == "geotiff" and self.time.pattern is None:
            raise ValueError("a GeoTIFF does not tell its time: give time.pattern and time.format")
        if self.reader in ("geotiff", "hdf5") and self.variable is not None:
            raise ValueError("variable is for reader: grid or odim; these files hold one image")
        if (
            self.hdf5 is not None
            and self.time.pattern is None
            and not (self.hdf5.end and self.hdf5.time_format)
        ):
            raise ValueError("the time: give hdf5.end and hdf5.time_format, or time.pattern")
        if self.dbz is not None and self.units is not None and self.reader != "odim":
            raise ValueError("units: dBZ become mm/h; leave units out")
        return self


def _seconds(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d)\s*", text)
    if match is None or float(match[1]) == 0:
        raise ValueError("write a number and s, min, h or d, as in 5min")
    return float(match[1]) * _SECONDS[match[2]]


def load_rules(name: str) -> SourceRules:
    """Read rules that come with Finescale, or a file of one's own.

    Parameters
    ----------
    name : str
        Such as `knmi`, or a path or fsspec URL that ends in `.yaml` or `.yml`.

    Raises
    ------
    UserError
        In one line, if there are none of that name, or for the first thing that is wrong in the file.
    """
    if not name.endswith((".yaml", ".yml")):
        return _packaged_rules(name)
    try:
        text = files.read_text(files.resolve(name))
    except Exception as error:  # every file system has exceptions of its own
        reason = (
            "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())[:200]
        )
        raise UserError(f"source {name}: cannot be read ({reason})") from error
    return _parse(text, name)


@functools.cache
def _packaged_rules(name: str) -> SourceRules:
    texts = _texts()
    if name not in texts:
        raise UserError(
            f"source {name!r}: there is none of that name; choose one of {', '.join(texts)}, or give a file "
            "of rules (.yaml)"
        )
    return _parse(texts[name], f"{name}.yaml")


def packaged() -> dict[str, str]:
    """Name and describe the rules that come with Finescale.

    Returns
    -------
    dict of str to str
        Name to description, in the order of the names.
    """
    return {name: _packaged_rules(name).description for name in _texts()}


def _texts() -> dict[str, str]:
    folder = resources.files("pipeline") / "sources"
    entries = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda e: e.name
    )
    return {entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in entries}


def _parse(text: str, origin: str) -> SourceRules:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"source {origin}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UserError(f"source {origin}: expected rules such as 'description: ...' and 'reader: grid'")
    try:
        return SourceRules.model_validate(content)
    except ValidationError as error:
        raise UserError(f"source {origin}: {_first_fault(error)}") from error


def _first_fault(error: ValidationError) -> str:
    """Say in one line what is wrong first: key, value, reason."""
    first, *others = error.errors()
    key = ".".join(map(str, first["loc"]))
    more = f" (and {len(others)} more)" if others else ""
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; known here: {', '.join(_known(first['loc'][:-1]))}{more}"
    shown = isinstance(first["input"], str | int | float | bool | list) and first["type"] != "missing"
    value = f" = {first['input']!r}" if shown else ""
    return f"{key}{value}: {reason}{more}".removeprefix(": ")


def _known(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "time": TimeRules,
        "dbz": DbzRules,
        "hdf5": Hdf5Rules,
        "dynamics": OtherVariable,
        "statics": OtherVariable,
    }
    model = sections.get(str(location[0]), SourceRules) if location else SourceRules
    return list(model.model_fields)
