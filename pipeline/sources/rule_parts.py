"""The parts of source rules: time, reflectivity, further variables, the layout of an HDF5 file."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.settings.base import Settings

Select = dict[str, float | str]


class TimeRules(Settings):
    """Where the time of a frame comes from, and what it stands for."""

    pattern: str | None = Field(
        None,
        description="Regular expression that finds the time in the file's name, in its one group, as in "
        "'^(\\d{12})_'; without it the time is read from the file. Such a file holds one frame.",
    )
    format: str | None = Field(
        None, description="How that text is to be read: strptime's letters, as in '%Y%m%d%H%M' (UTC)."
    )
    stamp: Literal["end", "start"] = Field(
        "end",
        description="What a time stands for: the end of the interval (kept) or its start (then "
        "`accumulation` is added, because the store keeps the end).",
    )
    valid: tuple[str, str] | None = Field(
        None,
        description="Names of the file's attributes with the first and the last time that hold data, where "
        "the time axis is longer than the data; a date alone stands for the whole day.",
    )

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"no regular expression ({error})") from error
            if groups != 1:
                raise ValueError(f"needs one group (...) around the time, has {groups}")
        return pattern

    @model_validator(mode="after")
    def _both(self) -> TimeRules:
        if (self.pattern is None) != (self.format is None):
            raise ValueError("pattern and format go together")
        return self


class DbzRules(Settings):
    """From reflectivity to rain: Z = a R^b (Marshall and Palmer 1948)."""

    a: float = Field(200.0, gt=0, description="Factor of the power law, for Z in mm^6 m^-3 and R in mm/h.")
    b: float = Field(1.6, gt=0, description="Its exponent.")
    threshold: float | None = Field(None, description="dBZ below it count as dry.")


class OtherVariable(Settings):
    """A further variable of the same file."""

    variable: str = Field(description="Its name in the file.")
    select: Select = Field({}, description="One value of each further dimension, as in {level: 850}.")
    gain: float = Field(1.0, description="Its values are multiplied by this,")
    offset: float = Field(0.0, description="and this is added.")
    units: str | None = Field(None, description="Its units then, if they are not those of the file.")


class Hdf5Rules(Settings):
    """Where things lie in an HDF5 file that holds one image: `group/dataset`, or `group@attribute`."""

    image: str = Field(description="The image, (rows, columns), the first row in the north.")
    calibration: str | None = Field(None, description="A text of the form GEO=a*PV+b.")
    gain: str | None = Field(None, description="The factor, where there is no such text,")
    offset: str | None = Field(None, description="and what is added.")
    missing: tuple[str, ...] = Field(
        (), description="Codes of missing pixels; those that are not there are ignored."
    )
    dry: tuple[str, ...] = Field((), description="Codes of pixels without rain; likewise.")
    units: str | None = Field(None, description="Units, alone or in [brackets] within a text.")
    start: str | None = Field(None, description="Start of the interval.")
    end: str | None = Field(None, description="Its end, which becomes the frame's time.")
    time_format: str | None = Field(None, description="strptime's letters for both; %b is an English month.")
    projection: str | None = Field(None, description="PROJ or WKT text.")
    shape: tuple[str, str] | None = Field(None, description="Declared rows and columns, to be checked.")
    pixel_size: tuple[str, str] = Field(description="Size of a pixel along y and along x, signed.")
    first_pixel: tuple[str, str] = Field(
        description="Pixels from the projection's origin to the first pixel's outer corner, along y, along x."
    )
    coordinate_units: str = Field("km", description="Units of the pixel size.")
    product: str | None = Field(None, description="Name of the product, for {product} in `source`.")
