"""The one training loop: a stage of a model, on one device, in plain torch.

The randomness of a step comes from its number (`step_generator`), so a resumed stage needs no random state
and ends with the same weights as an undisturbed one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.config import TrainingSettings
from pipeline.data.batch import Batch
from pipeline.data.windows import Windows
from pipeline.diffusion.noise import step_generator
from pipeline.models.family import Stage, SuperResolutionModel
from pipeline.training.checkpoint import StageCheckpoint

_PREPARE_BATCHES = 16  # a statistic such as the residual's scale needs no more than these


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
    """

    stage: str
    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    cached: bool = False


def train_stage(
    model: SuperResolutionModel,
    stage: Stage,
    windows: Windows,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    checkpoint: StageCheckpoint | None = None,
    on_report: Callable[[StepReport], None] | None = None,
    rungs: Collection[int] = (),
    on_rung: Callable[[int], None] | None = None,
) -> None:
    """Train the parameters of one stage; the averaged (EMA) weights are in the model when it returns.

    Parameters
    ----------
    model : SuperResolutionModel
        Changed in place; parameters of other stages stay fixed.
    stage : Stage
    windows : Windows
        Training windows.
    settings : TrainingSettings
    seed : int
    device : torch.device
    checkpoint : StageCheckpoint, optional
        Where an unfinished stage is kept; training carries on from it, and it is removed at the end.
    on_report : callable, optional
        Called every `report_every` steps and at the last.
    rungs : collection of int
        Steps after which `on_rung` is called, while the model holds the averaged weights, ready to sample.
        What it raises ends the training; what it is told once it is told again if a kill undid the step.
    on_rung : callable, optional

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    """
    model.to(device).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.owns(name))
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        named.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    average = {name: p.detach().clone() for name, p in named.items()}

    first = checkpoint.restore(model, optimizer, average, device) if checkpoint else 0
    if first == 0:
        model.prepare(stage.name, _preparing_batches(windows, settings, seed, stage, device))

    amp = torch.autocast(device.type, torch.bfloat16, enabled=settings.amp and device.type == "cuda")
    losses: list[Tensor] = []
    for step in range(first, stage.steps):
        rate = settings.learning_rate * _rate_factor(step, stage.steps, settings.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = step_generator(seed, stage.name, step)
        batch = windows.training_batch(settings.batch, generator, settings.augment).to(device)
        with amp:
            loss = model.loss(stage.name, batch, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(named.values(), settings.clip)
        optimizer.step()
        _update_average(average, named, settings.ema, step)
        losses.append(loss.detach())

        done = step + 1
        reports = done % settings.report_every == 0 or done == stage.steps
        saves = checkpoint is not None and done % settings.checkpoint_every == 0 and done < stage.steps
        if reports or saves:  # asking for the loss makes a GPU wait, so not at every step
            mean_loss = float(torch.stack(losses).mean())
            if not math.isfinite(mean_loss + float(norm)):  # before a checkpoint keeps what came of it
                raise FloatingPointError(
                    f"stage {stage.name}: loss is {mean_loss}, gradient norm {float(norm)} before step {done}"
                )
        if reports:
            losses.clear()
            if on_report:
                on_report(StepReport(stage.name, done, stage.steps, mean_loss, rate, float(norm)))
        if on_rung and done in rungs:  # before the checkpoint: a rung that has been passed was looked at
            with _averaged(model, named, average):
                on_rung(done)
        if checkpoint and saves:
            checkpoint.save(done, model, optimizer, average)

    _copy(average, named)
    model.eval().requires_grad_(False)
    if checkpoint:
        checkpoint.remove()


@contextlib.contextmanager
def _averaged(
    model: SuperResolutionModel, named: dict[str, nn.Parameter], average: dict[str, Tensor]
) -> Iterator[None]:
    """Put the averaged weights into the model for a while; training goes on from its own."""
    own = {name: parameter.detach().clone() for name, parameter in named.items()}
    _copy(average, named)
    model.eval()
    try:
        yield
    finally:
        _copy(own, named)
        model.train()


def _copy(values: dict[str, Tensor], named: dict[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(values[name])


def _rate_factor(step: int, steps: int, warmup: int) -> float:
    """Rise linearly to 1 over the warm-up (at most a quarter of all steps), then fall to 0 as a cosine."""
    warmup = min(warmup, steps // 4)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _update_average(
    average: dict[str, Tensor], named: dict[str, nn.Parameter], decay: float, step: int
) -> None:
    """Move the averages; early on with a shorter memory, so that the random start is forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        targets = [named[name].detach() for name in average]
        torch._foreach_lerp_(list(average.values()), targets, 1 - decay)


def _preparing_batches(
    windows: Windows, settings: TrainingSettings, seed: int, stage: Stage, device: torch.device
) -> Iterator[Batch]:
    for number in range(_PREPARE_BATCHES):
        generator = step_generator(seed, stage.name, "prepare", number)
        yield windows.training_batch(settings.batch, generator, augment=False).to(device)
