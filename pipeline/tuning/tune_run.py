"""The trials of a sweep, run by Ray Tune."""

from __future__ import annotations

import tempfile
from typing import Any

from pipeline import environment
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.models.families import family_stages
from pipeline.tuning.sweep import Sweep
from pipeline.tuning.trial import Point, TrialJob
from pipeline.tuning.trial_process import most_at_once, process_resources, run_where_configured


def run_trials(sweep: Sweep, job: TrialJob) -> None:
    """Run the trials that the studies miss, all pairs on one cluster.

    Parameters
    ----------
    sweep : Sweep
    job : TrialJob
    """
    missing = sum(study.missing for study in sweep.studies.values())
    where = environment.without_secrets(sweep.tracker.uri)
    print(f"sweep {sweep.name}: {missing} trials to run, recorded at {where}", flush=True)
    if not missing:
        return
    import ray  # not before the cluster is started, which it reads its token from
    from ray import tune

    from pipeline.tuning.live import LiveTable
    from pipeline.tuning.observer import SweepObserver
    from pipeline.tuning.searcher import StudySearcher

    config, settings = sweep.config, sweep.config.tuning
    stages = family_stages(config.model, config.training)
    best = {pair: study.best() for pair, study in sweep.studies.items()}
    table = LiveTable(
        list(sweep.studies),
        trials=settings.trials,
        steps_per_trial=sum(stage.steps for stage in stages),
        counts={pair: study.done for pair, study in sweep.studies.items()},
        pruned={pair: study.pruned for pair, study in sweep.studies.items()},
        best={pair: trial.crps if trial else None for pair, trial in best.items()},
        best_parameters={pair: trial.parameters if trial else None for pair, trial in best.items()},
    )
    observer = SweepObserver(sweep.tracker, sweep.studies, table, stages[-1].name, job.forget)

    def trial(point: dict[str, Any]) -> None:
        # A closure: `tune.with_parameters` would keep the job in the object store long after the sweep.
        _run(point, job)

    # Tune's own record of the run is never read: the studies hold what counts.
    with tempfile.TemporaryDirectory(prefix="finescale-tune-") as record, table:
        tune.Tuner(
            tune.with_resources(trial, process_resources(settings)),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(sweep.studies),
                num_samples=-1,  # the searcher knows when it is done
                max_concurrent_trials=most_at_once(settings, ray.cluster_resources()),
                reuse_actors=True,  # imports and data stay warm between trials
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=record,
                callbacks=[observer],
                failure_config=tune.FailureConfig(max_failures=0),  # the study decides what is tried again
                verbose=0,
            ),
        ).fit()


def _run(point: dict[str, Any], job: TrialJob) -> None:
    """Run one trial, inside its process, and report to Tune."""
    from ray import tune

    outcome = run_where_configured(
        job,
        Point(
            FactorPair.parse(point["pair"]),
            ScaleParameters.model_validate(point["parameters"]),
            f"trial-{point['number']:03d}",
            dict(point["limits"]),
        ),
        owner=tune.get_context().get_trial_id(),
        on_report=lambda step: tune.report(vars(step)),
        on_rung=lambda step, crps: tune.report({"rung": step, "crps": crps}),
        on_note=lambda note: tune.report({"note": note}),
    )
    tune.report({"outcome": outcome.model_dump_json()})  # as text: Tune would flatten a dictionary
