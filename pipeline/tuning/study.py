"""Optuna studies, one per pair, on durable storage: what has been tried, and what to try next.

Everything here is asked and told by the driver alone. Randomness is keyed by the trial's number, so a
restarted sweep goes on as the first one would have.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from pipeline.config import TuningSettings
from pipeline.environment import without_secrets
from pipeline.errors import UserError
from pipeline.factors import FactorPair, ScaleParameters

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it sets its own level when imported

_RETRY = "attempts"  # marks a trial that repeats one whose process died


@dataclass(frozen=True)
class Proposal:
    """A trial to run."""

    pair: FactorPair
    number: int
    parameters: ScaleParameters


@dataclass(frozen=True)
class Finished:
    """A trial that was scored.

    Attributes
    ----------
    number : int
    parameters : ScaleParameters
    crps : float
        Fair CRPS on the validation split.
    metrics : dict
    model_url : str
    """

    number: int
    parameters: ScaleParameters
    crps: float
    metrics: dict[str, float]
    model_url: str


class PairStudy:
    """The study of one factor pair.

    Parameters
    ----------
    storage : optuna storage
    name : str
        Unique to data, family, settings and pair.
    pair : FactorPair
    settings : TuningSettings
    max_context : int
        Largest L that can be tried.
    seed : int
    """

    def __init__(
        self, storage: Any, name: str, pair: FactorPair, settings: TuningSettings, max_context: int, seed: int
    ) -> None:
        self.name, self.pair, self.max_context = name, pair, max_context
        self._settings, self._seed = settings, seed
        self._space = load_search_space(settings.search_space)
        self._study = optuna.create_study(
            storage=storage, study_name=name, direction="minimize", load_if_exists=True
        )
        self._bury_orphans()
        for point in self._space.first_trials(pair, max_context):
            self._study.enqueue_trial(point, skip_if_exists=True)  # once per study, whatever was killed when

    @property
    def finished(self) -> list[Finished]:
        """Scored trials, in the order of their numbers."""
        return [_finished(trial) for trial in self._trials(TrialState.COMPLETE)]

    @property
    def failures(self) -> int:
        """Trials that failed for a reason of their own; killed ones do not count."""
        return sum("reason" in trial.user_attrs for trial in self._trials(TrialState.FAIL))

    @property
    def running(self) -> int:
        """Trials asked for and not told yet."""
        return len(self._trials(TrialState.RUNNING))

    @property
    def exhausted(self) -> bool:
        """Whether too many trials failed."""
        return self.failures > self._settings.max_failures

    @property
    def wanted(self) -> int:
        """How many more trials should be started now."""
        return 0 if self.exhausted else self._settings.trials - len(self.finished) - self.running

    @property
    def done(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        return self.wanted <= 0 and self.running == 0

    def best(self) -> Finished | None:
        """Give the trial with the lowest CRPS."""
        return min(self.finished, key=lambda trial: trial.crps, default=None)

    def prior(self) -> Finished | None:
        """Give the scored trial of the paper's prior, the first that was enqueued."""
        first = self._space.first_trials(self.pair, self.max_context)[0]
        matching = (
            t for t in self._trials(TrialState.COMPLETE) if {k: t.params.get(k) for k in first} == first
        )
        trial = next(matching, None)
        return _finished(trial) if trial else None

    def ask(self) -> Proposal:
        """Draw the next trial."""
        number = len(self._study.get_trials(deepcopy=False))
        key = f"{self._seed}/{self.name}/{number}"
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = TPESampler(
                seed=seed,
                n_startup_trials=self._settings.startup_trials,
                multivariate=True,
                group=True,  # a taper has parameters that the identity lacks
                constant_liar=True,  # what still runs counts as bad, so that neighbours are not tried at once
            )
        trial = self._study.ask()
        try:
            parameters = self._space.suggest(trial, self.pair, self.max_context)
        except Exception as error:  # whatever a scientist's function may raise
            self.tell_failure(trial.number, f"suggest() failed: {_line(error)}")
            raise _refuse(
                self._settings.search_space, f"suggest() failed for {self.pair} ({_line(error)})"
            ) from error
        trial.set_user_attr("parameters", parameters.model_dump(mode="json"))
        return Proposal(self.pair, trial.number, parameters)

    def tell(self, number: int, metrics: dict[str, float], model_url: str) -> None:
        """Record a scored trial."""
        trial = self._running(number)
        trial.set_user_attr("metrics", metrics)
        trial.set_user_attr("model_url", model_url)
        self._study.tell(number, metrics["crps"])

    def tell_failure(self, number: int, reason: str) -> None:
        """Record a trial that cannot be scored; its point is not tried again."""
        self._running(number).set_user_attr("reason", reason)
        self._study.tell(number, state=TrialState.FAIL)

    def tell_killed(self, number: int) -> None:
        """Record a trial whose process died; its point comes up again before any new one.

        A point that has died often enough counts as a failure: it may be what kills the process.
        """
        trial = self._trial(number)
        attempts = trial.user_attrs.get(_RETRY, 0) + 1
        if attempts > self._settings.max_failures:
            self.tell_failure(number, f"its process died {attempts} times")
        else:
            self._repeat(trial, attempts)

    def _bury_orphans(self) -> None:
        """Tell trials that an earlier driver left running; their end was not their points' doing."""
        for trial in self._trials(TrialState.RUNNING):
            self._repeat(trial, trial.user_attrs.get(_RETRY, 0))

    def _repeat(self, trial: FrozenTrial, attempts: int) -> None:
        # A driver that died between asking and suggesting left only the values that were enqueued.
        point = trial.system_attrs.get("fixed_params", {}) | trial.params
        self._study.tell(trial.number, state=TrialState.FAIL)
        if point:
            self._study.enqueue_trial(point, user_attrs={_RETRY: attempts})

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(state,))

    def _trial(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _running(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._trial(number)._trial_id)


def _finished(trial: FrozenTrial) -> Finished:
    assert trial.value is not None
    return Finished(
        number=trial.number,
        parameters=ScaleParameters.model_validate(trial.user_attrs["parameters"]),
        crps=trial.value,
        metrics=trial.user_attrs["metrics"],
        model_url=trial.user_attrs["model_url"],
    )


def load_search_space(module: str) -> Any:
    """Import a search space.

    Raises
    ------
    UserError
        If there is no such module, it cannot be imported, or it lacks a function.
    """
    try:
        space = importlib.import_module(module)
    except Exception as error:  # a module being edited may hold any mistake
        raise _refuse(module, f"cannot be imported ({_line(error)})") from error
    for name in ("first_trials", "suggest"):
        if not callable(getattr(space, name, None)):
            raise _refuse(module, f"it has no function {name}(); see search_spaces/")
    return space


def first_points(module: str, pair: FactorPair, max_context: int) -> tuple[dict[str, Any], ...]:
    """Give the points that a pair's study begins with, each tried on the search space.

    Raises
    ------
    UserError
        If there is none, or `suggest` does not take one of them.
    """
    space = load_search_space(module)
    try:
        points = tuple(dict(point) for point in space.first_trials(pair, max_context))
    except Exception as error:
        raise _refuse(module, f"first_trials() failed for {pair} ({_line(error)})") from error
    if not points:
        raise _refuse(
            module, f"first_trials() gives no point for {pair}; the paper's prior is a good first one"
        )
    for point in points:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "The value .* is out of the range")  # Optuna would only warn
                parameters = space.suggest(optuna.trial.FixedTrial(point), pair, max_context)
        except Exception as error:
            raise _refuse(
                module, f"suggest() does not take the first point {point} of {pair} ({_line(error)})"
            ) from error
        if not isinstance(parameters, ScaleParameters) or parameters.context > max_context:
            raise _refuse(
                module, f"suggest() must give ScaleParameters with L up to {max_context}, not {parameters!r}"
            )
    return points


def _refuse(module: str, reason: str) -> UserError:
    return UserError(f"tuning.search_space {module!r}: {reason}")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def check_storage(settings: TuningSettings, output: str) -> None:
    """Refuse a remote output without a database; writes nothing.

    Raises
    ------
    UserError
        A journal needs a local file.
    """
    if settings.storage is None and "://" in output:
        raise UserError(
            f"output {output}: studies need a database when the output is not a local folder; give --set "
            "tuning.storage=postgresql://... or sqlite:////PATH"
        )


def open_storage(settings: TuningSettings, output: str) -> Any:
    """Open the studies' storage: a database if one is configured, else a journal file under `output`.

    Raises
    ------
    UserError
        If `output` is remote and no database is given: a journal needs a local file.
    """
    if settings.storage is not None:
        try:
            return optuna.storages.RDBStorage(settings.storage)
        except Exception as error:  # SQLAlchemy and its drivers raise many kinds
            raise UserError(
                f"tuning.storage: cannot open the database ({without_secrets(_line(error))})"
            ) from error
    check_storage(settings, output)
    folder = os.path.join(output, "studies")
    os.makedirs(folder, exist_ok=True)
    return JournalStorage(JournalFileBackend(os.path.join(folder, "journal.log")))
