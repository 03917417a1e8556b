"""Does retuning matter? What each pair's tuned values are compared with, on the test split.

* the paper's prior, which every study tries first;
* the prediction: what the laws fitted to all *other* pairs of the sweep give for this one, so that it says
  what a user would get for a pair that was never tuned;
* one fixed setting for all pairs, made from the tuned values of all of them. It has seen each pair's result,
  which makes it a stronger rival than a setting fixed beforehand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline.environment import fetched, remotely
from pipeline.errors import one_line
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.recipe_fit import Observation, fixed_setting, leave_out
from pipeline.tuning.runs import RIVAL, end_run, settle_rival, start_run
from pipeline.tuning.sweep import Sweep
from pipeline.tuning.trial import Point, TrialJob
from pipeline.tuning.trial_process import most_at_once, run_where_configured

PRIOR, PREDICTED, FIXED = "paper's prior", "predicted", "one fixed setting"


def rivals(
    sweep: Sweep, observations: Mapping[FactorPair, Observation]
) -> dict[FactorPair, dict[str, ScaleParameters]]:
    """Give the settings to compare with, by pair and name; a pair that was tuned alone has its prior only.

    Parameters
    ----------
    sweep : Sweep
    observations : mapping of FactorPair to Observation
        The scored trials of all tuned pairs, also of those that the sweep tuned before.
    """
    chosen: dict[FactorPair, dict[str, ScaleParameters]] = {}
    if not observations:
        return chosen
    best = {pair: study.best() for pair, study in (sweep.others | sweep.studies).items()}
    fixed = fixed_setting({pair: trial.parameters for pair, trial in best.items() if trial is not None})
    for pair, study in sweep.studies.items():
        if pair not in observations:
            continue
        prior, laws = study.prior(), leave_out(list(observations.values()), pair)
        chosen[pair] = {PRIOR: prior.parameters} if prior else {}
        if laws is not None:  # there are other pairs
            chosen[pair][PREDICTED] = laws.predict(pair, study.max_context).parameters
            context = min(fixed.context, study.max_context)
            chosen[pair][FIXED] = fixed.model_copy(update={"context": context})
    return chosen


def train_rivals(
    sweep: Sweep, job: TrialJob, chosen: Mapping[FactorPair, Mapping[str, ScaleParameters]], *, train: bool
) -> dict[FactorPair, dict[str, str]]:
    """Give the models of the settings to compare with; those that no trial has made are trained.

    Parameters
    ----------
    sweep : Sweep
    job : TrialJob
    chosen : mapping
        From `rivals`.
    train : bool
        False: only models that exist.
    """
    models: dict[FactorPair, dict[str, str]] = {pair: {} for pair in chosen}
    wanted: dict[Point, list[str]] = {}
    for pair, settings in chosen.items():
        tried = {trial.parameters: trial.model_url for trial in sweep.studies[pair].finished}
        for name, parameters in settings.items():
            if parameters in tried:
                models[pair][name] = tried[parameters]
            else:
                wanted.setdefault(_point(pair, parameters), []).append(name)
    for point, outcome in _outcomes(sweep, job, wanted, train).items():
        if outcome.model_url:
            models[point.pair] |= dict.fromkeys(wanted[point], outcome.model_url)
    return models


def _point(pair: FactorPair, parameters: ScaleParameters) -> Point:
    digest = hashlib.sha256(parameters.model_dump_json().encode()).hexdigest()[:10]
    return Point(pair, parameters, f"rival-{digest}")


def _outcomes(
    sweep: Sweep, job: TrialJob, wanted: Mapping[Point, list[str]], train: bool
) -> dict[Point, Outcome]:
    """Read what has been trained before, and train what is missing; a run in MLflow for each."""
    known = {point: Outcome.load(job.folder(point.pair, point.label), point.parameters) for point in wanted}
    outcomes = {point: outcome for point, outcome in known.items() if outcome is not None}
    for point, outcome in outcomes.items():
        settle_rival(sweep.tracker, sweep.studies[point.pair], point.label, outcome)
    missing = {point: names for point, names in wanted.items() if point not in outcomes}
    return outcomes | _train(sweep, job, missing) if train and missing else outcomes


def _train(sweep: Sweep, job: TrialJob, wanted: Mapping[Point, list[str]]) -> dict[Point, Outcome]:
    """Train settings, as many at once as the cluster holds."""
    import ray

    print(f"training {len(wanted)} settings to compare the tuned ones with", flush=True)
    run, most = remotely(run_where_configured, sweep.config), len(wanted)
    if sweep.config.tuning.workers_per_trial > 1:  # the workers take the resources
        run = ray.remote(num_cpus=0)(run_where_configured)
        most = most_at_once(sweep.config.tuning, ray.cluster_resources()) or most
    outcomes: dict[Point, Outcome] = {}
    waiting, pending = list(wanted), dict[Any, Point]()
    while waiting or pending:
        while waiting and len(pending) < most:
            point = waiting.pop(0)
            study = sweep.studies[point.pair]
            start_run(sweep.tracker, study, point.label, point.parameters, role=RIVAL)
            pending[run.remote(job, point, owner=_owner(point))] = point
        (done, *_), _ = ray.wait(list(pending), num_returns=1)
        point = pending.pop(done)
        outcomes[point] = outcome = _outcome(done, point.parameters)
        job.forget(_owner(point))
        end_run(sweep.tracker, sweep.studies[point.pair], point.label, outcome)
        verdict = f"CRPS {outcome.metrics['crps']:.4g}" if outcome.model_url else f"failed ({outcome.reason})"
        print(f"{point.pair} {' and '.join(wanted[point])}: {verdict}, {point.parameters}", flush=True)
    return outcomes


def _owner(point: Point) -> str:
    return f"{point.pair}-{point.label}"


def _outcome(done: Any, parameters: ScaleParameters) -> Outcome:
    """Fetch what a process gave; one that could not run is no reason to give up the report."""
    try:
        outcome: Outcome = fetched(done)
    except Exception as error:  # whatever ended it; without outcome file, the next report tries it again
        return Outcome(state="failed", parameters=parameters, reason=one_line(error))
    return outcome
