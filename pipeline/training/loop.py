"""The one training loop: a stage of a model, alone or as one of several ranks, in plain torch.

The randomness of a step, and the windows it sees, come from its number, so a resumed stage needs no random
state and ends with the same weights as an undisturbed one. A window's part in a step does not depend on the
rank that it falls to, so the number of ranks changes nothing but the order of additions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pipeline.config import TrainingSettings
from pipeline.data.batch import Batch
from pipeline.data.windows import Windows
from pipeline.models.family import Loss, Stage, SuperResolutionModel
from pipeline.ranks import Ranks
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.feed import Feed, MicroBatch, micro_batch_size
from pipeline.training.memory import MemoryUse, measured, start_measuring
from pipeline.training.sharding import arithmetic, lay_out, reduce_gradients
from pipeline.training.state import StageState

_PREPARE_WINDOWS = 64  # a statistic such as the residual's scale needs no more than these

Weights = dict[str, Tensor]
"""A stage's averaged weights and its buffers by name, whole and on the CPU."""


@dataclass(frozen=True)
class StepReport:
    """What a stage tells while it trains.

    Attributes
    ----------
    stage : str
    step, steps : int
        Steps done, and of how many.
    loss : float
        Mean over the steps since the last report.
    learning_rate : float
    gradient_norm : float
        Before clipping, at this step.
    cached : bool
        The stage came from the cache as a whole: nothing was trained, the loss is NaN.
    validation_loss : float or None
        Of the averaged weights, if it was computed after this step.
    rate : float
        Steps per second since the last report, as the first rank saw it.
    """

    stage: str
    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    cached: bool = False
    validation_loss: float | None = None
    rate: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Hooks:
    """What a training calls. What is in step with other ranks, `on_rung` and `validate`, all of them have.

    Attributes
    ----------
    on_start : callable, optional
        Called with the stage's name, the steps done before and all of them.
    on_report : callable, optional
        Called every `report_every` steps, at the last, and with each validation loss.
    rungs : collection of int
        Steps after which `on_rung` is called.
    on_rung : callable, optional
        Called with the step and the averaged weights. What it raises ends the training; what it is told once
        it is told again if a kill undid the step.
    validate : callable, optional
        Gives the validation loss of averaged weights; called with each checkpoint.
    on_memory : callable, optional
        Called at the end of a stage that has taken a step, with its name and what each rank held.
    """

    on_start: Callable[[str, int, int], None] | None = None
    on_report: Callable[[StepReport], None] | None = None
    rungs: Collection[int] = ()
    on_rung: Callable[[int, Weights], None] | None = None
    validate: Callable[[Weights], float] | None = None
    on_memory: Callable[[str, list[MemoryUse]], None] | None = None


@dataclass
class _Progress:
    """What has happened since the last report."""

    losses: list[Tensor] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def report(self, stage: Stage, done: int, rate: float, norm: Tensor) -> StepReport:
        """Sum it up; asking for the loss makes a GPU wait, so not at every step."""
        mean, gradient_norm = float(torch.stack(self.losses).mean()), float(norm)
        if not math.isfinite(mean + gradient_norm):  # before a checkpoint keeps what came of it
            raise FloatingPointError(
                f"stage {stage.name}: loss is {mean}, gradient norm {gradient_norm} before step {done}"
            )
        pace = len(self.losses) / max(time.monotonic() - self.began, 1e-9)
        return StepReport(stage.name, done, stage.steps, mean, rate, gradient_norm, rate=pace)


