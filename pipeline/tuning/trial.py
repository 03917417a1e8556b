"""One trial, in a process of its own: train a model with given (beta, L, f) and score it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from pipeline.config import Config
from pipeline.data.pair_data import PairData
from pipeline.data.splits import SplitName
from pipeline.data.store import FieldStore
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.files import join
from pipeline.model_file import describe_data, load_model, save_model
from pipeline.models.family import ModelSpec
from pipeline.training.fit import fit
from pipeline.training.loop import StepReport
from pipeline.tuning.stage_cache import Claims, SharedStages


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


def run_trial(
    config: Config,
    store: FieldStore,
    pair: FactorPair,
    parameters: ScaleParameters,
    *,
    claims: Claims,
    owner: str,
    label: str,
    model_url: str,
    on_report: Callable[[StepReport], None],
) -> dict[str, Any]:
    """Train, score on the validation split and save the model.

    Parameters
    ----------
    config : Config
    store : FieldStore
    pair : FactorPair
    parameters : ScaleParameters
    claims : Claims
        Of the shared stages.
    owner : str
        Name of this attempt at the trial, which claims are held under.
    label : str
        Of the trial, unique in the sweep; an unfinished stage is kept under it.
    model_url : str
        Folder for the model.
    on_report : callable

    Returns
    -------
    dict
        `metrics` by name and `model_url`.

    Raises
    ------
    FloatingPointError
        If training diverged, or what it led to cannot be scored.
    """
    started = time.monotonic()
    data = prepared(config, store, pair)
    where = device(config)
    torch.set_num_threads(max(1, int(config.tuning.cpus_per_trial)))
    statics = store.info.statics
    spec = ModelSpec(pair, parameters, config.model, data.transform, data.scale, statics)
    stages = SharedStages(join(config.output, "stages"), config, store.info.fingerprint, claims, owner)
    model = fit(
        spec,
        data.training_windows(parameters.context),
        config.training,
        seed=config.seed,
        device=where,
        cache=stages,
        checkpoint_url=join(config.output, "unfinished", label),
        on_report=on_report,
    )
    trained = time.monotonic()
    scores = score(model, data, config, "validation")
    if not math.isfinite(scores.ensemble.crps):
        raise FloatingPointError(f"CRPS is {scores.ensemble.crps}")
    metrics = {
        **scores.as_metrics(),
        "training_seconds": trained - started,
        "scoring_seconds": time.monotonic() - trained,
        "steps_from_cache": float(stages.steps_saved),
    }
    save_model(
        model_url,
        model,
        sampling=config.sampling,
        data=describe_data(store.info),
        scores={f"validation_{name}": value for name, value in scores.as_metrics().items()},
    )
    return {"metrics": metrics, "model_url": model_url}


def score(model: Any, data: PairData, config: Config, split: SplitName) -> Evaluation:
    """Score a model on a split, with the sampler and the evaluations that downscaling uses."""
    windows = data.scored_windows(split, model.spec.parameters.context, config.scoring, config.seed)
    return evaluate(
        model, windows, config.sampling, batch=config.scoring.batch, seed=config.seed, device=device(config)
    )


def score_saved(config: Config, store: FieldStore, model_url: str, split: SplitName) -> Evaluation:
    """Load a saved model and score it."""
    torch.set_num_threads(max(1, int(config.tuning.cpus_per_trial)))
    model = load_model(model_url).to(device(config))
    return score(model, prepared(config, store, model.spec.pair), config, split)
