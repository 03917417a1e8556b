"""What a sweep is going to do, worked out before anything is started or written."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from pipeline import __version__
from pipeline.config import Config
from pipeline.data.splits import longest_context, split_time
from pipeline.data.store import FieldStore
from pipeline.data.windows import check_divides
from pipeline.errors import UserError
from pipeline.factors import FactorPair
from pipeline.models.families import family_stages
from pipeline.tuning.study import first_points


@dataclass(frozen=True)
class PairPlan:
    """One pair of a sweep.

    Attributes
    ----------
    pair : FactorPair
    max_context : int
        Largest L that data and settings allow.
    first : tuple of dict
        Points that are tried first, the paper's prior before all.
    """

    pair: FactorPair
    max_context: int
    first: tuple[dict[str, object], ...]


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
    frames, height, width = shape
    plans = []
    for pair in config.tuning.pairs:
        check_divides(pair, config.data, height, width)
        longest = longest_context(split_time(frames, config.data.split), pair, config.tuning.max_context)
        plans.append(PairPlan(pair, longest, first_points(config.tuning.search_space, pair, longest)))
    return tuple(plans)


def describe_plan(config: Config, plans: tuple[PairPlan, ...]) -> str:
    """Say in a few lines what would run and what it would cost."""
    trials, stages = config.tuning.trials, family_stages(config.model, config.training)
    lines = [f"plan: {len(plans)} pairs x {trials} trials = {len(plans) * trials} trainings"]
    most = least = 0
    for plan in plans:
        contexts = len({point.get("context") for point in plan.first})
        for stage in stages:
            alone = trials * stage.steps
            shared = stage.shareable
            most, least = most + alone, least + (contexts * stage.steps if shared else alone)
        prior = plan.first[0]
        lines.append(f"  {plan.pair}: first {_brief(prior)}; L up to {plan.max_context}")
    lines.append(f"  between {least:,} and {most:,} training steps, as trials share stages or not")
    return "\n".join(lines)


def _brief(point: dict[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in point.items()
    )


def sweep_id(config: Config, store: FieldStore) -> str:
    """Name a sweep by its data and by every setting that its scores depend on.

    The same command finds its sweep again; other settings never mix with it. Pairs and the number of
    trials are not part of it, so that both can be extended.
    """
    settings = {
        "data": config.data.model_dump(mode="json", exclude={"store", "synthetic", "memory_gib"}),
        "model": config.model.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json", exclude={"report_every", "checkpoint_every"}),
        "sampling": config.sampling.model_dump(mode="json"),
        "scoring": config.scoring.model_dump(mode="json", exclude={"batch", "test_windows"}),
        "search": [config.tuning.search_space, config.tuning.max_context, config.tuning.startup_trials],
        "seed": config.seed,
        "fingerprint": store.info.fingerprint,
        "version": __version__,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.tuning.name or plain(store.info.name)}-{digest}"


def plain(name: str) -> str:
    """Make a data set's name fit for folders, and for MLflow's filters and registered models."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
