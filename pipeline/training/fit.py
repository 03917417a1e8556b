"""From a specification and windows to a trained model: stage by stage, finished ones from a cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from pipeline.config import TrainingSettings
from pipeline.data.windows import Windows
from pipeline.diffusion.noise import StepDraws
from pipeline.models.families import build_model, family_stages
from pipeline.models.family import Loss, ModelSpec, Stage, SuperResolutionModel
from pipeline.ranks import Ranks
from pipeline.storage.files import join
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import Hooks, StepReport, Weights, train_stage
from pipeline.training.sharding import arithmetic

_CPU = torch.device("cpu")
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
    fitting = _Fitting(
        spec,
        windows,
        settings,
        seed,
        ranks or Ranks(),
        cache,
        checkpoint_url,
        validation,
        hooks or Hooks(),
        on_rung,
    )
    for stage in family_stages(spec.settings, settings):
        fitting.finish(stage)
    return fitting.model()


@dataclass
class _Fitting:
    """A training under way; the arguments are those of `fit`.

    Attributes
    ----------
    finished : dict
        Weights and buffers of the stages that are finished, whole and on the CPU.
    """

    spec: ModelSpec
    windows: Windows
    settings: TrainingSettings
    seed: int
    ranks: Ranks
    cache: StageCache | None
    checkpoint_url: str | None
    validation: Windows | None
    hooks: Hooks
    on_rung: Callable[[int, SuperResolutionModel], None] | None
    finished: Weights = field(default_factory=dict)

    def model(
        self, weights: Weights | None = None, device: torch.device | None = None
    ) -> SuperResolutionModel:
        """Build a whole model of the finished stages, with `weights` for the one that is being trained."""
        model = build_model(self.spec, self.seed)
        model.load_state_dict(self.finished | (weights or {}), strict=False)
        return model.to(device or self.ranks.device).eval().requires_grad_(False)

    def finish(self, stage: Stage) -> None:
        """Take a stage from the cache, or train it."""
        cache, ranks = self.cache, self.ranks
        state = _fetched(cache, stage, self.spec, ranks) if cache is not None else None
        if state is not None:
            build_model(self.spec, self.seed).load_stage(stage, state)  # refuses what is not of this model
            self._tell(StepReport(stage.name, stage.steps, stage.steps, math.nan, 0.0, 0.0, cached=True))
        else:
            state = train_stage(
                self.model(device=_CPU),
                stage,
                self.windows,
                self.settings,
                seed=self.seed,
                ranks=ranks,
                checkpoints=self._checkpoints(stage),
                hooks=self._hooks_of(stage),
            )
            if cache is not None and ranks.main:
                cache.publish(stage, self.spec, state)
        self.finished |= state

    def _hooks_of(self, stage: Stage) -> Hooks:
        """Give what every rank has to call at the same steps; what tells something is the first rank's."""
        validation, on_rung = self.validation, self.on_rung

        def report(step: StepReport) -> None:
            if self.cache is not None and self.ranks.main:
                self.cache.renew(stage, self.spec)
            self._tell(step)

        def validate(windows: Windows, weights: Weights) -> float:
            model = self.model(weights)
            return stage_loss(model, stage, windows, self.settings, seed=self.seed, ranks=self.ranks)

        is_last = stage == family_stages(self.spec.settings, self.settings)[-1]
        return replace(
            self.hooks if self.ranks.main else Hooks(),
            on_report=report,
            rungs=self.hooks.rungs if is_last else (),
            on_rung=(lambda step, weights: on_rung(step, self.model(weights))) if on_rung else None,
            validate=(lambda weights: validate(validation, weights)) if validation is not None else None,
        )

    def _tell(self, report: StepReport) -> None:
        if self.ranks.main and self.hooks.on_report:
            self.hooks.on_report(report)

    def _checkpoints(self, stage: Stage) -> Checkpoints | None:
        if self.checkpoint_url is None:
            return None
        kept = self.settings.checkpoints
        on_gpu = self.ranks.device.type == "cuda"
        asynchronous = on_gpu if kept.asynchronous is None else kept.asynchronous
        url = join(self.checkpoint_url, stage.name)
        return Checkpoints(url, self.ranks, kept.keep, kept.keep_best, asynchronous)


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
    return float(Loss(*ranks.sum(totals)).mean)
