"""A final training, from its configuration to a registered model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline import environment
from pipeline.code_version import code_version
from pipeline.data.dataset import open_dataset
from pipeline.data.store import FieldStore
from pipeline.errors import GaveUpError
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.interval import crps_interval
from pipeline.evaluation.table import scores_table
from pipeline.files import join, write_bytes
from pipeline.final.observer import Scoring, StageBegun, StageMemory, TrainingObserver
from pipeline.final.plan import TrainingPlan
from pipeline.model_file import add_scores, load_model
from pipeline.models.families import family_stages
from pipeline.models.family import ModelSpec
from pipeline.progress import progress
from pipeline.ranks import Ranks
from pipeline.recording import recorded
from pipeline.tracking import Tracker, check_reachable, default_uri, tracking_uri
from pipeline.training.distributed import run_on_workers
from pipeline.training.memory import available_memory, check_fits, describe
from pipeline.training.memory_estimate import estimate
from pipeline.training.sharding import layout
from pipeline.tuning.kept import output_id, without_addresses
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.plan import plain, scored_on
from pipeline.tuning.scoring import prepared, score, showcase
from pipeline.tuning.trial import Point, TrialJob, run_trial

_LABEL = "final"


@dataclass(frozen=True)
class Trained:
    """What the workers give back.

    Attributes
    ----------
    outcome : Outcome
    test : Evaluation or None
        On the test split; None if the training diverged.
    """

    outcome: Outcome
    test: Evaluation | None


def run_training(plan: TrainingPlan) -> bool:
    """Train, score, save and register the model of one pair; what was done before is not done again.

    Returns
    -------
    bool
        Whether a model came out; a training that diverges gives none.

    Raises
    ------
    UserError
        For anything the user can put right, before anything is written.
    GaveUpError
        If workers were lost more often than allowed.
    """
    output = environment.resolve_output(plan.config.output)
    config = plan.config.model_copy(update={"output": output})
    plan = replace(plan, config=config)
    check_reachable(tracking_uri(config.tracking, output))
    print("starting Ray, checking the data ...", flush=True)
    workers = plan.workers
    wanted = {"CPU": workers.cpus, "GPU": workers.gpus}
    environment.start_ray(config, wanted, processes=workers.at_least or workers.count, setting="train")
    store = open_dataset(config.data, output)
    data = prepared(config, store, plan.pair)
    data.training_windows(1)
    for split in ("validation", "test"):
        data.scored_windows(split, 1, config.scoring, config.seed)
    name = plan.name(store, output_id(output))
    spec = ModelSpec(plan.pair, plan.parameters, config.model, data.transform, data.scale, store.info.statics)
    memory = _estimate(plan, spec, Ranks(world=workers.count, per_node=workers.count))
    print(
        f"training {name}, recorded at {environment.without_secrets(tracking_uri(config.tracking, output))}"
    )
    print(memory, flush=True)

    with recorded(config, store, name, "training", {"finescale.code": code_version()}) as tracker:
        run = f"{name}/training"
        _start_run(tracker, run, plan)
        tracker.text(run, "memory-estimate.txt", memory + "\n")
        job = TrialJob(without_addresses(config), store, name, cpus=workers.cpus, validate=True)
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
                    _Work(job, Point(plan.pair, plan.parameters, _LABEL), spec),
                    workers,
                    storage=join(output, "unfinished", f"ray-{name}"),
                    on_message=observer,
                )
            except GaveUpError as error:
                tracker.text(run, "failure.txt", error.details)
                raise
        return _report(plan, store, tracker, run, trained, spec)


@dataclass(frozen=True)
class _Work:
    """What every worker does."""

    job: TrialJob
    point: Point
    spec: ModelSpec

    def __call__(self, ranks: Ranks, tell: Callable[[Any], None]) -> Trained:
        config, store = self.job.config, self.job.store
        for memory in _estimates(config.training, self.spec, config.data.patch, ranks):
            # Of one process: on a CPU, those of a machine share it.
            sharing = 1 if ranks.device.type == "cuda" else ranks.per_node
            check_fits(memory, available_memory(ranks.device) // sharing, f"worker {ranks.rank}")
        outcome = run_trial(
            self.job,
            self.point,
            owner=_LABEL,
            ranks=ranks,
            on_start=lambda stage, step, steps: tell(StageBegun(stage, step, steps)),
            on_report=tell,
            on_memory=lambda stage, uses: tell(StageMemory(stage, uses)),
        )
        if outcome.model_url is None:
            return Trained(outcome, None)
        if ranks.main:
            tell(Scoring())
        model = load_model(outcome.model_url).to(ranks.device)
        data = prepared(config, store, self.point.pair)
        return Trained(outcome, score(model, data, config, "test", ranks=ranks))


def _estimates(training: Any, spec: ModelSpec, patch: int, ranks: Ranks) -> list[Any]:
    _, per_copy = layout(training.parallel, ranks.world, ranks.per_node)
    return [
        estimate(
            spec,
            stage,
            training,
            patch=patch,
            ranks_per_copy=per_copy,
            world=ranks.world,
            device_type=ranks.device.type,
        )
        for stage in family_stages(spec.settings, training)
    ]


def _estimate(plan: TrainingPlan, spec: ModelSpec, ranks: Ranks) -> str:
    device = torch.device("cuda" if plan.workers.gpus else "cpu")
    ranks = Ranks(world=ranks.world, per_node=ranks.per_node, device=device)
    return describe(_estimates(plan.config.training, spec, plan.config.data.patch, ranks))


def _start_run(tracker: Tracker, run: str, plan: TrainingPlan) -> None:
    f, pair, parameters = plan.parameters.conservation, plan.pair, plan.parameters
    tracker.start(
        run,
        f"{pair} training beta {parameters.beta:.3g} L {parameters.context}",
        tags={
            "finescale.role": "training",
            "finescale.pair": str(pair),
            "finescale.origin": plan.entry.origin.value,
        },
        params={
            "pair": pair, "space": pair.space, "time": pair.time,
            "beta": parameters.beta, "context": parameters.context,
            "power": f.power, "threshold": f.threshold, "scope": f.scope.value,
            "batch": plan.config.training.batch,
        },
    )  # fmt: skip
    tracker.text(run, "config.yaml", environment.without_secrets(plan.config.to_yaml()))


def _report(
    plan: TrainingPlan, store: FieldStore, tracker: Tracker, run: str, trained: Trained, spec: ModelSpec
) -> bool:
    config, outcome, test = plan.config, trained.outcome, trained.test
    if outcome.model_url is None or test is None:
        print(f"{plan.pair}: no model, {outcome.reason}")
        tracker.tag(run, {"finescale.reason": str(outcome.reason)})
        tracker.end(run, "FAILED")
        return False
    scores = {f"test_{name}": value for name, value in test.as_metrics().items()}
    add_scores(outcome.model_url, scores)
    tracker.metrics(run, {f"validation_{name}": value for name, value in outcome.metrics.items()} | scores)
    png = showcase(config, store, outcome.model_url)
    write_bytes(join(outcome.model_url, "wettest.png"), png)
    tracker.artifact(run, "figures/wettest.png", png)
    tracker.tag(run, {"finescale.model": outcome.model_url})
    if config.tracking.register_models:
        tracker.register(
            run,
            outcome.model_url,
            f"finescale-{plain(store.info.name)}-{plan.pair}",
            crps=test.ensemble.crps,
            scored_on=scored_on(config, store),
        )
    tracker.end(run, "FINISHED")
    windows = prepared(config, store, plan.pair).scored_windows("test", 1, config.scoring, config.seed)
    interval = crps_interval(test, windows, config.scoring, config.seed)
    print(f"\n{scores_table(spec, store.info, 'test', test, interval)}\n")
    delivered = tracker.flush(config.tracking.patience)
    print(f"model: {outcome.model_url}")
    if tracker.registered(run):
        print(f"registered: {tracker.registered(run)}")
    if not delivered:
        print("MLflow does not answer: what it lacks is kept, the same command delivers it")
    if tracker.uri == default_uri(config.output):
        print(f"look at the run: make ui OUTPUT={config.output}, then open http://127.0.0.1:5000")
    return True
