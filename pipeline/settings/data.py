"""Which field, and which windows of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

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
    split: SplitSettings = SplitSettings()
    memory_gib: float = Field(4.0, ge=0, description="a split up to this size is read into memory once")

    def deciding(self) -> dict[str, Any]:
        """Give what decides a result beside the data themselves, for names that tell results apart."""
        return self.model_dump(mode="json", exclude={"store", "synthetic", "memory_gib"})
