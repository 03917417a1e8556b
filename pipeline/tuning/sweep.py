"""A sweep: one study per factor pair, all on one Ray cluster, everything recorded.

Carries on where it stopped: scored trials are in the studies' storage, shared stages and unfinished ones in
the output, runs in MLflow.
"""

from __future__ import annotations

import hashlib
import signal
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from pipeline import environment
from pipeline.config import Config
from pipeline.data.dataset import open_dataset
from pipeline.data.store import FieldStore
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.files import join, locked
from pipeline.models.families import family_stages
from pipeline.tracking import SWEEP, Tracker, check_reachable, tracking_uri
from pipeline.training.loop import StepReport
from pipeline.tuning.plan import PairPlan, plan_sweep, sweep_id
from pipeline.tuning.stage_cache import LeasedClaims, RemoteClaims
from pipeline.tuning.study import PairStudy, check_storage, open_storage


def dataset_shape(config: Config) -> tuple[int, int, int]:
    """Give (time, y, x) of the job's data set; synthetic rain is not made for that."""
    if config.data.store is None:
        synthetic = config.data.synthetic
        return synthetic.frames, synthetic.height, synthetic.width
    return FieldStore.open(config.data.store).info.shape


def run_sweep(config: Config) -> bool:
    """Tune all pairs, evaluate the best of each on the test split, register, report.

    Parameters
    ----------
    config : Config

    Returns
    -------
    bool
        Whether every pair has a scored trial.

    Raises
    ------
    UserError
        For anything the user can put right, before anything is written.
    """
    config = config.model_copy(update={"output": environment.resolve_output(config.output)})
    uri = tracking_uri(config.tracking, config.output)
    plans = plan_sweep(config, dataset_shape(config))
    check_storage(config.tuning, config.output)
    check_reachable(uri)
    print("starting Ray, checking the data ...", flush=True)
    environment.start_ray(config)
    store = open_dataset(config.data, config.output)
    _check_windows(config, store, plans)

    sweep = sweep_id(config, store)
    family = config.model.family
    experiment = config.tracking.experiment or f"finescale/{store.info.name}/{family}"
    tags = {
        SWEEP: sweep, "finescale.dataset": store.info.name, "finescale.family": family,
        "finescale.data_fingerprint": store.info.fingerprint,
    }  # fmt: skip
    with _alone(config.output, sweep):
        tracker = Tracker(uri, experiment, config.output, tags)
        storage = open_storage(config.tuning, config.output)
        studies = {
            plan.pair: PairStudy(
                storage, f"{sweep}/{plan.pair}", plan.pair, config.tuning, plan.max_context, config.seed
            )
            for plan in plans
        }
        with _ending_runs(tracker):
            return Sweep(config, store, sweep, tracker, studies).run()


def _alone(output: str, sweep: str) -> AbstractContextManager[None]:
    """Keep a second driver off the same sweep: each would take the other's trials for abandoned."""
    if "://" in output:
        return nullcontext()  # no locks on object stores
    message = f"sweep {sweep}: another process is running it; wait for its end, or give this one a --name"
    return locked(join(output, "studies", f"{sweep}.lock"), message)


def _check_windows(config: Config, store: FieldStore, plans: tuple[PairPlan, ...]) -> None:
    """Find out now, not in a trial, if a split holds no usable window."""
    from pipeline.tuning.trial import prepared

    for plan in plans:
        data = prepared(config, store, plan.pair)
        data.training_windows(1)
        for split in ("validation", "test"):
            data.scored_windows(split, 1, config.scoring, config.seed)


class _ending_runs:  # noqa: N801 - reads as the statement it makes
    """Leave no run open: FINISHED is set by whoever finishes, all others end KILLED or FAILED."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)  # `ray job stop` and schedulers end jobs so

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        self._tracker.end_all("KILLED" if interrupted else "FAILED")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


@dataclass
class Sweep:
    """A sweep under way.

    Attributes
    ----------
    config : Config
    store : FieldStore
    name : str
    tracker : Tracker
    studies : dict of FactorPair to PairStudy
    """

    config: Config
    store: FieldStore
    name: str
    tracker: Tracker
    studies: dict[FactorPair, PairStudy]

    def run(self) -> bool:
        """Run what is missing, then report; tells whether every pair has a scored trial."""
        from pipeline.tuning.report import report

        summary = self._start_run("sweep", f"sweep {self.name}", {"pairs": ",".join(map(str, self.studies))})
        self.tracker.text(summary, "config.yaml", environment.without_secrets(self.config.to_yaml()))
        runs = {
            pair: self._start_run(
                "study",
                f"{pair} study",
                {"pair": pair, "space": pair.space, "time": pair.time},
                key=study.name,
            )
            for pair, study in self.studies.items()
        }
        where = environment.without_secrets(self.tracker.uri)
        missing = sum(max(0, study.wanted) for study in self.studies.values())
        print(f"sweep {self.name}: {missing} trials to run, recorded at {where}", flush=True)
        if missing:
            self._tune(runs)
        return report(self, summary, runs)

    def _start_run(self, role: str, name: str, params: dict[str, Any], key: str | None = None) -> str:
        return self.tracker.start(key or self.name, name, tags={"finescale.role": role}, params=params)

    def _tune(self, runs: dict[FactorPair, str]) -> None:
        import ray
        from ray import tune

        from pipeline.tuning.observer import SweepObserver
        from pipeline.tuning.searcher import StudySearcher

        settings = self.config.tuning
        steps = sum(stage.steps for stage in family_stages(self.config.model, self.config.training))
        claims = RemoteClaims(ray.remote(num_cpus=0)(LeasedClaims).remote())
        observer = SweepObserver(self.tracker, self.studies, runs, steps, claims.forget)
        trainable = tune.with_parameters(_trainable, job=TrialJob(self.config, self.store, self.name, claims))
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(self.studies),
                num_samples=-1,  # the searcher knows when it is done
                max_concurrent_trials=settings.concurrent_trials,
                reuse_actors=True,  # imports and data stay warm between trials
            ),
            run_config=tune.RunConfig(
                name=self.name,
                storage_path=join(self.config.output, "tune"),
                callbacks=[observer],
                failure_config=tune.FailureConfig(max_failures=0),  # the study decides what is tried again
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        finally:
            observer.close()


@dataclass(frozen=True)
class TrialJob:
    """What all trials of a sweep have in common; sent to their processes."""

    config: Config
    store: FieldStore
    sweep: str
    claims: RemoteClaims


def _trainable(point: dict[str, Any], job: TrialJob) -> None:
    """Run one trial for Ray Tune."""
    from ray import tune

    from pipeline.tuning.trial import run_trial

    parameters = ScaleParameters.model_validate(point["parameters"])
    # A point that is repeated after a kill finds its unfinished stage under the same label.
    digest = hashlib.sha256(parameters.model_dump_json().encode()).hexdigest()[:12]

    def tell(step: StepReport) -> None:
        tune.report(vars(step))

    try:
        result = run_trial(
            job.config,
            job.store,
            FactorPair.parse(point["pair"]),
            parameters,
            claims=job.claims,
            owner=tune.get_context().get_trial_id(),
            label=f"{job.sweep}-{point['pair']}-{digest}",
            model_url=join(
                job.config.output, "models", job.sweep, point["pair"], f"trial-{point['number']:03d}"
            ),
            on_report=tell,
        )
    except FloatingPointError as error:  # diverged: a verdict on the point, not on the machine
        tune.report({"failure": str(error)})
        return
    tune.report(result)
