"""What a final training is going to do, worked out before anything is started or written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.data.splits import longest_context, split_time
from pipeline.data.windows import check_divides
from pipeline.errors import UserError
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.models.families import family_stages
from pipeline.recipe import Origin, Recipe, RecipeEntry
from pipeline.store.field_store import FieldStore
from pipeline.training.distributed import Workers
from pipeline.training.feed import check_batch
from pipeline.training.sharding import layout
from pipeline.tuning.plan import plain


@dataclass(frozen=True)
class TrainingPlan:
    """One training.

    Attributes
    ----------
    config : Config
        With `tuning.max_context` raised to the recipe's L if that is larger.
    entry : RecipeEntry
        The pair, its values and where they came from.
    workers : Workers
    cut_from : int
        L before it was cut to what the splits leave room for; the same if it was not.
    """

    config: Config
    entry: RecipeEntry
    workers: Workers
    cut_from: int

    @property
    def pair(self) -> FactorPair:
        """The pair that is trained for."""
        return self.entry.pair

    @property
    def parameters(self) -> ScaleParameters:
        """Its scale parameters."""
        return self.entry.parameters

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in family_stages(self.config.model, self.config.training))

    def name(self, store: FieldStore, output_id: str) -> str:
        """Name the training by all that its result depends on, and by its output.

        The same command finds it again. The number of workers and their sharding are not part of it, so that
        both can be changed; nor is the version of the code, so that an update does not lose weeks, nor the
        sampling, which `jobs/evaluate.py` scores the same weights with.
        """
        settings = {
            "output": output_id,
            "pair": str(self.pair),
            "parameters": self.parameters.model_dump(mode="json"),
            "data": self.config.data.deciding(),
            "model": self.config.model.model_dump(mode="json"),
            "training": self.config.training.deciding(),
            "max_context": self.config.tuning.max_context,
            "seed": self.config.seed,
            "fingerprint": store.info.fingerprint,
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.config.train.name or plain(store.info.name)}-{self.pair}-{digest}"


def plan_training(config: Config, shape: tuple[int, int, int]) -> TrainingPlan:
    """Check a training against a field of (time, y, x) values.

    Raises
    ------
    UserError
        For whatever does not fit.
    """
    train, parallel = config.train, config.training.parallel
    if train.pair is None:
        raise UserError("train.pair: no factor pair given; name one, as in --pair 4x2")
    check_batch(config.training, train.workers)
    for count in range(train.min_workers or train.workers, train.workers + 1):  # elastic: any may come
        layout(parallel, count, per_node=count)
    if train.gpus_per_worker not in (0, 1):  # NCCL joins no two processes on one GPU
        raise UserError(f"train.gpus_per_worker: {train.gpus_per_worker:g} cannot be used; give 0 or 1")
    frames, height, width = shape
    check_divides(train.pair, config.data, height, width)
    entry = (Recipe.load(train.recipe) if train.recipe else Recipe()).entry(train.pair)
    context = entry.parameters.context
    wanted = max(context, config.tuning.max_context)
    longest = longest_context(split_time(frames, config.data.split), train.pair, wanted)
    if context > longest:
        if entry.origin is Origin.TUNED:  # for this L; another would be another model
            raise UserError(
                f"factor pair {train.pair}: the tuned values ask for L = {context}, the splits of this field "
                f"leave room for {longest}; give a longer period, or a --recipe with a smaller L"
            )
        shorter = entry.parameters.model_copy(update={"context": longest})
        entry = entry.model_copy(update={"parameters": shorter})
    tuning = config.tuning.model_copy(update={"max_context": wanted})
    workers = Workers(
        train.workers,
        train.min_workers,
        train.cpus_per_worker,
        train.gpus_per_worker,
        train.max_failures,
        train.resize_seconds,
    )
    return TrainingPlan(config.model_copy(update={"tuning": tuning}), entry, workers, cut_from=context)


def describe_plan(plan: TrainingPlan) -> str:
    """Say in a few lines what would run."""
    config, workers = plan.config, plan.workers
    stages = family_stages(config.model, config.training)
    steps = ", ".join(f"{stage.name} {stage.steps:,} steps" for stage in stages)
    count = f"{workers.at_least} to {workers.count}" if workers.at_least else str(workers.count)
    each = ", ".join(f"{n:g} {kind}" for kind, n in (("CPU", workers.cpus), ("GPU", workers.gpus)) if n)
    context = plan.parameters.context
    cut = f" (L cut from {plan.cut_from}: the splits hold no more)" if context < plan.cut_from else ""
    return (
        f"plan: {plan.pair} with the {plan.entry.origin.value} values {plan.parameters}{cut}\n"
        f"  {steps}, batch {config.training.batch} on {count} workers with {each} each, "
        f"sharding {config.training.parallel.sharding}\n"
        f"  a checkpoint every {config.training.checkpoints.every} steps"
    )
