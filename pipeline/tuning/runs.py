"""What MLflow holds of a trial: one run, found again by the trial's place in its study."""

from __future__ import annotations

import math

from pipeline.factors import FactorPair, ScaleParameters
from pipeline.mlflow_view.recipe_values import pair_tags, run_params
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
