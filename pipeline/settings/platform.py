"""What a final training takes, where runs are recorded, which cluster they run on."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.factors import PairField
from pipeline.settings.base import Settings


class TrainSettings(Settings):
    """The training of one pair's final model by jobs/train.py."""

    pair: PairField | None = Field(None, description="factor pair, as in 10x3")
    recipe: str | None = Field(None, description="recipe with the pair's values; none: the paper's prior")
    workers: int = Field(1, ge=1, description="processes that train together")
    min_workers: int | None = Field(
        None,
        ge=1,
        description="go on with so few when nodes are lost, grow again when they join; none: never",
    )
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    max_failures: int = Field(3, ge=-1, description="lost workers after which it gives up; -1: never")
    resize_seconds: float = Field(60.0, gt=0, description="elastic: how often a larger size is considered")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="of the training; none: derived from data and settings",
    )

    @model_validator(mode="after")
    def _at_most_all(self) -> TrainSettings:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers ({self.min_workers}) is above workers ({self.workers})")
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
