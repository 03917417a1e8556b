"""What is shown and recorded while trials run: a table, a line per ended trial, a run per trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback

from pipeline.factors import FactorPair, ScaleParameters
from pipeline.tracking import Tracker
from pipeline.tuning.live import LiveTable
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.runs import end_run, run_key, start_run
from pipeline.tuning.study import PairStudy


class SweepObserver(Callback):
    """Told by Ray Tune, in the driver, of everything that trials report; Tune tells the studies first.

    Parameters
    ----------
    tracker : Tracker
    studies : mapping of FactorPair to PairStudy
    table : LiveTable
    last_stage : str
        Name of the stage after which a trial is scored.
    forget : callable
        Told the id of every trial that has ended, so that none waits for a stage it had claimed.
    """

    def __init__(
        self,
        tracker: Tracker,
        studies: Mapping[FactorPair, PairStudy],
        table: LiveTable,
        last_stage: str,
        forget: Callable[[str], None],
    ) -> None:
        self._tracker, self._studies, self._table = tracker, studies, table
        self._last_stage, self._forget = last_stage, forget
        self._started: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything behind: Tune keeps a copy for restoring a run, and the studies know better."""
        return {}

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run."""
        study, number = self._of(trial)
        parameters = ScaleParameters.model_validate(trial.config["parameters"])
        self._started[trial.trial_id] = time.monotonic()
        self._table.started(study.pair, number, parameters)
        start_run(self._tracker, study, number, parameters)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record progress."""
        study, number = self._of(trial)
        if "note" in result:
            self._table.say(f"{study.pair} trial {number}: {result['note']}")
        elif "rung" in result:
            self._tracker.metrics(run_key(study, number), {"rung_crps": result["crps"]}, result["rung"])
        elif "step" in result:
            stage, step, cached = result["stage"], result["step"], result["cached"]
            self._table.progress(study.pair, number, stage, step, result["steps"], cached=cached)
            if not cached:
                names = ("loss", "learning_rate", "gradient_norm")
                metrics = {f"{stage}_{name}": result[name] for name in names}
                self._tracker.metrics(run_key(study, number), metrics, step)
            if step == result["steps"] and stage == self._last_stage:
                self._table.scoring(study.pair, number)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the trial's run and say how it did."""
        self._end(trial, "it ended without a score")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a trial whose process died."""
        self._end(trial, str(trial.get_error() or "its process died").strip().splitlines()[-1][:300])

    def _end(self, trial: Any, otherwise: str) -> None:
        """Go by what the study holds: the trial's outcome, or none if it will be repeated."""
        self._forget(trial.trial_id)
        study, number = self._of(trial)
        outcome = study.outcome(number)
        name = f"{study.pair} trial {number}"
        if outcome is None:
            self._table.ended(study.pair, number, "killed", None)
            self._table.say(f"{name} died and will be repeated: {otherwise}")
            self._tracker.end(run_key(study, number), "KILLED")
            return
        self._table.ended(study.pair, number, outcome.state, outcome.metrics.get("crps"))
        self._table.say(f"{name}: {self._verdict(study, number, outcome)}, {self._seconds(trial)}")
        if study.exhausted:
            self._table.give_up(study.pair)
            self._table.say(f"{study.pair}: given up after {study.failures} failed trials")
        end_run(self._tracker, study, number, outcome)

    def _verdict(self, study: PairStudy, number: int, outcome: Outcome) -> str:
        if outcome.state == "failed":
            return f"failed ({outcome.reason})"
        if outcome.state == "pruned":
            step, crps = max(outcome.rungs.items())
            return f"pruned after step {step} (CRPS {crps:.4g} there), {outcome.parameters}"
        crps, best = outcome.metrics["crps"], study.best()
        assert best is not None
        standing = "best so far" if best.number == number else f"best {best.crps:.4g}"
        return f"CRPS {crps:.4g} ({standing}), {outcome.parameters}"

    def _of(self, trial: Any) -> tuple[PairStudy, int]:
        return self._studies[FactorPair.parse(trial.config["pair"])], trial.config["number"]

    def _seconds(self, trial: Any) -> str:
        # A process that died before it began was never started.
        began = self._started.get(trial.trial_id)
        return "0 s" if began is None else f"{time.monotonic() - began:.0f} s"
