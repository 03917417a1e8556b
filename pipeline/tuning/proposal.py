"""Which point a study tries next, and when a trial of it is pruned: pure functions of what is known.

Trial `n` of a study is drawn from the results of trials 0 to n - `at_once` alone, and those must have ended
before it may begin; later ones count as still running, whether they have ended or not. So a sweep tries the
same points whatever was killed, on however many machines, and in whatever order its trials end.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from pipeline.config import PruningSettings
from pipeline.errors import one_line
from pipeline.factors import ScaleParameters
from pipeline.tuning.search_space import refuse


def draw(
    ended: Sequence[FrozenTrial], running: Sequence[FrozenTrial], objectives: int, startup: int, key: str
) -> optuna.Trial:
    """Open a trial that `suggest` can draw from, by TPE on a copy of the study that holds just these trials.

    Parameters
    ----------
    ended : sequence of FrozenTrial
        Whose results may be used.
    running : sequence of FrozenTrial
        Whose points are known, and no result.
    objectives : int
        How many scores a complete trial has.
    startup : int
        Trials before TPE models the scores.
    key : str
        Names the draw; the sampler's seed.
    """
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(
            seed=seed,
            n_startup_trials=startup,
            multivariate=True,
            group=True,  # a taper has parameters that the identity lacks
            constant_liar=True,  # what still runs counts as bad, so that neighbours are not tried at once
        )
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
    study.add_trials(ended)
    study.add_trials(
        optuna.trial.create_trial(
            state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
        )
        for trial in running
    )
    return study.ask()


def suggest(space: Any, name: str, trial: Any, *arguments: Any) -> ScaleParameters:
    """Call a scientist's `suggest`; whatever it raises is said to come from there."""
    try:
        parameters: ScaleParameters = space.suggest(trial, *arguments)
    except Exception as error:
        raise refuse(name, f"suggest() failed ({one_line(error)})") from error
    return parameters


def rung_steps(steps: int, pruning: PruningSettings) -> tuple[int, ...]:
    """Give the steps of the last stage where a trial may be pruned: steps / eta^rungs, ..., steps / eta."""
    rungs = {steps // pruning.reduction**i for i in range(1, pruning.rungs + 1)}
    return tuple(sorted(step for step in rungs if step > 0))


def rung_limits(
    ended: Sequence[FrozenTrial], rungs: Sequence[int], pruning: PruningSettings, startup: int
) -> dict[int, float | None]:
    """Give the highest CRPS with which a trial goes on past each rung; None: with any.

    Successive halving (Jamieson and Talwalkar, 2016) in its asynchronous form (Li et al., 2020): of the
    trials that have reached a rung, this one included, the best 1 / eta go on. The limits are known when a
    trial begins, so it decides alone, inside its process, and returns as any other does.

    Parameters
    ----------
    ended : sequence of FrozenTrial
        Trials of the same study; those that diverged never reached the rung with a finite value.
    rungs : sequence of int
    pruning : PruningSettings
    startup : int
        Nothing is pruned before so many trials have reached the rung.
    """
    limits: dict[int, float | None] = {}
    for rung in rungs:
        reached = sorted(t.intermediate_values[rung] for t in ended if rung in t.intermediate_values)
        go_on = max(1, (len(reached) + 1) // pruning.reduction)
        limits[rung] = reached[go_on - 1] if len(reached) >= startup else None
    return limits
