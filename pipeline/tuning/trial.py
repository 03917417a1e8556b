"""One trial, in a process of its own: train a model with given (beta, L, f) and score it."""

from __future__ import annotations

import functools
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.config import Config
from pipeline.data.pair_data import PairData
from pipeline.data.splits import SplitName
from pipeline.data.store import FieldStore
from pipeline.data.windows import thin
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.files import exists, join, read_text, remove, write_text
from pipeline.model_file import describe_data, load_model, save_model
from pipeline.models.families import family_stages
from pipeline.models.family import ModelSpec, SuperResolutionModel
from pipeline.training.fit import checkpoint_file, fit
from pipeline.training.loop import StepReport
from pipeline.tuning.claims import Claims
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.stage_cache import SharedStages

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialJob:
    """What all trials of a sweep have in common; sent to their processes.

    Attributes
    ----------
    config : Config
    store : FieldStore
    sweep : str
    claims : Claims
        Of the shared stages.
    """

    config: Config
    store: FieldStore
    sweep: str
    claims: Claims

    def folder(self, pair: FactorPair, label: str) -> str:
        """Give where a trial keeps its model and its outcome."""
        return join(self.config.output, "models", self.sweep, str(pair), label)


@dataclass(frozen=True)
class Point:
    """What one trial tries.

    Attributes
    ----------
    pair : FactorPair
    parameters : ScaleParameters
    label : str
        Unique among the pair's trials; a trial that is repeated after a kill finds its files by it.
    limits : mapping
        By step of the last stage: the highest CRPS with which the trial goes on; None: with any.
    """

    pair: FactorPair
    parameters: ScaleParameters
    label: str
    limits: Mapping[int, float | None] = field(default_factory=dict, hash=False)


class _Pruned(Exception):  # noqa: N818 - nothing went wrong
    """Ends the training at a rung."""


def run_trial(
    job: TrialJob,
    point: Point,
    *,
    owner: str,
    on_report: Callable[[StepReport], None] | None = None,
    on_rung: Callable[[int, float], None] | None = None,
) -> Outcome:
    """Train, score on the validation split and save the model; a trial that has ended is only read.

    Parameters
    ----------
    job : TrialJob
    point : Point
    owner : str
        Name of this attempt at the trial, which claims of stages are held under.
    on_report : callable, optional
        Called as training proceeds.
    on_rung : callable, optional
        Called with step and CRPS where the trial may be pruned.
    """
    folder = job.folder(point.pair, point.label)
    unfinished = join(job.config.output, "unfinished", f"{job.sweep}-{point.pair}-{point.label}")
    stages = family_stages(job.config.model, job.config.training)
    progress = _Progress(f"{unfinished}-progress.json", point.limits, on_rung)

    def report(step: StepReport) -> None:
        progress.report(step)
        if on_report:
            on_report(step)

    outcome = Outcome.load(folder, point.parameters)
    if outcome is None:
        progress.restore()
        try:
            outcome = _train_and_score(job, point, folder, unfinished, progress, owner, report)
        except _Pruned:
            progress.trained[stages[-1].name] = max(progress.rungs)
            outcome = Outcome(state="pruned", parameters=point.parameters)
        except FloatingPointError as error:  # diverged: a verdict on the point, not on the machine
            outcome = Outcome(state="failed", parameters=point.parameters, reason=str(error))
        steps = sum(progress.trained.values())
        outcome = outcome.model_copy(update={"rungs": progress.rungs, "trained_steps": steps})
        outcome.save(folder)
    for stage in stages:  # whatever is left: a kill may have come after the outcome
        remove(checkpoint_file(unfinished, stage))
    remove(progress.url)
    return outcome


def _train_and_score(
    job: TrialJob,
    point: Point,
    folder: str,
    unfinished: str,
    progress: _Progress,
    owner: str,
    on_report: Callable[[StepReport], None],
) -> Outcome:
    config, store, started = job.config, job.store, time.monotonic()
    data = prepared(config, store, point.pair)
    torch.set_num_threads(max(1, int(config.tuning.cpus_per_trial)))
    stages = SharedStages(join(config.output, "stages"), config, store.info.fingerprint, job.claims, owner)

    def look(step: int, model: SuperResolutionModel) -> None:
        count = config.tuning.pruning.windows
        progress.look(step, lambda: score(model, data, config, "validation", count).ensemble.crps)

    model = fit(
        ModelSpec(point.pair, point.parameters, config.model, data.transform, data.scale, store.info.statics),
        data.training_windows(point.parameters.context),
        config.training,
        seed=config.seed,
        device=device(config),
        cache=stages if config.tuning.share_stages else None,
        checkpoint_url=unfinished,
        on_report=on_report,
        rungs=tuple(point.limits),
        on_rung=look,
    )
    trained = time.monotonic()
    scores = score(model, data, config, "validation").as_metrics()
    if not math.isfinite(scores["crps"]):
        raise FloatingPointError(f"CRPS is {scores['crps']}")
    save_model(
        folder,
        model,
        sampling=config.sampling,
        data=describe_data(store.info),
        scores={f"validation_{name}": value for name, value in scores.items()},
    )
    return Outcome(
        state="complete",
        parameters=point.parameters,
        metrics={
            **scores,
            "training_seconds": trained - started,
            "scoring_seconds": time.monotonic() - trained,
        },
        model_url=folder,
    )


