"""The configuration of every job: one typed tree; `config_layers` says how it is filled."""

from __future__ import annotations

from typing import Literal

import yaml
from pydantic import Field, model_validator

from pipeline.settings.base import Settings
from pipeline.settings.data import DataSettings, SplitSettings, SyntheticSettings
from pipeline.settings.downscaling import DownscalingSettings
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.model import ModelSettings, SamplingSettings, ScoringSettings
from pipeline.settings.platform import RaySettings, TrackingSettings, TrainSettings
from pipeline.settings.training import CheckpointSettings, ParallelSettings, TrainingSettings
from pipeline.settings.tuning import PruningSettings, TuningSettings

__all__ = [
    "CheckpointSettings",
    "Config",
    "DataSettings",
    "DownscalingSettings",
    "EvaluationSettings",
    "ModelSettings",
    "ParallelSettings",
    "PruningSettings",
    "RaySettings",
    "SamplingSettings",
    "ScoringSettings",
    "Settings",
    "SplitSettings",
    "SyntheticSettings",
    "TrackingSettings",
    "TrainSettings",
    "TrainingSettings",
    "TuningSettings",
]


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
    downscaling: DownscalingSettings = DownscalingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tuning: TuningSettings = TuningSettings()
    train: TrainSettings = TrainSettings()
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
