"""One trial, in a process of its own: train a model with given (beta, L, f) and score it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from pipeline.config import Config
from pipeline.data.pair_data import PairData
from pipeline.data.windows import Windows, thin
from pipeline.devices import device_of_trial
from pipeline.errors import UserError
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.model_file import describe_data, save_model
from pipeline.models.families import family_stages
from pipeline.models.family import ModelSpec, SuperResolutionModel
from pipeline.ranks import Ranks
from pipeline.storage.files import join, remove_folder
from pipeline.store.field_store import FieldStore
from pipeline.training.fit import fit
from pipeline.training.loop import Hooks, StepReport
from pipeline.training.memory import MemoryUse
from pipeline.tuning.claims import Claims
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.scoring import prepared, score
from pipeline.tuning.stage_cache import SharedStages
from pipeline.tuning.trial_progress import PrunedError, TrialProgress


@dataclass(frozen=True)
class TrialJob:
    """What all trials of a sweep have in common; sent to their processes.

    Attributes
    ----------
    config : Config
    store : FieldStore
    sweep : str
    claims : Claims or None
        Of the shared stages; none: every stage is trained anew.
    cpus : float
        Of each process that trains.
    final : bool
        A training by itself, not a trial: it has a validation loss with each checkpoint, and a divergence is
        no verdict on its point.
    """

    config: Config
    store: FieldStore
    sweep: str
    claims: Claims | None = None
    cpus: float = 1.0
    final: bool = False

    def forget(self, owner: str) -> None:
        """Drop the claims of an attempt at a trial that has ended."""
        if self.claims is not None:
            self.claims.forget(owner)

    def shared_by(self, ranks: Ranks) -> TrialJob:
        """Give the job of one of several ranks: those of a machine share the memory for the field."""
        data = self.config.data
        share = data.model_copy(update={"memory_gib": data.memory_gib / ranks.per_node})
        return replace(self, config=self.config.model_copy(update={"data": share}))

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


def run_trial(
    job: TrialJob,
    point: Point,
    *,
    owner: str,
    ranks: Ranks | None = None,
    on_report: Callable[[StepReport], None] | None = None,
    on_rung: Callable[[int, float], None] | None = None,
    on_start: Callable[[str, int, int], None] | None = None,
    on_memory: Callable[[str, list[MemoryUse]], None] | None = None,
) -> Outcome:
    """Train, score on the validation split and save the model; a trial that has ended is only read.

    All ranks call it in step; the first one writes and reports.

    Parameters
    ----------
    job : TrialJob
    point : Point
    owner : str
        Name of this attempt at the trial, which claims of stages are held under.
    ranks : Ranks, optional
        Alone unless given, on the GPU that Ray has assigned to this process if trials ask for one.
    on_report : callable, optional
        Called as training proceeds.
    on_rung : callable, optional
        Called with step and CRPS where the trial may be pruned.
    on_start : callable, optional
        Called with each stage's name, the steps that an earlier attempt has done and all of them.
    on_memory : callable, optional
        Called at the end of each stage with its name and what each rank held.

    Raises
    ------
    UserError
        If a final training diverges.
    """
    ranks = ranks or Ranks(device=device_of_trial(job.config))
    torch.set_num_threads(max(1, int(job.cpus)))
    folder = job.folder(point.pair, point.label)
    unfinished = join(job.config.output, "unfinished", f"{job.sweep}-{point.pair}-{point.label}")
    stages = family_stages(job.config.model, job.config.training)
    progress = TrialProgress(join(unfinished, "progress.json"), point.limits, on_rung, ranks)

    def report(step: StepReport) -> None:
        progress.report(step)
        if on_report:
            on_report(step)

    outcome = ranks.agree(Outcome.load(folder, point.parameters) if ranks.main else None)
    if outcome is None:
        progress.restore()
        hooks = Hooks(on_start=on_start, on_report=report, rungs=tuple(point.limits), on_memory=on_memory)
        try:
            outcome = _train_and_score(job, point, folder, unfinished, progress, owner, ranks, hooks)
        except PrunedError:
            progress.trained[stages[-1].name] = max(progress.rungs)
            outcome = Outcome(state="pruned", parameters=point.parameters)
        except FloatingPointError as error:  # diverged: a verdict on the point, not on the machine
            if job.final:
                raise UserError(
                    f"the training diverged ({error}); give the same command again to try from its last "
                    "checkpoint, or lower training.learning_rate, or set training.precision=float32"
                ) from error
            outcome = Outcome(state="failed", parameters=point.parameters, reason=str(error))
        steps = sum(progress.trained.values())
        outcome = outcome.model_copy(update={"rungs": progress.rungs, "trained_steps": steps})
        outcome = ranks.agree(outcome)  # reports, and so the steps, come to the first rank only
        if ranks.main:
            outcome.save(folder)
    if ranks.main:  # whatever is left: a kill may have come after the outcome
        remove_folder(unfinished)
    ranks.wait()  # the others may want to read what the first has written
    return outcome


def _train_and_score(
    job: TrialJob,
    point: Point,
    folder: str,
    unfinished: str,
    progress: TrialProgress,
    owner: str,
    ranks: Ranks,
    hooks: Hooks,
) -> Outcome:
    config, store, started = job.config, job.store, time.monotonic()
    data = prepared(config, store, point.pair)
    context = point.parameters.context

    def look(step: int, model: SuperResolutionModel) -> None:
        count = config.tuning.pruning.windows
        progress.look(
            step, lambda: score(model, data, config, "validation", count, ranks=ranks).ensemble.crps
        )

    model = fit(
        ModelSpec.fitted(data, point.parameters, config.model),
        data.training_windows(context),
        config.training,
        seed=config.seed,
        ranks=ranks,
        cache=_shared_stages(job, owner),
        checkpoint_url=unfinished,
        validation=_validation_windows(job, data, context),
        hooks=hooks,
        on_rung=look,
    )
    trained = time.monotonic()
    scores = score(model, data, config, "validation", ranks=ranks).as_metrics()
    if not math.isfinite(scores["crps"]):
        raise FloatingPointError(f"CRPS is {scores['crps']}")
    if ranks.main:
        save_model(
            folder,
            model,
            sampling=config.sampling,
            data=describe_data(store, config),
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


def _shared_stages(job: TrialJob, owner: str) -> SharedStages | None:
    if job.claims is None or not job.config.tuning.share_stages:
        return None
    url = join(job.config.output, "stages")
    return SharedStages(url, job.config, job.store.info.fingerprint, job.claims, owner)


def _validation_windows(job: TrialJob, data: PairData, context: int) -> Windows | None:
    count = job.config.training.checkpoints.validation_windows
    if not count or not (job.final or job.config.training.weights == "best"):
        return None
    windows = data.scored_windows("validation", context, job.config.scoring, job.config.seed)
    return thin(windows, count, job.config.seed)
