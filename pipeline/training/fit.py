"""From a specification and windows to a trained model: stage by stage, finished ones from a cache."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from pipeline.config import TrainingSettings
from pipeline.data.windows import Windows
from pipeline.diffusion.noise import StepDraws
from pipeline.files import join
from pipeline.models.families import build_model, family_stages
from pipeline.models.family import ModelSpec, Stage, SuperResolutionModel
from pipeline.ranks import Ranks
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import Hooks, StepReport, Weights, train_stage
from pipeline.training.sharding import arithmetic

_WORD_SECONDS = 30.0


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
    ranks: Ranks | None = None,
    cache: StageCache | None = None,
    checkpoint_url: str | None = None,
    validation: Windows | None = None,
    hooks: Hooks | None = None,
    on_rung: Callable[[int, SuperResolutionModel], None] | None = None,
) -> SuperResolutionModel:
    """Train all stages of a model, in step with the other ranks.

    Parameters
    ----------
    spec : ModelSpec
    windows : Windows
        Training windows with the spec's context.
    settings : TrainingSettings
    seed : int
        Of the weights and of every step.
    ranks : Ranks, optional
        Alone on the CPU unless given.
    cache : StageCache, optional
        Asked by the first rank only.
    checkpoint_url : str, optional
        Folder of what unfinished stages are kept in.
    validation : Windows, optional
        Windows whose loss is computed with each checkpoint.
    hooks : Hooks, optional
        Reports come from the first rank only; a stage from the cache reports once, with a loss of NaN. Rungs
        are steps of the last stage, for only there can the model sample.
    on_rung : callable, optional
        Called on every rank with the step and a whole model; it may raise to end the training.

    Returns
    -------
    SuperResolutionModel
        Whole, on this rank's device.
    """
    ranks, hooks = ranks or Ranks(), hooks or Hooks()
    stages, finished = family_stages(spec.settings, settings), Weights()

    def model_with(weights: Weights) -> SuperResolutionModel:
        model = build_model(spec, seed)
        model.load_state_dict(finished | weights, strict=False)
        return model.to(ranks.device).eval().requires_grad_(False)

    for stage in stages:
        state = _fetched(cache, stage, spec, ranks) if cache is not None else None
        if state is not None:
            build_model(spec, seed).load_stage(stage, state)  # refuses what is not of this model
            finished |= state
            if hooks.on_report and ranks.main:
                hooks.on_report(
                    StepReport(stage.name, stage.steps, stage.steps, float("nan"), 0.0, 0.0, cached=True)
                )
            continue

        def report(step: StepReport, stage: Stage = stage) -> None:
            if ranks.main and cache is not None:
                cache.renew(stage, spec)
            if ranks.main and hooks.on_report:
                hooks.on_report(step)

        def validate(weights: Weights, stage: Stage = stage) -> float:
            assert validation is not None
            return stage_loss(model_with(weights), stage, validation, settings, seed=seed, ranks=ranks)

        state = train_stage(
            model_with({}),
            stage,
            windows,
            settings,
            seed=seed,
            ranks=ranks,
            checkpoints=_checkpoints(checkpoint_url, stage, settings, ranks) if checkpoint_url else None,
            hooks=replace(
                hooks if ranks.main else Hooks(rungs=hooks.rungs),
                on_report=report,
                rungs=hooks.rungs if stage is stages[-1] else (),
                on_rung=(lambda step, weights: on_rung(step, model_with(weights))) if on_rung else None,
                validate=validate if validation is not None else None,
            ),
        )
        finished |= state
        if cache is not None and ranks.main:
            cache.publish(stage, spec, state)
    return model_with({})


def _fetched(cache: StageCache, stage: Stage, spec: ModelSpec, ranks: Ranks) -> Weights | None:
    """Let the first rank fetch or claim, which may take as long as another trial trains the stage.

    The others hear of it now and then: a process that waits for a message gives up after a while.
    """
    if ranks.alone:
        return cache.fetch_or_claim(stage, spec)
    with ThreadPoolExecutor(1) as aside:
        fetching = aside.submit(cache.fetch_or_claim, stage, spec) if ranks.main else None
        while not ranks.agree(fetching in wait([fetching], _WORD_SECONDS).done if fetching else None):
            continue
        return ranks.agree(fetching.result() if fetching else None)


@torch.no_grad()
def stage_loss(
    model: SuperResolutionModel,
    stage: Stage,
    windows: Windows,
    settings: TrainingSettings,
    *,
    seed: int,
    ranks: Ranks,
) -> float:
    """Give a stage's loss on all windows, with the same noise every time; each rank computes its share."""
    numbers, size = ranks.share(range(len(windows))), max(1, settings.batch // ranks.world)
    totals = torch.zeros(2, dtype=torch.float64, device=ranks.device)
    for first in range(0, len(numbers), size):
        some = numbers[first : first + size]
        batch = windows.batch(list(some)).to(ranks.device)
        draws = StepDraws(seed, f"{stage.name}/validation", 0, len(windows), some)
        with arithmetic(settings, ranks.device):
            loss = model.loss(stage.name, batch, draws)
        totals += torch.stack([loss.total, loss.weight]).double()
    total, weight = ranks.sum(totals)
    return float(total / weight.clamp(min=1))


def _checkpoints(url: str, stage: Stage, settings: TrainingSettings, ranks: Ranks) -> Checkpoints:
    kept = settings.checkpoints
    asynchronous = ranks.device.type == "cuda" if kept.asynchronous is None else kept.asynchronous
    return Checkpoints(join(url, stage.name), ranks, kept.keep, kept.keep_best, asynchronous)
