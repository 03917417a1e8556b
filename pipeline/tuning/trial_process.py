"""Where a trial runs: in the process that Ray gave it, or on workers of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.config import TuningSettings
from pipeline.ranks import Ranks
from pipeline.storage.files import join
from pipeline.training.loop import StepReport
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.trial import Point, TrialJob, run_trial


@dataclass(frozen=True)
class _Rung:
    """Message: the score at a rung."""

    step: int
    crps: float


@dataclass(frozen=True)
class _Work:
    """What every worker of a trial does."""

    job: TrialJob
    point: Point
    owner: str

    def __call__(self, ranks: Ranks, tell: Callable[[Any], None]) -> Outcome:
        return run_trial(
            self.job.shared_by(ranks),
            self.point,
            owner=self.owner,
            ranks=ranks,
            on_report=tell,
            on_rung=lambda step, crps: tell(_Rung(step, crps)),
        )


def run_where_configured(
    job: TrialJob,
    point: Point,
    *,
    owner: str,
    on_report: Callable[[StepReport], None] | None = None,
    on_rung: Callable[[int, float], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Outcome:
    """Run a trial with `tuning.workers_per_trial` processes; one is this one. See `run_trial`."""
    settings = job.config.tuning
    if settings.workers_per_trial == 1:
        return run_trial(job, point, owner=owner, on_report=on_report, on_rung=on_rung)
    from pipeline.training.distributed import Workers, run_on_workers
    from pipeline.training.messages import note_of

    def hand_on(message: Any) -> None:
        if isinstance(message, StepReport) and on_report:
            on_report(message)
        elif isinstance(message, _Rung) and on_rung:
            on_rung(message.step, message.crps)
        elif on_note and (note := note_of(message)) is not None:
            on_note(note)

    count, each = settings.workers_per_trial, (settings.cpus_per_trial, settings.gpus_per_trial)
    outcome: Outcome = run_on_workers(
        _Work(job, point, owner),
        Workers(count, None, *each),
        storage=join(job.config.output, "unfinished", f"ray-{job.sweep}-{point.pair}-{point.label}"),
        on_message=hand_on,
    )
    return outcome


def process_resources(settings: TuningSettings) -> dict[str, float]:
    """Give what the process that Ray starts for a trial takes: next to nothing if it waits for workers.

    A share of the resource that every cluster has once: without any, Ray Tune would not place it.
    """
    if settings.workers_per_trial > 1:
        return {"CPU": 0.0, "node:__internal_head__": 1e-4}
    return {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}


def most_at_once(settings: TuningSettings, cluster: dict[str, float]) -> int | None:
    """Give how many trials may run at once: workers that wait for each other's room would wait for ever."""
    if settings.workers_per_trial == 1:
        return settings.concurrent_trials
    wanted = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}
    room = [
        int(cluster.get(kind, 0.0) // (amount * settings.workers_per_trial))
        for kind, amount in wanted.items()
        if amount
    ]
    return max(1, min([*room, settings.concurrent_trials or room[0]]))
