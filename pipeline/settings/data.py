"""Which field, and which windows of it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.settings.base import Settings


class SyntheticSettings(Settings):
    """The embedded data set: seeded synthetic rain, used when no store is given."""

    frames: int = Field(240, ge=8, description="fine frames")
    height: int = Field(192, ge=16, description="pixels in y")
    width: int = Field(192, ge=16, description="pixels in x")
    cadence_minutes: float = Field(5.0, gt=0, description="time between fine frames")
    pixel_km: float = Field(1.0, gt=0, description="fine pixel size")
    wet_fraction: float = Field(0.25, gt=0, lt=1, description="share of pixel-frames with rain, on average")
    seed: int = Field(0, ge=0)


class SplitSettings(Settings):
    """Shares of the time axis, in time order: training, then validation, then test."""

    train: float = Field(0.6, gt=0, lt=1)
    validation: float = Field(0.2, gt=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)
    tiles: bool = Field(
        False, description="train on the black and score on the white tiles of a chessboard as well"
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitSettings:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, not {total:g}")
        return self


class DataSettings(Settings):
    """Which field, and which windows of it."""

    store: str | None = Field(None, description="field store (path or URL); none: synthetic rain")
    until: str | None = Field(
        None, description="use the store's frames up to this time; so a store that grows stays the same"
    )
    synthetic: SyntheticSettings = SyntheticSettings()
    patch: int = Field(48, ge=8, description="side of a window in fine pixels")
    trim: bool = Field(
        True, description="leave out the grid's last rows and columns that no whole coarse cell fills"
    )
    min_valid: float = Field(0.95, gt=0, le=1, description="least share of valid values in a window")
    wet_threshold: float = Field(
        0.1, ge=0, description="a value above this counts as wet, in the store's units"
    )
    min_wet: float = Field(
        0.1, ge=0, le=1, description="least share of wet cells in a window's last coarse frame"
    )
    transform: Literal["log1p", "sqrt", "linear"] = Field(
        "log1p", description="value transform the models work in"
    )
    statics: tuple[str, ...] | None = Field(
        None, description="static covariates, as in orography,soil; []: none; null: all of the store's"
    )
    dynamics: tuple[str, ...] | None = Field(
        None,
        description="dynamic covariates, seen coarsened, as in u10,v10; []: none; null: all of the store's",
    )
    split: SplitSettings = SplitSettings()
    most_windows: int = Field(
        2_000_000,
        ge=1,
        description="places looked at per split; if there are more, only every k-th block of time is",
    )
    saturation: float = Field(
        1.0,
        gt=0,
        description="how wet a window is: mean of 1 - exp(-x / this), in the store's units",
    )
    memory_gib: float = Field(
        4.0,
        ge=0,
        description="a split up to this size is read into memory once; shared by the ranks of a machine",
    )
    cache_gib: float = Field(
        1.0,
        gt=0,
        description="decoded chunks that each process keeps of a larger split",
    )

    @field_validator("statics", "dynamics", mode="before")
    @classmethod
    def _listed(cls, names: Any) -> Any:
        return tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else names

    @field_validator("until")
    @classmethod
    def _a_time(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                np.datetime64(text)
            except ValueError as error:
                raise ValueError("not a time; write it as 2020-06-01T06:00") from error
        return text

    def deciding(self) -> dict[str, Any]:
        """Give what decides a result beside the data themselves, for names that tell results apart."""
        reading = {"memory_gib", "cache_gib"}
        return self.model_dump(mode="json", exclude={"store", "until", "synthetic", *reading})
