"""What a sweep tries."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.factors import PairField
from pipeline.settings.base import Settings


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
