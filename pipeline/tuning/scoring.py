"""A pair's data as every part of a sweep sees it; scores and a picture of a model on them."""

from __future__ import annotations

import functools
from typing import Any

import torch

from pipeline.config import Config
from pipeline.data.pair_data import PairData
from pipeline.data.splits import SplitName
from pipeline.data.windows import thin
from pipeline.devices import device_of_trial
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.evaluation.showcase import wettest_panel
from pipeline.factors import FactorPair
from pipeline.model_file import load_model
from pipeline.ranks import Ranks
from pipeline.store.field_store import FieldStore


@functools.lru_cache(maxsize=32)  # pairs; the fields themselves are shared
def pair_data(store: FieldStore, pair: FactorPair, data_json: str, max_context: int) -> PairData:
    """Prepare a pair's data once per process; trials that follow in the same process find it ready."""
    from pipeline.config import DataSettings

    store.check_unchanged()
    return PairData.prepare(store, pair, DataSettings.model_validate_json(data_json), max_context)


def prepared(config: Config, store: FieldStore, pair: FactorPair) -> PairData:
    """Give the data of a pair, as every part of a sweep sees it."""
    return pair_data(store, pair, config.data.model_dump_json(), config.tuning.max_context)


def checked(config: Config, store: FieldStore, pair: FactorPair) -> PairData:
    """Give the data of a pair, having found out, before any training, that every split holds usable windows.

    Raises
    ------
    UserError
        If one holds none.
    """
    data = prepared(config, store, pair)
    data.training_windows(1)
    for split in ("validation", "test"):
        data.scored_windows(split, 1, config.scoring, config.seed)
    return data


def score(
    model: Any,
    data: PairData,
    config: Config,
    split: SplitName,
    count: int | None = None,
    *,
    ranks: Ranks | None = None,
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
    ranks : Ranks, optional
        Score each its share; alone unless given.
    """
    ranks = ranks or Ranks(device=device_of_trial(config))
    windows = data.scored_windows(split, model.spec.parameters.context, config.scoring, config.seed)
    if count is not None:
        windows = thin(windows, count, config.seed)
    return evaluate(
        model,
        windows,
        config.sampling,
        batch=config.scoring.batch,
        seed=config.seed,
        device=ranks.device,
        ranks=ranks,
    )


def score_saved(config: Config, store: FieldStore, model_url: str, split: SplitName) -> Evaluation:
    """Load a saved model and score it."""
    torch.set_num_threads(max(1, int(config.tuning.cpus_per_trial)))
    model = load_model(model_url).to(device_of_trial(config))
    return score(model, prepared(config, store, model.spec.pair), config, split)


def showcase(config: Config, store: FieldStore, model_url: str) -> bytes:
    """Draw the wettest scored test window of a saved model, as PNG."""
    model = load_model(model_url)
    data = prepared(config, store, model.spec.pair)
    windows = data.scored_windows("test", model.spec.parameters.context, config.scoring, config.seed)
    return wettest_panel(
        model,
        windows,
        config.sampling,
        seed=config.seed,
        device=torch.device("cpu"),
        name=store.info.name,
        units=store.info.units,
    )
