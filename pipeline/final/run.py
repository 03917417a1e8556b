"""A final training, from its configuration to a registered model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from pipeline import environment
from pipeline.code_version import code_version
from pipeline.data.dataset import open_dataset
from pipeline.errors import GaveUpError
from pipeline.evaluation.bootstrap import crps_interval
from pipeline.evaluation.table import scores_table
from pipeline.final.note import training_note
from pipeline.final.observer import TrainingObserver
from pipeline.final.plan import TrainingPlan
from pipeline.final.work import LABEL, Trained, Work
from pipeline.mlflow_view.recipe_values import pair_tags, recipe_metrics, run_params
from pipeline.mlflow_view.views import VALUES
from pipeline.model_file import add_scores, load_card
from pipeline.models.family import ModelSpec
from pipeline.progress import progress
from pipeline.records.recording import recorded
from pipeline.storage.files import join, reached, write_bytes
from pipeline.store.field_store import FieldStore
from pipeline.tracking import NOTE, ROLE, TrackedData, Tracker, check_reachable, how_to_look, tracking_uri
from pipeline.training.distributed import run_on_workers
from pipeline.tuning.kept import output_id, without_addresses
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.plan import registered_name, scored_on, validated_on
from pipeline.tuning.scoring import checked, prepared, showcase
from pipeline.tuning.trial import Point, TrialJob


def run_training(plan: TrainingPlan) -> None:
    """Train, score, save and register the model of one pair; what was done before is not done again.

    Raises
    ------
    UserError
        For anything the user can put right, before anything is written; if the training diverges.
    GaveUpError
        If workers were lost more often than allowed.
    """
    output = environment.resolve_output(plan.config.output)
    config, workers = plan.config.model_copy(update={"output": output}), plan.workers
    plan, uri = replace(plan, config=config), tracking_uri(config.tracking, output)
    with reached(output):  # before Ray is started
        check_reachable(uri)
    print("starting Ray, checking the data ...", flush=True)
    wanted = {"CPU": workers.cpus, "GPU": workers.gpus}
    environment.start_ray(config, wanted, processes=workers.at_least or workers.count, setting="train")
    store = open_dataset(config.data, output)
    spec = _specification(plan, store)
    name = plan.name(store, output_id(output))
    print(f"training {name}, recorded at {environment.without_secrets(uri)}", flush=True)
    with recorded(config, store, name, "training", {"finescale.code": code_version()}) as tracker:
        run, job = f"{name}/training", TrialJob(without_addresses(config), store, name, final=True)
        if _is_done(plan, job, tracker, run):
            return
        _start_run(tracker, run, plan, store)
        trained = _train(tracker, run, plan, replace(job, cpus=workers.cpus), spec)
        _report(plan, store, tracker, run, trained, spec)


def _specification(plan: TrainingPlan, store: FieldStore) -> ModelSpec:
    """Fit what depends on the data, and find out now, not in a worker, if a split holds no usable window."""
    config = plan.config
    data = checked(config, store, plan.pair)
    return ModelSpec.fitted(data, plan.parameters, config.model)


def _is_done(plan: TrainingPlan, job: TrialJob, tracker: Tracker, run: str) -> bool:
    """Tell, and say, whether the same command has come to its end before."""
    folder = job.folder(plan.pair, LABEL)
    outcome = Outcome.load(folder, plan.parameters)
    if outcome is None or outcome.model_url is None or tracker.status(run) != "FINISHED":
        return False
    crps = load_card(outcome.model_url)["scores"].get("test_crps")
    print(f"trained and scored before: test CRPS {crps:.4f}; jobs/evaluate.py scores it otherwise")
    print(f"model: {folder}")
    return True


def _train(tracker: Tracker, run: str, plan: TrainingPlan, job: TrialJob, spec: ModelSpec) -> Trained:
    with ExitStack() as bar:
        observer = TrainingObserver(
            tracker,
            run,
            plan.steps,
            lambda steps: bar.enter_context(progress(str(plan.pair), steps, "steps")),
            lambda line: print(line, flush=True),
        )
        try:
            trained: Trained = run_on_workers(
                Work(job, Point(plan.pair, plan.parameters, LABEL), spec),
                plan.workers,
                storage=join(job.config.output, "unfinished", f"ray-{job.sweep}"),
                on_message=observer,
            )
        except GaveUpError as error:
            tracker.text(run, "failure.txt", error.details)
            raise
    return trained


def _start_run(tracker: Tracker, run: str, plan: TrainingPlan, store: FieldStore) -> None:
    pair, parameters, info = plan.pair, plan.parameters, store.info
    tracker.use_data(TrackedData.of(store))
    tracker.start(
        run,
        f"{pair} final",
        tags={
            ROLE: "training",
            **pair_tags(pair),
            "finescale.origin": plan.entry.origin.value,
            "finescale.conservation": str(parameters.conservation),
            NOTE: training_note(plan, info.name, info.units, None, None),
        },
        params={**run_params(pair, parameters), "batch": plan.config.training.batch},
    )
    tracker.metrics(run, recipe_metrics(parameters))
    tracker.text(run, "config.yaml", environment.without_secrets(plan.config.to_yaml()))


def _report(
    plan: TrainingPlan, store: FieldStore, tracker: Tracker, run: str, trained: Trained, spec: ModelSpec
) -> None:
    config, outcome, test = plan.config, trained.outcome, trained.test
    assert outcome.model_url is not None  # a final training is not pruned, and its divergence is an error
    scores = {f"test_{name}": value for name, value in test.as_metrics().items()}
    add_scores(outcome.model_url, scores)
    windows = prepared(config, store, plan.pair).scored_windows("test", 1, config.scoring, config.seed)
    cadence = store.info.cadence_seconds
    interval = crps_interval(test, windows, config.scoring, config.seed, cadence_seconds=cadence)
    scores |= {"test_crps_low": interval.low, "test_crps_high": interval.high}
    name = registered_name(store, plan.pair) if config.tracking.register_models else None
    tracker.metrics(run, {f"validation_{name}": value for name, value in outcome.metrics.items()} | scores)
    png = showcase(config, store, outcome.model_url)
    write_bytes(join(outcome.model_url, "wettest.png"), png)
    tracker.artifact(run, "figures/wettest.png", png)
    tracker.tag(run, {"finescale.model": outcome.model_url})
    tracker.note(run, training_note(plan, store.info.name, store.info.units, scores, name))
    if name:
        tracker.register(
            run,
            outcome.model_url,
            name,
            crps=test.ensemble.crps,
            scored_on=scored_on(config, store),
            interval=(interval.low, interval.high),
            validation=(outcome.metrics["crps"], validated_on(config, store)),
        )
    tracker.end(run, "FINISHED")
    print(f"\n{scores_table(spec, store.info, 'test', test, interval)}\n")
    delivered = tracker.flush(config.tracking.patience)
    print(f"model: {outcome.model_url}")
    if tracker.registered(run):
        print(f"registered: {tracker.registered(run)}")
    if not delivered:
        print("MLflow does not answer: what it lacks is kept, the same command delivers it")
    if page := tracker.page(run):
        print(f"its run, in MLflow: {page}")
    print(f"beside tuned pairs and other final models: {tracker.address(VALUES)}")
    print(f"look at the run: {how_to_look(tracker.uri, config.output)}")
