"""Optuna studies, one per pair, on durable storage: what has been tried, and what to try next.

Everything here is asked and told by the driver alone. A trial has one number for good: one whose process
died, or whose driver did, waits in the study and is taken up again under its number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.config import TuningSettings
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.recipe import RecipeEntry
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.proposal import draw, rung_limits, suggest
from pipeline.tuning.search_space import load_search_space

OBJECTIVES = {"crps": "crps", "spectral": "log_spectral_distance"}
"""The metric behind each name of `tuning.objectives`."""

_ATTEMPTS, _OUTCOME, _FIRST = "attempts", "outcome", "first"
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Proposal:
    """A trial to run.

    Attributes
    ----------
    pair : FactorPair
    number : int
    parameters : ScaleParameters
    limits : dict
        By step of the last stage: the highest CRPS with which the trial goes on; None: with any.
    """

    pair: FactorPair
    number: int
    parameters: ScaleParameters
    limits: dict[int, float | None]


@dataclass(frozen=True)
class Ended:
    """A trial that has ended.

    Attributes
    ----------
    number : int
    outcome : Outcome
    first : bool
        Whether its point was named by the search space, not drawn.
    at : datetime
        When it ended.
    """

    number: int
    outcome: Outcome
    first: bool
    at: datetime

    @property
    def parameters(self) -> ScaleParameters:
        """What was tried."""
        return self.outcome.parameters

    @property
    def crps(self) -> float:
        """Fair CRPS on the validation split, of a complete trial."""
        return self.outcome.metrics["crps"]

    @property
    def model_url(self) -> str:
        """Folder of a complete trial's model."""
        assert self.outcome.model_url is not None
        return self.outcome.model_url


