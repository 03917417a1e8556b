"""What the sweep engine saves and what it costs, measured on real sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.benchmarks.pair import the_pair
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.storage.files import join, resolve
from pipeline.tracking import default_uri
from pipeline.tuning.opening import open_sweep
from pipeline.tuning.study import Ended
from pipeline.tuning.tune_run import run_trials


@dataclass(frozen=True)
class StageCacheSaving:
    """One sweep with shared stages and one without, otherwise the same.

    Attributes
    ----------
    shared, alone : int
        Training steps with and without.
    same_best : bool
        Whether both found the same best trial, with the same CRPS.
    trials : int
    """

    shared: int
    alone: int
    same_best: bool
    trials: int

    def __str__(self) -> str:
        return (
            f"stage-cache: {self.trials} trials took {self.shared:,} training steps with shared stages and "
            f"{self.alone:,} without: {self.shared / self.alone:.3f} of them; "
            f"{'the same best trial' if self.same_best else 'ANOTHER BEST TRIAL'}"
        )


def stage_cache_saving(config: Config) -> StageCacheSaving:
    """Run a sweep of one pair twice: with shared stages and with every stage trained by every trial."""
    ran = {share: _sweep(config, f"share-{share}".lower(), share_stages=share) for share in (True, False)}
    shared, alone = (sum(trial.outcome.trained_steps for trial in ran[share]) for share in (True, False))
    best = [min((t for t in trials if t.outcome.model_url), key=lambda t: t.crps) for trials in ran.values()]
    same = (best[0].number, best[0].crps) == (best[1].number, best[1].crps)
    return StageCacheSaving(shared, alone, same, len(ran[True]))


@dataclass(frozen=True)
class TrialOverhead:
    """What a trial costs beyond training and scoring.

    Attributes
    ----------
    seconds : float
        Mean over all trials but the first of a sweep that runs one trial at a time.
    work : float
        Mean seconds of training and scoring of the same trials.
    trials : int
    """

    seconds: float
    work: float
    trials: int

    def __str__(self) -> str:
        return (
            f"trial-overhead: {self.seconds:.2f} s per trial beyond {self.work:.2f} s of training and "
            f"scoring: {self.seconds / self.work:.3f} of it ({self.trials} trials, one at a time)"
        )


def trial_overhead(config: Config) -> TrialOverhead:
    """Run a sweep of one pair, one trial at a time; the time between ends less the work is overhead.

    The first trial is left out: it starts the process that the others find warm.
    """
    trials = _sweep(config, "overhead", fresh=True, concurrent_trials=1, at_once=1)
    complete = [trial for trial in trials if trial.outcome.model_url]
    if len(complete) < len(trials) or len(trials) < 2:
        raise UserError("tuning.trials: give 2 or more that are not pruned (--set tuning.pruning.rungs=0)")
    work = [
        trial.outcome.metrics["training_seconds"] + trial.outcome.metrics["scoring_seconds"]
        for trial in trials[1:]
    ]
    wall = (trials[-1].at - trials[0].at).total_seconds()
    return TrialOverhead((wall - sum(work)) / len(work), sum(work) / len(work), len(work))


def _sweep(config: Config, name: str, *, fresh: bool = False, **tuning: Any) -> list[Ended]:
    """Run a sweep in a folder of its own, without report; gives its trials. `fresh`: all in one go."""
    the_pair(config)
    output = join(resolve(config.output), "benchmark", name)
    uri = config.tracking.uri or default_uri(output)
    changed = config.model_copy(
        update={
            "output": output,
            "tuning": config.tuning.model_copy(update=tuning),
            "tracking": config.tracking.model_copy(update={"uri": uri}),
        }
    )
    with open_sweep(changed) as sweep:
        (study,) = sweep.studies.values()
        if fresh and study.done:
            raise UserError(f"{changed.output}: measured before; give another --output, or remove it")
        run_trials(sweep, sweep.trial_job())
        sweep.tracker.end(study.name, "FINISHED")
        sweep.tracker.end(sweep.name, "FINISHED")
        return study.ended
