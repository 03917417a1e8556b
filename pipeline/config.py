"""The configuration of every job: one typed tree; `config_layers` says how it is filled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.factors import PairField

Levels = tuple[Annotated[int, Field(ge=1)], ...]
"""One number per level of a U-Net."""


class Settings(BaseModel):
    """Base of every part of the tree: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class TrainingSettings(Settings):
    """How each stage is trained."""

    mean_steps: int = Field(400, ge=1)
    residual_steps: int = Field(600, ge=1)
    batch: int = Field(8, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(500, ge=0, description="linear warm-up; a cosine to zero follows")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights that sampling uses")
    augment: bool = Field(
        False,
        description="turn and mirror training windows at random; the direction of motion is then lost",
    )
    amp: bool = Field(True, description="bfloat16 autocast where the device is a GPU")
    report_every: int = Field(50, ge=1, description="steps between reports")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints of an unfinished stage")

    def deciding(self) -> dict[str, Any]:
        """Give what decides a result, for names that tell results apart."""
        return self.model_dump(mode="json", exclude={"report_every", "checkpoint_every"})


class SamplingSettings(Settings):
    """How ensembles are drawn: trials are scored with exactly what downscaling uses."""

    sampler: Literal["dpm_solver_pp_2m", "ddim", "ancestral"] = "dpm_solver_pp_2m"
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
    block_frames: int = Field(
        12, ge=1, description="bootstrap: windows within so many fine frames are drawn together"
    )
    block_patches: int = Field(
        2, ge=1, description="bootstrap: likewise windows within a square of so many patches"
    )
    resamples: int = Field(2000, ge=100, description="bootstrap: resamples behind each interval")


class PruningSettings(Settings):
    """Successive halving on the training steps of the last stage."""

    rungs: int = Field(2, ge=0, description="how often a trial is looked at before its end; 0: never")
    reduction: int = Field(
        2, ge=2, description="of this many trials one goes on; rungs lie at steps / reduction^1, 2, ..."
    )
    windows: int = Field(8, ge=1, description="validation windows that are scored at a rung")


class TuningSettings(Settings):
    """The sweep."""

    pairs: tuple[PairField, ...] = Field((), description="factor pairs, as in 10x3")
    trials: int = Field(8, ge=1, description="finished trials wanted per pair, pruned ones included")
    search_space: str = Field(
        "search_spaces.scale_adaptive", description="module with first_trials() and suggest()"
    )
    recipe: str | None = Field(
        None,
        description="recipe of an earlier sweep, to centre and narrow the search; none: the paper's prior",
    )
    objectives: tuple[Literal["crps", "spectral"], ...] = Field(
        ("crps",), min_length=1, description="scores to minimise; the first chooses among the Pareto set"
    )
    max_context: int = Field(16, ge=1, description="largest L that is tried")
    max_failures: int = Field(3, ge=0, description="failed trials per pair after which the pair is given up")
    startup_trials: int = Field(4, ge=1, description="trials before the sampler (TPE) models the scores")
    at_once: int = Field(
        2,
        ge=1,
        description="trials of one pair that may run at once; a trial is drawn knowing all but the last "
        "at_once - 1 before it, so that timing changes nothing",
    )
    pruning: PruningSettings = PruningSettings()
    share_stages: bool = Field(True, description="train a stage once for all trials that agree in it")
    compare: bool = Field(
        True, description="at the end also train the predicted and one fixed setting per pair, to compare"
    )
    predict: tuple[PairField, ...] = Field((), description="pairs to predict into the recipe, not tuned here")
    cpus_per_trial: float = Field(1.0, gt=0)
    gpus_per_trial: float = Field(0.0, ge=0, description="may be a fraction, as in 0.25")
    workers_per_trial: int = Field(1, ge=1, description="processes that train one trial together")
    concurrent_trials: int | None = Field(None, ge=1, description="none: as many as the cluster holds")
    storage: str | None = Field(None, description="Optuna database URL; none: a journal file under output")
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]+$", description="sweep name; none: derived from data and settings"
    )

    @field_validator("pairs", "predict", "objectives", mode="before")
    @classmethod
    def _list_from_text(cls, value: Any) -> Any:
        """Read `4x2,8x1` as the two that it names, wherever it comes from."""
        return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _listed_once(self) -> TuningSettings:
        for name in ("pairs", "predict", "objectives"):
            listed = getattr(self, name)
            doubled = sorted({str(one) for one in listed if listed.count(one) > 1})
            if doubled:
                raise ValueError(f"{name}: {', '.join(doubled)} given twice")
        return self


class TrackingSettings(Settings):
    """Where runs are recorded."""

    uri: str | None = Field(
        None, description="MLflow server or database; none: MLFLOW_TRACKING_URI, or sqlite under output"
    )
    experiment: str | None = Field(None, description="none: finescale/DATASET/FAMILY")
    register_models: bool = Field(True, description="register each pair's best model")
    patience: float = Field(
        60.0, ge=0, description="seconds to wait at the end for a server that does not answer"
    )


class RaySettings(Settings):
    """Which cluster."""

    address: str | None = Field(
        None, description="none: the job's or RAY_ADDRESS's cluster, else one on this machine"
    )
    cpus: int | None = Field(None, ge=1, description="logical CPUs of a cluster started here; none: all")


class Config(Settings):
    """Everything a job can be told."""

    preset: Literal["tiny", "small", "paper"] = "small"
    output: str = Field("runs", description="folder or URL for stores, studies, stages and models")
    seed: int = Field(0, ge=0)
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    sampling: SamplingSettings = SamplingSettings()
    scoring: ScoringSettings = ScoringSettings()
    tuning: TuningSettings = TuningSettings()
    tracking: TrackingSettings = TrackingSettings()
    ray: RaySettings = RaySettings()

    @model_validator(mode="after")
    def _steps_exist(self) -> Config:
        if self.sampling.steps > self.model.noise_steps:
            raise ValueError(
                f"sampling.steps = {self.sampling.steps} is more than the schedule has (model.noise_steps = "
                f"{self.model.noise_steps})"
            )
        return self

    def to_yaml(self) -> str:
        """Write the resolved tree; reading it back with `--config` gives the same configuration."""
        return yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=108
        )