class PairStudy:
    """The study of one factor pair.

    Parameters
    ----------
    storage : optuna storage
    name : str
        Unique to data, family, settings, code and pair.
    entry : RecipeEntry
        The pair and the values its search is centred on.
    settings : TuningSettings
    max_context : int
        Largest L that can be tried.
    rungs : tuple of int
        Steps of the last stage at which a trial may be pruned.
    seed : int
    """

    def __init__(
        self,
        storage: Any,
        name: str,
        entry: RecipeEntry,
        settings: TuningSettings,
        max_context: int,
        rungs: tuple[int, ...],
        seed: int,
    ) -> None:
        self.name, self.pair, self.max_context = name, entry.pair, max_context
        self._entry, self._settings, self._rungs, self._seed = entry, settings, rungs, seed
        self._space = load_search_space(settings.search_space)
        self._first = [dict(point) for point in self._space.first_trials(entry, max_context)]
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["minimize"] * len(settings.objectives),
            load_if_exists=True,
        )
        self._read: list[FrozenTrial] | None = None
        for trial in self._trials(TrialState.RUNNING):  # an earlier driver died with them
            self._wait(trial)

    @property
    def finished(self) -> list[Ended]:
        """Scored trials, in the order of their numbers."""
        return [_ended(trial) for trial in self._trials(TrialState.COMPLETE)]

    @property
    def ended(self) -> list[Ended]:
        """All trials with an outcome: complete, pruned and failed."""
        return [_ended(trial) for trial in self._trials(*_ENDED)]

    @property
    def pruned(self) -> int:
        """Number of trials that were stopped early."""
        return len(self._trials(TrialState.PRUNED))

    @property
    def failures(self) -> int:
        """Number of trials that cannot be scored."""
        return len(self._trials(TrialState.FAIL))

    @property
    def running(self) -> int:
        """Trials asked for and not told yet."""
        return len(self._trials(TrialState.RUNNING))

    @property
    def exhausted(self) -> bool:
        """Whether too many trials failed."""
        return self.failures > self._settings.max_failures

    @property
    def done(self) -> int:
        """Trials that count: complete and pruned ones."""
        return len(self._trials(TrialState.COMPLETE, TrialState.PRUNED))

    @property
    def missing(self) -> int:
        """How many more trials should be started."""
        return 0 if self.exhausted else max(0, self._settings.trials - self.done - self.running)

    @property
    def ready(self) -> bool:
        """Whether the next trial may start now: all that it is drawn from have ended."""
        if self.missing == 0:
            return False
        if self._trials(TrialState.WAITING):
            return True
        known = self._known(len(self._all()))
        return all(trial.state in _ENDED for trial in known)

    def outcome(self, number: int) -> Outcome | None:
        """Give how a trial ended; None while it waits or runs."""
        trial = self._all()[number]
        return _ended(trial).outcome if trial.state in _ENDED else None

    def best(self) -> Ended | None:
        """Give the trial with the lowest first objective."""
        metric = OBJECTIVES[self._settings.objectives[0]]
        return min(self.finished, key=lambda trial: trial.outcome.metrics[metric], default=None)

    def pareto(self) -> list[Ended]:
        """Give the trials that no other beats in every objective, by the first one."""
        metric = OBJECTIVES[self._settings.objectives[0]]
        return sorted(map(_ended, self._study.best_trials), key=lambda trial: trial.outcome.metrics[metric])

    def prior(self) -> Ended | None:
        """Give the scored trial of the paper's prior, which search spaces name first."""
        return next((trial for trial in self.finished if trial.number == 0), None)

    def importances(self) -> dict[str, float]:
        """Give how much of the spread of the CRPS each parameter explains (fANOVA); empty if unknown."""
        complete = self._trials(TrialState.COMPLETE)
        if len(complete) < 4 or len({t.values[0] for t in complete}) < 2:
            return {}
        return optuna.importance.get_param_importances(
            self._study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=self._seed),
            target=lambda trial: trial.values[0],
        )

    def ask(self) -> Proposal:
        """Take up the trial that waits, or draw the next one; call it only when `ready`."""
        if not self._trials(TrialState.WAITING):
            self._draw(len(self._all()))
        trial = self._study.ask()  # takes the waiting one
        parameters = suggest(self._space, self._settings.search_space, trial, self._entry, self.max_context)
        self._read = None
        return Proposal(self.pair, trial.number, parameters, self._limits(trial.number))

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record how a trial ended; one without a finite value of every objective has failed."""
        objectives = [OBJECTIVES[name] for name in self._settings.objectives]
        odd = [name for name in objectives if not math.isfinite(outcome.metrics.get(name, math.nan))]
        if outcome.state == "complete" and odd:
            reason = f"{odd[0]} is {outcome.metrics.get(odd[0])}"
            outcome = outcome.model_copy(update={"state": "failed", "reason": reason})
        self._read = None
        known = self._all()[number]
        trial = optuna.Trial(self._study, known._trial_id)
        trial.set_user_attr(_OUTCOME, outcome.model_dump(mode="json"))
        if len(objectives) == 1:  # Optuna takes none of these for several objectives
            for step in outcome.rungs.keys() - known.intermediate_values.keys():  # a kill may have left some
                trial.report(outcome.rungs[step], step)
        if outcome.state == "complete":
            self._study.tell(number, [outcome.metrics[name] for name in objectives])
        else:
            self._study.tell(
                number, state=TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL
            )
        self._read = None

    def tell_killed(self, number: int) -> Outcome | None:
        """Record that a trial's process died; it waits to be taken up again.

        A point that has died often enough counts as failed, since it may be what kills the process; its
        outcome is given.
        """
        trial = self._all()[number]
        attempts = trial.user_attrs.get(_ATTEMPTS, 0) + 1
        if attempts <= self._settings.max_failures:
            self._study._storage.set_trial_user_attr(trial._trial_id, _ATTEMPTS, attempts)
            self._wait(trial)
            return None
        parameters = suggest(
            self._space,
            self._settings.search_space,
            optuna.trial.FixedTrial(trial.params, number),
            self._entry,
            self.max_context,
        )
        outcome = Outcome(state="failed", parameters=parameters, reason=f"its process died {attempts} times")
        self.tell(number, outcome)
        return outcome

    def suspend(self) -> None:
        """Leave no trial running, when the sweep ends before its trials."""
        for trial in self._trials(TrialState.RUNNING):
            self._wait(trial)

    def _draw(self, number: int) -> None:
        """Put the next trial into the study, with all its values, in one step."""
        if number < len(self._first):
            point = self._first[number]
        else:
            known = self._known(number)
            trial = draw(
                known,
                self._all()[len(known) : number],
                len(self._settings.objectives),
                self._settings.startup_trials,
                f"{self._seed}/{self.pair}/{number}",
            )
            suggest(self._space, self._settings.search_space, trial, self._entry, self.max_context)
            point = trial.params
        self._study.enqueue_trial(point, user_attrs={_FIRST: number < len(self._first)})
        self._read = None

    def _limits(self, number: int) -> dict[int, float | None]:
        """Give the rungs of a trial; those the search space names run to their end, to be compared with."""
        if len(self._settings.objectives) > 1:
            return {}
        if number < len(self._first):
            return dict.fromkeys(self._rungs)
        return rung_limits(
            self._known(number), self._rungs, self._settings.pruning, self._settings.startup_trials
        )

    def _known(self, number: int) -> list[FrozenTrial]:
        """Give the trials that trial `number` is drawn from."""
        return self._all()[: max(0, number - self._settings.at_once + 1)]

    def _wait(self, trial: FrozenTrial) -> None:
        # Optuna has no public way back from RUNNING; both its storages allow it, and `ask` takes it up again.
        self._study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        self._read = None

    def _all(self) -> list[FrozenTrial]:
        # Read once between changes: Tune asks many times a second, and nobody else writes to this study.
        if self._read is None:
            self._read = self._study.get_trials(deepcopy=False)
        return self._read

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return [trial for trial in self._all() if trial.state in states]


def _ended(trial: FrozenTrial) -> Ended:
    outcome = Outcome.model_validate(trial.user_attrs[_OUTCOME])
    assert trial.datetime_complete is not None
    return Ended(trial.number, outcome, trial.user_attrs[_FIRST], trial.datetime_complete)
