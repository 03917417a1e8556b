"""From a specification and windows to a trained model: stage by stage, finished ones from a cache."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import torch
from torch import Tensor

from pipeline.config import TrainingSettings
from pipeline.data.windows import Windows
from pipeline.models.families import build_model
from pipeline.models.family import ModelSpec, Stage, SuperResolutionModel
from pipeline.training.checkpoint import StageCheckpoint
from pipeline.training.loop import StepReport, train_stage


class StageCache(Protocol):
    """Where finished stages are shared between trainings."""

    def fetch_or_claim(self, stage: Stage, spec: ModelSpec) -> dict[str, Tensor] | None:
        """Give a finished stage's weights, or None once this training has the right to make them."""
        ...

    def publish(self, stage: Stage, spec: ModelSpec, state: dict[str, Tensor]) -> None:
        """Keep a finished stage and end the claim."""
        ...

    def renew(self, stage: Stage, spec: ModelSpec) -> None:
        """Say that the claim is still alive."""
        ...


def fit(
    spec: ModelSpec,
    windows: Windows,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    cache: StageCache | None = None,
    checkpoint_url: str | None = None,
    on_report: Callable[[StepReport], None] | None = None,
    rungs: Collection[int] = (),
    on_rung: Callable[[int, SuperResolutionModel], None] | None = None,
) -> SuperResolutionModel:
    """Train all stages of a model.

    Parameters
    ----------
    spec : ModelSpec
    windows : Windows
        Training windows with the spec's context.
    settings : TrainingSettings
    seed : int
        Of the weights and of every step.
    device : torch.device
    cache : StageCache, optional
    checkpoint_url : str, optional
        Prefix of the files that unfinished stages are kept in.
    on_report : callable, optional
        Called as `train_stage` does; a stage that comes from the cache reports once, with a loss of NaN.
    rungs : collection of int
        Steps of the last stage after which `on_rung` may look at the model; only there can it sample.
    on_rung : callable, optional
        Called with the step and the model; it may raise to end the training.
    """
    model = build_model(spec, seed)
    stages = type(model).stages(spec.settings, settings)
    for stage in stages:
        state = cache.fetch_or_claim(stage, spec) if cache is not None else None
        if state is not None:
            model.load_stage(stage, state)
            if on_report:
                on_report(
                    StepReport(stage.name, stage.steps, stage.steps, float("nan"), 0.0, 0.0, cached=True)
                )
            continue

        def report(step: StepReport, stage: Stage = stage) -> None:
            if cache is not None:
                cache.renew(stage, spec)
            if on_report:
                on_report(step)

        train_stage(
            model,
            stage,
            windows,
            settings,
            seed=seed,
            device=device,
            checkpoint=StageCheckpoint(checkpoint_file(checkpoint_url, stage)) if checkpoint_url else None,
            on_report=report,
            rungs=rungs if stage is stages[-1] else (),
            on_rung=(lambda step: on_rung(step, model)) if on_rung else None,
        )
        if cache is not None:
            cache.publish(stage, spec, model.stage_state(stage))
    return model.to(device).eval().requires_grad_(False)


def checkpoint_file(prefix: str, stage: Stage) -> str:
    """Name the file that an unfinished stage is kept in."""
    return f"{prefix}-{stage.name}.ckpt"
