"""How whole domains are refined."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.settings.base import Settings


def _listed(value: object) -> object:
    """Read `0.1,0.5,0.9` from the command line."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


Numbers = Annotated[tuple[float, ...], BeforeValidator(_listed)]


class DownscalingSettings(Settings):
    """Size of the ensemble, tiles, and what is written."""

    members: int = Field(16, ge=1, description="members of the ensemble")
    write_members: bool = Field(True, description="write the members; without, only their summary")
    quantiles: Numbers = Field((), description="quantiles of the ensemble to write, between 0 and 1")
    exceed: Numbers = Field((), description="amounts whose probability of exceedance to write, field's units")
    tile: int | None = Field(
        None, ge=8, description="side of what the network sees at once, in fine pixels; null: as in training"
    )
    overlap: float = Field(
        0.25, ge=0, le=0.75, description="part of its side that a tile shares with the next"
    )
    batch: int = Field(16, ge=1, description="tiles times members denoised at once; changes no field")
    members_at_once: int = Field(4, ge=1, description="members that one task draws together")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="what the networks compute in")
    compile: bool = Field(False, description="compile the networks; worth it on GPUs and long archives")
    scratch: str | None = Field(
        None, description="local folder for whole fields while they are drawn; null: the temporary folder"
    )
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0, description="may be a part of one, as in 0.25")
    max_failures: int = Field(3, ge=0, description="deaths of a worker after which the job gives up")

    @model_validator(mode="after")
    def _makes_sense(self) -> DownscalingSettings:
        if not all(0 < q < 1 for q in self.quantiles):
            raise ValueError(f"quantiles = {list(self.quantiles)}: each must lie between 0 and 1")
        for name in ("quantiles", "exceed"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} = {list(given)}: one comes twice; give each once")
        if not self.write_members and not self.summarised:
            raise ValueError("write_members = false: there is nothing to write; give quantiles or exceed")
        if self.summarised and self.members < 2:
            raise ValueError("members = 1: quantiles and probabilities need at least 2")
        return self

    @property
    def summarised(self) -> bool:
        """Whether quantiles or probabilities are wanted."""
        return bool(self.quantiles or self.exceed)
