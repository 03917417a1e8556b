"""What a sweep is going to do, worked out before anything is started or written."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from pipeline.code_version import code_version
from pipeline.config import Config
from pipeline.data.splits import longest_context, split_time
from pipeline.data.windows import check_divides
from pipeline.errors import UserError
from pipeline.factors import FactorPair
from pipeline.models.families import family_stages
from pipeline.recipe import Recipe, RecipeEntry
from pipeline.storage.files import read_text
from pipeline.store.field_store import FieldStore
from pipeline.training.feed import check_batch
from pipeline.tuning.proposal import rung_steps
from pipeline.tuning.search_space import first_points, source_digest


@dataclass(frozen=True)
class PairPlan:
    """One pair of a sweep.

    Attributes
    ----------
    entry : RecipeEntry
        The pair, and the values that its search is centred on.
    max_context : int
        Largest L that data and settings allow.
    first : tuple of dict
        Points that are tried first, the paper's prior before all.
    """

    entry: RecipeEntry
    max_context: int
    first: tuple[dict[str, object], ...]

    @property
    def pair(self) -> FactorPair:
        """The pair that is tuned."""
        return self.entry.pair


def plan_sweep(config: Config, shape: tuple[int, int, int]) -> tuple[PairPlan, ...]:
    """Check every pair against a field of (time, y, x) values.

    Raises
    ------
    UserError
        For the first pair that does not fit, or if there is none.
    """
    if not config.tuning.pairs:
        raise UserError("tuning.pairs: no factor pair given; name at least one, as in --pairs 4x2,8x1")
    if config.tuning.gpus_per_trial == 0 and config.tuning.cpus_per_trial < 1e-3:
        raise UserError(
            f"tuning.cpus_per_trial: {config.tuning.cpus_per_trial} is too little to run anything"
        )
    check_batch(config.training, config.tuning.workers_per_trial)
    if config.tuning.workers_per_trial > 1 and config.tuning.gpus_per_trial not in (0, 1):
        raise UserError(  # NCCL joins no two processes on one GPU
            f"tuning.gpus_per_trial: {config.tuning.gpus_per_trial:g} cannot be used with "
            f"{config.tuning.workers_per_trial} workers per trial; give 0 or 1"
        )
    frames, height, width = shape
    recipe = Recipe.load(config.tuning.recipe) if config.tuning.recipe else Recipe()
    plans = []
    for pair in config.tuning.pairs:
        check_divides(pair, config.data, height, width)
        longest = longest_context(split_time(frames, config.data.split), pair, config.tuning.max_context)
        entry = recipe.entry(pair)
        plans.append(PairPlan(entry, longest, first_points(config.tuning.search_space, entry, longest)))
    return tuple(plans)


def last_rungs(config: Config) -> tuple[int, ...]:
    """Give the steps of the last stage at which a trial may be pruned; none unless CRPS alone is the goal."""
    if config.tuning.objectives != ("crps",):  # rungs are scored by it
        return ()
    return rung_steps(family_stages(config.model, config.training)[-1].steps, config.tuning.pruning)


def describe_plan(config: Config, plans: tuple[PairPlan, ...]) -> str:
    """Say in a few lines what would run and what it would cost."""
    trials, stages = config.tuning.trials, family_stages(config.model, config.training)
    lines = [f"plan: {len(plans)} pairs x {trials} trials = {len(plans) * trials} trainings"]
    most = least = 0
    for plan in plans:
        contexts = len({point.get("context") for point in plan.first})
        for stage in stages:
            alone = trials * stage.steps
            shared = stage.shareable and config.tuning.share_stages
            most, least = most + alone, least + (contexts * stage.steps if shared else alone)
        origin = plan.entry.origin.value
        lines.append(
            f"  {plan.pair}: around the {origin} values, L up to {plan.max_context}; "
            f"first {_brief(plan.first[0])}"
        )
    lines.append(f"  between {least:,} and {most:,} training steps, as trials share stages or not")
    rungs = last_rungs(config)
    if rungs and trials > config.tuning.startup_trials:
        steps = " and ".join(map(str, rungs))
        lines.append(f"  pruning after {steps} of the {stages[-1].steps} steps of stage {stages[-1].name}")
    at_once = len(plans) * config.tuning.at_once
    lines.append(f"  at most {at_once} trials at once ({config.tuning.at_once} per pair: tuning.at_once)")
    return "\n".join(lines)


def _brief(point: dict[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in point.items()
    )


def sweep_id(config: Config, store: FieldStore, output_id: str) -> str:
    """Name a sweep by its data, by every setting that its scores depend on, and by its output.

    The same command finds its sweep again; other settings never mix with it, nor does another output on the
    same MLflow server or database. Pairs and the number of trials are not part of it, so that both can be
    extended.
    """
    settings = {
        "output": output_id,
        "data": config.data.deciding(),
        "model": config.model.model_dump(mode="json"),
        "training": config.training.deciding(),
        "sampling": config.sampling.model_dump(mode="json"),
        "scoring": [config.scoring.windows],
        "search": [source_digest(config.tuning.search_space), *_what_is_searched(config)],
        "seed": config.seed,
        "fingerprint": store.info.fingerprint,
        "code": code_version(),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.tuning.name or plain(store.info.name)}-{digest}"


def _what_is_searched(config: Config) -> list[object]:
    tuning = config.tuning
    settings = tuning.model_dump(
        mode="json", include={"objectives", "max_context", "startup_trials", "at_once", "pruning"}
    )
    recipe = read_text(tuning.recipe) if tuning.recipe else None
    return [settings, hashlib.sha256(recipe.encode()).hexdigest() if recipe else None]


def scored_on(config: Config, store: FieldStore) -> str:
    """Name what a test score stands on: scores of other windows or another sampling do not compare."""
    return _stands_on(config, store, config.scoring.test_windows)


def validated_on(config: Config, store: FieldStore) -> str:
    """Name what a validation score stands on."""
    return _stands_on(config, store, config.scoring.windows)


def _stands_on(config: Config, store: FieldStore, windows: int) -> str:
    settings = [
        store.info.fingerprint,
        config.data.deciding(),
        config.sampling.model_dump(mode="json"),
        windows,
        config.tuning.max_context,  # windows leave room for it
        config.seed,
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def registered_name(store: FieldStore, pair: FactorPair) -> str:
    """Give the name under which MLflow registers the models of a pair."""
    return f"finescale-{plain(store.info.name)}-{pair}"


def plain(name: str) -> str:
    """Make a data set's name fit for folders, and for MLflow's filters and registered models."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
