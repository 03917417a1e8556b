"""What MLflow holds of a trial: one run, found again by the trial's place in its study."""

from __future__ import annotations

import math
from typing import Any

from pipeline.factors import FactorPair, ScaleParameters
from pipeline.tracking import NOTE, ROLE, Status, Tracker
from pipeline.tuning.notes import trial_note
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.study import PairStudy

_STATUS: dict[str, Status] = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
_OUTCOME = "finescale.outcome"
RIVAL = "rival"
"""Role of a run that only serves to compare."""


def run_key(study: PairStudy, number: int | str) -> str:
    """Name the run of a trial, or of one that only serves to compare."""
    return f"{study.name}/{number}"


def start_run(
    tracker: Tracker,
    study: PairStudy,
    number: int | str,
    parameters: ScaleParameters,
    role: str = "trial",
) -> str:
    """Open the run of a trial, or of one that only serves to compare; gives its key."""
    pair = study.pair
    label = f"{role} {number:02d}" if isinstance(number, int) else role
    return tracker.start(
        run_key(study, number),
        run_name(pair, label, parameters),
        parent=study.name,
        tags={
            ROLE: role,
            **pair_tags(pair),
            NOTE: trial_note(study.name, pair, number, parameters),
        },
        params={**run_params(pair, parameters), "trial": number},
    )


def run_name(pair: FactorPair, what: str, parameters: ScaleParameters) -> str:
    """Name a run for people: `4x2 trial 07 · beta 0.0139 L 5 x/cell`."""
    f = str(parameters.conservation).replace(" - ", "-").replace(", ", "/")
    return f"{pair} {what} · beta {parameters.beta:.3g} L {parameters.context} {f}"


def pair_tags(pair: FactorPair) -> dict[str, str]:
    """Give the tags that runs of a pair are found by."""
    return {
        "finescale.pair": str(pair),
        "finescale.factors": f"{pair.space}x in space, {pair.time}x in time",
    }


def run_params(pair: FactorPair, parameters: ScaleParameters) -> dict[str, Any]:
    """Give what MLflow compares runs by."""
    f = parameters.conservation
    return {
        "pair": pair, "space": pair.space, "time": pair.time,
        "beta": parameters.beta, "context": parameters.context,
        "power": f.power, "threshold": f.threshold, "scope": f.scope.value,
    }  # fmt: skip


def recipe_metrics(parameters: ScaleParameters) -> dict[str, float]:
    """Give the values as metrics, which a table formats and a chart scales; beta's logarithm too.

    A parallel-coordinates chart has no logarithmic axes, and beta is searched over two orders of magnitude.
    """
    f = parameters.conservation
    return {
        "beta": parameters.beta, "log10_beta": math.log10(parameters.beta),
        "context": parameters.context, "power": f.power, "threshold": f.threshold,
    }  # fmt: skip


def end_run(tracker: Tracker, study: PairStudy, number: int | str, outcome: Outcome) -> None:
    """Record a trial's outcome and end its run. MLflow has no word for pruned: KILLED, and a tag."""
    run = run_key(study, number)
    tags: dict[str, str] = {_OUTCOME: outcome.state}
    if outcome.model_url:
        tags["finescale.model"] = outcome.model_url
    if outcome.reason:
        tags["finescale.reason"] = outcome.reason
    log10_beta = math.log10(outcome.parameters.beta)
    tracker.metrics(
        run, {**outcome.metrics, "trained_steps": outcome.trained_steps, "log10_beta": log10_beta}
    )
    tracker.tag(run, {**tags, NOTE: trial_note(study.name, study.pair, number, outcome.parameters, outcome)})
    tracker.end(run, _STATUS[outcome.state])


def settle(tracker: Tracker, study: PairStudy) -> None:
    """Make the runs of all ended trials say so: a driver may have died between a study and its runs."""
    for trial in study.ended:
        status = tracker.status(run_key(study, trial.number))
        if status == _STATUS[trial.outcome.state] == "KILLED":  # as any run that a driver left open
            tracker.tag(run_key(study, trial.number), {_OUTCOME: trial.outcome.state})
        elif status != _STATUS[trial.outcome.state]:
            run = start_run(tracker, study, trial.number, trial.parameters)
            for step, crps in trial.outcome.rungs.items():
                tracker.metrics(run, {"rung_crps": crps}, step)
            end_run(tracker, study, trial.number, trial.outcome)


def settle_rival(tracker: Tracker, study: PairStudy, label: str, outcome: Outcome) -> None:
    """Make the run of a setting that has been trained say so, as `settle` does for trials."""
    if tracker.status(run_key(study, label)) != _STATUS[outcome.state]:
        start_run(tracker, study, label, outcome.parameters, role=RIVAL)
        end_run(tracker, study, label, outcome)