def train_stage(
    model: SuperResolutionModel,
    stage: Stage,
    windows: Windows,
    settings: TrainingSettings,
    *,
    seed: int,
    ranks: Ranks | None = None,
    checkpoints: Checkpoints | None = None,
    hooks: Hooks | None = None,
) -> Weights:
    """Train the parameters of one stage; gives its averaged (EMA) weights, on every rank.

    Parameters
    ----------
    model : SuperResolutionModel
        Whole, the same on every rank; used up: afterwards it is sharded and holds the last weights.
    stage : Stage
    windows : Windows
        Training windows.
    settings : TrainingSettings
    seed : int
    ranks : Ranks, optional
        Alone on the CPU unless given.
    checkpoints : Checkpoints, optional
        Training carries on from the newest; that of the last step stays, so that a stage is not done twice.
    hooks : Hooks, optional

    Raises
    ------
    FloatingPointError
        If the loss is not finite; on every rank.
    """
    ranks, hooks = ranks or Ranks(), hooks or Hooks()
    feed = Feed(windows, settings, seed, stage.name, ranks)
    state, first = _begin(model, stage, feed, checkpoints)
    if hooks.on_start:
        hooks.on_start(stage.name, first, stage.steps)
    since, norm = _Progress(), torch.zeros(())
    with closing(feed.steps(first, stage.steps)) as steps, checkpoints or nullcontext():
        for step, parts in enumerate(steps, start=first):
            rate = settings.learning_rate * _rate_factor(step, stage.steps, settings.warmup_steps)
            state.set_rate(rate)
            loss, norm = _take_step(state, parts, settings, ranks)
            state.update_average(step)
            since.losses.append(loss)

            done = step + 1
            saves = checkpoints is not None and (
                done % settings.checkpoints.every == 0 or done == stage.steps
            )
            validates = saves and hooks.validate is not None
            reports = done % settings.report_every == 0 or done == stage.steps or validates
            validation = None
            if reports or saves:
                report = since.report(stage, done, rate, norm)
                validation = hooks.validate(state.averaged()) if hooks.validate and saves else None
            if reports:
                since = _Progress()
                if hooks.on_report:
                    hooks.on_report(replace(report, validation_loss=validation))
            if hooks.on_rung and done in hooks.rungs:  # before the checkpoint: what is passed was looked at
                hooks.on_rung(done, state.averaged())
            if checkpoints and saves:
                checkpoints.save(done, state.tensors(), validation)

    if first < stage.steps:
        held = ranks.gather(measured(state.bytes(), ranks.device))
        if hooks.on_memory:
            hooks.on_memory(stage.name, held)
    return _final_weights(state, settings, checkpoints)


def _begin(
    model: SuperResolutionModel, stage: Stage, feed: Feed, checkpoints: Checkpoints | None
) -> tuple[StageState, int]:
    """Lay the model out and bring it to where an earlier attempt stood; gives the steps that were done."""
    ranks, settings = feed.ranks, feed.settings
    if ranks.alone:  # else each block goes to the device when it is sharded, so that none holds the whole
        model.to(ranks.device)
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.owns(name))
    lay_out(model, settings, ranks)
    state, first = StageState(model, stage, settings), 0
    if checkpoints:
        first = checkpoints.restore(state.tensors())
        state.restored(first)
    start_measuring(ranks.device)
    if first == 0:
        with arithmetic(settings, ranks.device):
            model.prepare(stage.name, _preparing_batches(feed))
        state.agree_on_buffers(ranks)
    return state, first


def _take_step(
    state: StageState, parts: list[MicroBatch], settings: TrainingSettings, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Give the loss of the whole batch and the norm of its gradient, having gone down it.

    How many values are valid is known only when all ranks have counted theirs. Gradients are therefore those
    of the sum, over a constant of its order, and scaled before they are used; they come averaged over ranks.
    """
    state.optimizer.zero_grad(set_to_none=True)
    totals = torch.zeros(2, dtype=torch.float64, device=ranks.device)
    constant = float(parts[0].batch.fine[0].numel() * settings.batch)
    for number, part in enumerate(parts):
        if len(parts) > 1:
            reduce_gradients(state.model, number == len(parts) - 1)
        with arithmetic(settings, ranks.device):
            loss = state.model.loss(state.stage.name, part.batch.to(ranks.device), part.draws)
        (loss.total / constant).backward()
        totals += torch.stack([loss.total.detach(), loss.weight]).double()
    whole = Loss(*ranks.sum(totals))
    norm = state.apply_gradients(ranks.world * constant / whole.weight.clamp(min=1))
    return whole.mean, norm


def _final_weights(state: StageState, settings: TrainingSettings, checkpoints: Checkpoints | None) -> Weights:
    if checkpoints and settings.weights == "best":
        checkpoints.restore_best(state.tensors())
    return state.averaged()


def _rate_factor(step: int, steps: int, warmup: int) -> float:
    """Rise linearly to 1 over the warm-up (at most a quarter of all steps), then fall to 0 as a cosine."""
    warmup = min(warmup, steps // 4)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _preparing_batches(feed: Feed) -> Iterator[Batch]:
    """Give the stage's first windows, the same on all ranks, as many at once as a micro-batch has."""
    batch = feed.settings.batch
    numbers = [index for step in range(-(-_PREPARE_WINDOWS // batch)) for index in feed.indices(step)]
    size = micro_batch_size(feed.settings, feed.ranks.world)
    for first in range(0, _PREPARE_WINDOWS, size):
        yield feed.windows.batch(numbers[first : first + size]).to(feed.ranks.device)
