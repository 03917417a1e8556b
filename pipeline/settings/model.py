"""The architecture of a family, and how ensembles are drawn from it and scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.settings.base import Settings

Levels = tuple[Annotated[int, Field(ge=1)], ...]
"""One number per level of a U-Net."""


class ModelSettings(Settings):
    """Architecture of the family."""

    family: Literal["scale_adaptive"] = "scale_adaptive"
    mean_widths: Levels = Field(
        (16, 32, 64, 128, 256), min_length=2, description="U-Net of the mean, per level"
    )
    mean_kernels: Levels = Field((3, 3, 1, 1, 1), description="local spatial attention, per level")
    mean_context_at: Literal["full", "half"] = Field(
        "full", description="resolution at which context frames join the last"
    )
    denoiser_widths: Levels = Field((64, 128, 256, 512), min_length=2)
    denoiser_kernels: Levels = Field((3, 3, 1, 1))
    heads: int = Field(4, ge=1)
    token_width: int = Field(128, ge=4, description="width of the L temporal tokens")
    token_layers: int = Field(2, ge=1)
    noise_steps: int = Field(1000, ge=10, description="T of the noise schedule")
    residual: Literal["standardised", "raw"] = Field(
        "standardised",
        description="whether the residual is divided by its standard deviation; changes what beta means",
    )
    mean_through_conservation: bool = Field(
        False, description="train the mean through f; it then depends on f and fewer trials can share one"
    )

    @model_validator(mode="after")
    def _levels_agree(self) -> ModelSettings:
        for name in ("mean", "denoiser"):
            widths, kernels = getattr(self, f"{name}_widths"), getattr(self, f"{name}_kernels")
            if len(widths) != len(kernels):
                raise ValueError(
                    f"{name}_kernels has {len(kernels)} levels and {name}_widths {len(widths)}: give one each"
                )
            if any(width % self.heads for width in widths):
                raise ValueError(f"{name}_widths {widths} must all be multiples of heads ({self.heads})")
            if any(kernel % 2 == 0 for kernel in kernels):
                raise ValueError(f"{name}_kernels {kernels} must be odd")
        if self.token_width % self.heads:
            raise ValueError(f"token_width {self.token_width} must be a multiple of heads ({self.heads})")
        return self


class SamplingSettings(Settings):
    """How ensembles are drawn: trials are scored with exactly what downscaling uses."""

    sampler: Literal["dpm_solver_pp_2m", "heun", "ddim", "ancestral"] = "dpm_solver_pp_2m"
    steps: int = Field(5, ge=1, description="network evaluations per member")
    members: int = Field(8, ge=2)


class ScoringSettings(Settings):
    """On how much held-out data the scores stand."""

    windows: int = Field(
        48, ge=1, description="at most this many windows of the validation split score a trial"
    )
    test_windows: int = Field(
        96, ge=1, description="likewise of the test split, for the best trial of each pair"
    )
    batch: int = Field(16, ge=1, description="windows sampled at once; does not change any score")
    block_hours: float = Field(
        1.0, gt=0, description="bootstrap: windows within so many hours are drawn together"
    )
    block_patches: int = Field(
        2, ge=1, description="bootstrap: likewise windows within a square of so many patches"
    )
    resamples: int = Field(2000, ge=100, description="bootstrap: resamples behind each interval")

    def block_frames(self, cadence_seconds: float) -> int:
        """Give how many fine frames a block is long: one at least, where frames are further apart."""
        return max(1, round(self.block_hours * 3600 / cadence_seconds))
