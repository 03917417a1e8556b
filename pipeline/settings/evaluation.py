"""What an evaluation looks at: thresholds, scales, quantiles, and which windows are one draw of weather."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.settings.base import Settings

_LISTS = ("thresholds", "scales", "quantiles", "return_windows")


class EvaluationSettings(Settings):
    """What metrics look at; how ensembles are drawn and on how many windows: `sampling`, `scoring`."""

    thresholds: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.1, 1.0, 5.0, 10.0), min_length=1, description="events are values of at least this much; in mm/h"
    )
    threshold_units: Literal["mm/h", "field"] = Field(
        "mm/h", description="field: thresholds, wet_threshold and ssim_range are in the field's own units"
    )
    scales: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3, 5, 9, 17, 33), min_length=1, description="neighbourhoods of the FSS: odd sides in fine pixels"
    )
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.9, 0.99, 0.999), min_length=1)
    return_windows: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (10, 50), min_length=1, description="return levels: the largest value of one window in so many"
    )
    reliability_bins: int = Field(10, ge=2, description="equally wide bins of forecast probability")
    wet_threshold: float = Field(0.1, gt=0, description="a pixel is wet from this on; in mm/h")
    ssim_range: float = Field(
        10.0, gt=0, description="range of values that the constants of the SSIM refer to; in mm/h"
    )
    blocks: Literal["auto", "box", "day"] = Field(
        "auto",
        description="windows that the bootstrap draws together: those in a box of scoring.block_hours and "
        "scoring.block_patches, those of one calendar day, or by the length of the split: box below 5 days",
    )
    level: float = Field(0.9, gt=0, lt=1, description="of the intervals")

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _list_from_text(cls, value: Any) -> Any:
        """Read `0.1,1,5` as the three that it names, wherever it comes from."""
        return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _lists_make_sense(self) -> EvaluationSettings:
        for name in _LISTS:
            values = getattr(self, name)
            if any(one >= other for one, other in pairwise(values)):
                raise ValueError(f"{name} {values} must increase")
        if even := [scale for scale in self.scales if scale % 2 == 0]:
            raise ValueError(f"scales {even} must be odd: a neighbourhood has a pixel in its middle")
        return self
