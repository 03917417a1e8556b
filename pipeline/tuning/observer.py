"""What is shown and recorded while a sweep runs: a bar, a line per finished trial, a run per trial."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback
from tqdm import tqdm

from pipeline.factors import FactorPair, ScaleParameters
from pipeline.tracking import Status, Tracker
from pipeline.tuning.study import PairStudy


class SweepObserver(Callback):
    """Told by Ray Tune, in the driver, of everything that trials report.

    Parameters
    ----------
    tracker : Tracker
    studies : mapping of FactorPair to PairStudy
    study_runs : mapping of FactorPair to str
        Run id of each study, the parent of its trials.
    steps_per_trial : int
        Training steps of a trial that shares nothing.
    forget : callable
        Told the id of every trial that has ended, so that none waits for a stage it had claimed.
    """

    def __init__(
        self,
        tracker: Tracker,
        studies: Mapping[FactorPair, PairStudy],
        study_runs: Mapping[FactorPair, str],
        steps_per_trial: int,
        forget: Callable[[str], None],
    ) -> None:
        self._tracker, self._studies, self._study_runs = tracker, studies, study_runs
        self._steps_per_trial, self._forget = steps_per_trial, forget
        self._runs: dict[str, str] = {}
        self._steps: dict[str, dict[str, int]] = {}
        self._started: dict[str, float] = {}
        wanted = sum(max(0, study.wanted) for study in studies.values())
        self._bar = tqdm(
            total=wanted * steps_per_trial,
            unit="step",
            desc="sweep",
            file=sys.stderr,
            disable=None,
            smoothing=0.05,
        )

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run."""
        if trial.trial_id in self._runs:
            return
        pair, number = FactorPair.parse(trial.config["pair"]), trial.config["number"]
        parameters = ScaleParameters.model_validate(trial.config["parameters"])
        f = parameters.conservation
        self._started[trial.trial_id] = time.monotonic()
        self._steps[trial.trial_id] = {}
        self._runs[trial.trial_id] = self._tracker.start(
            f"{self._studies[pair].name}/{number}",
            f"{pair} #{number:02d} beta {parameters.beta:.3g} L {parameters.context}",
            parent=self._study_runs[pair],
            tags={"finescale.role": "trial", "finescale.pair": str(pair)},
            params={
                "pair": pair, "space": pair.space, "time": pair.time, "trial": number,
                "beta": parameters.beta, "context": parameters.context,
                "power": f.power, "threshold": f.threshold, "scope": f.scope.value,
            },
        )  # fmt: skip

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record progress or the scores."""
        run = self._runs[trial.trial_id]
        if "step" in result:
            stage, step = result["stage"], result["step"]
            self._advance(trial.trial_id, stage, step)
            if math.isnan(result["loss"]):  # the stage came from the cache: nothing was trained
                return
            names = ("loss", "learning_rate", "gradient_norm")
            self._tracker.metrics(run, {f"{stage}_{name}": result[name] for name in names}, step)
        elif "metrics" in result:
            self._tracker.metrics(run, result["metrics"])
            self._tracker.tag(run, {"finescale.model": result["model_url"]})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the trial's run and say how it did."""
        result = trial.last_result or {}
        pair, number = trial.config["pair"], trial.config["number"]
        if "metrics" in result:
            crps = result["metrics"]["crps"]
            study = self._studies[FactorPair.parse(pair)]
            earlier = [t.crps for t in study.finished if t.number != number]
            best = "best so far" if crps < min(earlier, default=float("inf")) else f"best {min(earlier):.4g}"
            parameters = ScaleParameters.model_validate(trial.config["parameters"])
            count = len(earlier) + 1
            self._say(
                f"{pair} trial {count}: CRPS {crps:.4g} ({best}), {parameters}, {self._seconds(trial):.0f} s"
            )
            self._finish(trial, "FINISHED")
        else:
            self._say(f"{pair} trial #{number} failed: {result.get('failure', 'it ended without a score')}")
            self._finish(trial, "FAILED")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a trial whose process died."""
        reason = str(trial.get_error() or "its process died").strip().splitlines()[-1][:300]
        self._say(f"{trial.config['pair']} trial #{trial.config['number']} died: {reason}")
        self._finish(trial, "FAILED")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def _finish(self, trial: Any, status: Status) -> None:
        self._forget(trial.trial_id)
        if trial.trial_id not in self._runs:  # its process died before it began
            return
        self._advance(
            trial.trial_id, "rest", self._steps_per_trial - sum(self._steps[trial.trial_id].values())
        )
        self._tracker.end(self._runs[trial.trial_id], status)

    def _advance(self, trial_id: str, stage: str, step: int) -> None:
        before = self._steps[trial_id].get(stage, 0)
        self._steps[trial_id][stage] = step
        self._bar.update(step - before)

    def _seconds(self, trial: Any) -> float:
        return time.monotonic() - self._started[trial.trial_id]

    @staticmethod
    def _say(line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
