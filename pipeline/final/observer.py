"""What is shown and recorded while workers train: a bar, a line per report, metrics of the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.tracking import Tracker
from pipeline.training.loop import StepReport
from pipeline.training.memory import MemoryEstimate, MemoryUse, describe, describe_measured
from pipeline.training.messages import GroupStarted, Waiting, Warned, WorkersLost, note_of


@dataclass(frozen=True)
class StageBegun:
    """Message: a stage begins, or carries on, at a step."""

    stage: str
    step: int
    steps: int


@dataclass(frozen=True)
class MemoryEstimated:
    """Message: what each stage will take on the rank that holds most."""

    stages: list[MemoryEstimate]


@dataclass(frozen=True)
class StageMemory:
    """Message: what each rank held at the end of a stage."""

    stage: str
    ranks: list[MemoryUse]


@dataclass(frozen=True)
class Scoring:
    """Message: all stages are trained."""


class TrainingObserver:
    """Told by the workers, in the driver, of everything they do.

    Parameters
    ----------
    tracker : Tracker
    run : str
        Key of the training's run.
    steps : int
        Of all stages together.
    open_bar : callable
        Shows a progress bar of so many steps; gives what moves it.
    say : callable
        Prints a line.
    """

    def __init__(
        self,
        tracker: Tracker,
        run: str,
        steps: int,
        open_bar: Callable[[int], Callable[[int], None]],
        say: Callable[[str], None],
    ) -> None:
        self._tracker, self._run, self._steps = tracker, run, steps
        self._open_bar, self._say = open_bar, say
        self._advance: Callable[[int], None] | None = None
        self._done: dict[str, int] = {}
        self._workers = 0

    def __call__(self, message: Any) -> None:
        """Take one message."""
        match message:
            case GroupStarted(workers):
                self._say(f"{workers} worker{'s' * (workers > 1)} started")
                self._workers = workers
            case WorkersLost() | Waiting() | Warned():
                self._say(str(note_of(message)))
            case MemoryEstimated(stages):
                text = describe(stages)
                self._say(text)
                self._tracker.text(self._run, "memory/estimate.txt", f"{text}\n")
            case StageBegun(stage, step, steps):
                self._begin(stage, step, steps)
            case StepReport():
                self._report(message)
            case StageMemory(stage, ranks):
                text = describe_measured(stage, ranks)
                self._say(text)
                self._tracker.text(self._run, f"memory/{stage}.txt", f"{text}\n")
                worst = max(ranks, key=lambda use: use.peak)
                held = {"sharded": max(use.sharded for use in ranks), "peak": worst.peak}
                self._tracker.metrics(
                    self._run, {f"{stage}_{name}_mib": size / 2**20 for name, size in held.items()}
                )
            case Scoring():
                self._say("scoring on the validation and test split")

    def _begin(self, stage: str, step: int, steps: int) -> None:
        if step == steps:
            self._say(f"{stage}: trained already")
        elif step:
            self._say(f"{stage}: carrying on after step {step} of {steps}")
        self._move(stage, step)
        self._tracker.metrics(self._run, {"workers": self._workers}, sum(self._done.values()))
        if self._advance is None and step < steps:  # what was done before tells nothing of today's pace
            self._advance = self._open_bar(self._steps - sum(self._done.values()))

    def _report(self, report: StepReport) -> None:
        self._move(report.stage, report.step)
        values = {
            "loss": report.loss,
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "steps_per_second": report.rate,
            "validation_loss": math.nan if report.validation_loss is None else report.validation_loss,
        }
        metrics = {f"{report.stage}_{name}": value for name, value in values.items()}
        self._tracker.metrics(self._run, metrics, report.step)
        validation = "" if report.validation_loss is None else f", validation {report.validation_loss:.4g}"
        self._say(
            f"{report.stage} {report.step:,}/{report.steps:,}: loss {report.loss:.4g}{validation}, "
            f"{report.rate:.3g} steps/s"
        )

    def _move(self, stage: str, step: int) -> None:
        """Move the bar; backwards not, when steps are repeated after a loss."""
        done = self._done.get(stage, 0)
        if step > done:
            self._done[stage] = step
            if self._advance is not None:
                self._advance(step - done)