class _Progress:
    """What a trial has been through, kept in a file: a resumed training repeats neither rungs nor stages.

    Attributes
    ----------
    rungs : dict
        CRPS by step.
    trained : dict
        Steps by stage, of the stages that did not come from the cache.
    """

    def __init__(
        self, url: str, limits: Mapping[int, float | None], tell: Callable[[int, float], None] | None
    ) -> None:
        self.url, self._limits, self._tell = url, limits, tell
        self.rungs: dict[int, float] = {}
        self.trained: dict[str, int] = {}

    def restore(self) -> None:
        """Go on from what an earlier attempt at the trial has left."""
        if not exists(self.url):
            return
        try:
            kept = json.loads(read_text(self.url))
            self.rungs = {int(step): float(crps) for step, crps in kept["rungs"].items()}
            self.trained = dict(kept["trained"])
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("%s is damaged; the trial's rungs are looked at again where it can", self.url)
            self.rungs, self.trained = {}, {}

    def report(self, step: StepReport) -> None:
        """Count the steps of a stage."""
        if step.cached:  # from the cache; an earlier attempt of this trial may have put it there
            return
        self.trained[step.stage] = step.step
        if step.step == step.steps:
            self._save()

    def look(self, step: int, score: Callable[[], float]) -> None:
        """Score the model at a rung; ends the training if it is not good enough to go on."""
        if step not in self.rungs:
            crps = score()
            if not math.isfinite(crps):
                raise FloatingPointError(f"CRPS is {crps} after step {step}")
            self.rungs[step] = crps
            self._save()
        limit = self._limits[step]
        if self._tell:
            self._tell(step, self.rungs[step])
        if limit is not None and self.rungs[step] > limit:
            raise _Pruned

    def _save(self) -> None:
        write_text(self.url, json.dumps({"rungs": self.rungs, "trained": self.trained}))


@functools.lru_cache(maxsize=32)  # pairs; the fields themselves are shared
def pair_data(
    store_url: str, fingerprint: str, pair: FactorPair, data_json: str, max_context: int
) -> PairData:
    """Prepare a pair's data once per process; trials that follow in the same process find it ready."""
    from pipeline.config import DataSettings

    store = FieldStore.open(store_url)
    if store.info.fingerprint != fingerprint:
        raise UserError(f"store {store_url}: it changed during the sweep; start the sweep again")
    return PairData.prepare(store, pair, DataSettings.model_validate_json(data_json), max_context)


def prepared(config: Config, store: FieldStore, pair: FactorPair) -> PairData:
    """Give the data of a pair, as every part of a sweep sees it."""
    return pair_data(
        store.url, store.info.fingerprint, pair, config.data.model_dump_json(), config.tuning.max_context
    )


def device(config: Config) -> torch.device:
    """Give the GPU that Ray has assigned to this process if trials ask for one, else the CPU."""
    wanted = config.tuning.gpus_per_trial > 0 and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


def score(
    model: Any, data: PairData, config: Config, split: SplitName, count: int | None = None
) -> Evaluation:
    """Score a model on a split, with the sampler and the evaluations that downscaling uses.

    Parameters
    ----------
    model : SuperResolutionModel
    data : PairData
    config : Config
    split : {"train", "validation", "test"}
    count : int, optional
        At most so many of the split's scored windows; none: all of them.
    """
    windows = data.scored_windows(split, model.spec.parameters.context, config.scoring, config.seed)
    if count is not None:
        windows = thin(windows, count, config.seed)
    return evaluate(
        model, windows, config.sampling, batch=config.scoring.batch, seed=config.seed, device=device(config)
    )


def score_saved(config: Config, store: FieldStore, model_url: str, split: SplitName) -> Evaluation:
    """Load a saved model and score it."""
    torch.set_num_threads(max(1, int(config.tuning.cpus_per_trial)))
    model = load_model(model_url).to(device(config))
    return score(model, prepared(config, store, model.spec.pair), config, split)
