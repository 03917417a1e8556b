"""Scoring some windows: what a process of the cluster does, and this one without a cluster.

An ensemble belongs to its seed and place, and every batch begins at a multiple of the batch size, so a score
does not depend on how the windows are shared out, up to the rounding of float64 sums.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import EvaluationSettings, SamplingSettings
from pipeline.data.batch import Batch
from pipeline.data.splits import Segment
from pipeline.data.view import FieldView
from pipeline.data.windows import Windows
from pipeline.errors import UserError
from pipeline.evaluation.baselines import BASELINES, Baseline
from pipeline.evaluation.evaluate import batches
from pipeline.evaluation.held_out import seen_by
from pipeline.evaluation.metrics import default_statistics
from pipeline.evaluation.parts import Part, WindowScores
from pipeline.evaluation.quantile_mapping import QuantileMapping
from pipeline.evaluation.statistics import conservation_statistics, ensemble_statistics
from pipeline.evaluation.sums import BlockSums, Scored
from pipeline.factors import FactorPair
from pipeline.model_file import load_card, load_model
from pipeline.models.family import SuperResolutionModel
from pipeline.store.field_store import FieldStore

ENSEMBLE, MEAN, MAPPED = "ensemble", "mean", "quantile_mapping"

Fields = dict[str, Tensor]
"""Fields of one batch by name, each (B, M, T, H, W); M = 1: without uncertainty."""


@dataclass(frozen=True)
class ModelFields:
    """The ensemble and the conditional mean of a finished model.

    Attributes
    ----------
    url : str
        Its folder.
    identity : str
        Of its card: what is loaded must be that model.
    sampling : SamplingSettings
    seed : int
        Of the ensemble.
    """

    url: str
    identity: str
    sampling: SamplingSettings
    seed: int

    def decides(self) -> dict[str, Any]:
        """Give what the fields depend on, besides the windows."""
        return {
            "model": self.identity,
            "sampling": self.sampling.model_dump(mode="json"),
            "seed": self.seed,
        }

    def windows(self, windows: Windows) -> Windows:
        """Give the windows with the context and the covariates of the model."""
        return seen_by(_model(self.url, self.identity).spec, windows)

    def fields(self, batch: Batch) -> Fields:
        """Draw the ensemble and predict the mean, on the batch's device."""
        model = _model(self.url, self.identity).to(batch.fine.device)
        members = model.sample(batch, self.sampling, self.seed)
        return {ENSEMBLE: members, MEAN: model.predict_mean(batch).unsqueeze(1)}


@dataclass(frozen=True)
class BaselineFields:
    """The references of a pair.

    Attributes
    ----------
    pair : FactorPair
    context : int
        L that they may look at: 2 where the split leaves room for it, for the one that is linear in time.
    fitted_to : str
        Digest of what the quantile mapping is fitted to.
    mapping : QuantileMapping, optional
        Needed for scoring, not for finding out what has been scored.
    """

    pair: FactorPair
    context: int
    fitted_to: str
    mapping: QuantileMapping | None = None

    def decides(self) -> dict[str, Any]:
        """Give what the fields depend on, besides the windows."""
        return {"baselines": [*BASELINES, MAPPED], "context": self.context, "fitted_to": self.fitted_to}

    def windows(self, windows: Windows) -> Windows:
        """Give the windows with the context that the references look at."""
        return windows.with_context(self.context)

    def fields(self, batch: Batch) -> Fields:
        """Refine the coarse frames in every way that a model has to beat."""
        if self.mapping is None:
            raise ValueError("the quantile mapping has not been fitted")
        known: dict[str, Baseline] = {**BASELINES, MAPPED: self.mapping}
        return {
            name: refine(batch.coarse, self.pair, batch.coarse_mask).unsqueeze(1)
            for name, refine in known.items()
        }


def model_identity(card: Mapping[str, Any]) -> str:
    """Digest what a model is, its weights' SHA-256 among it, and not what is told of its training."""
    told = {"sampling", "data", "scores", "versions"}
    known = {name: value for name, value in card.items() if name not in told}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


Subject = ModelFields | BaselineFields


@dataclass(frozen=True)
class Chunk:
    """Some windows, and what to score on them; all that another process needs.

    Attributes
    ----------
    subject : ModelFields or BaselineFields
    store : FieldStore
    segment : Segment
        The split that the windows are in.
    memory_gib, cache_gib : float
        Memory for the split's field, see `FieldView.load`.
    pair : FactorPair
    patch : int
    places : ndarray
        (n, 3), as `Windows.places`.
    blocks : Tensor
        (n,) int64, the block of each window.
    settings : EvaluationSettings
    batch : int
        Windows at once.
    """

    subject: Subject
    store: FieldStore
    segment: Segment
    memory_gib: float
    cache_gib: float
    pair: FactorPair
    patch: int
    places: np.ndarray
    blocks: Tensor
    settings: EvaluationSettings
    batch: int


@torch.no_grad()
def score_chunk(
    chunk: Chunk, view: FieldView, device: torch.device, advance: Callable[[int], None] | None = None
) -> Part:
    """Score the windows of a chunk.

    Parameters
    ----------
    chunk : Chunk
    view : FieldView
        Of the chunk's segment.
    device : torch.device
    advance : callable, optional
        Told how many windows have been scored, batch by batch.
    """
    windows = chunk.subject.windows(Windows(view, chunk.pair, 1, chunk.patch, chunk.places))
    statistics = default_statistics(chunk.settings, chunk.pair, chunk.store.info.units)
    rows, local = chunk.blocks.unique(return_inverse=True)
    sums: dict[str, BlockSums] = {}
    each: list[WindowScores] = []
    done = 0
    for batch in (part.to(device) for part in batches(windows, chunk.batch)):
        coarse, coarse_mask = batch.last[:, 0], batch.last_mask[:, 0]
        fields = chunk.subject.fields(batch)
        for name, members in fields.items():
            scored = Scored(members, batch.fine, batch.mask, coarse, coarse_mask, chunk.pair)
            block_sums = sums.setdefault(name, BlockSums(statistics, len(rows)))
            block_sums.add(scored, local[done : done + len(batch)])
        if ENSEMBLE in fields:
            each.append(_window_by_window(fields[ENSEMBLE], batch, chunk.pair))
        done += len(batch)
        if advance is not None:
            advance(len(batch))
    return Part(rows, sums, each[0].merge(*each[1:]) if each else None)


def _window_by_window(members: Tensor, batch: Batch, pair: FactorPair) -> WindowScores:
    """Give what sums by block do not tell: which windows are the wettest and the worst."""
    found = ensemble_statistics(members, batch.fine, batch.mask)
    # Whole cells: the ensemble does not know which pixels of the truth are valid.
    kept = conservation_statistics(
        members, torch.ones_like(batch.mask), batch.last[:, 0], batch.last_mask[:, 0], pair
    )
    return WindowScores(**vars(kept), crps=found.per_window("crps"))


def score_remotely(chunk: Chunk, device_name: str, threads: int) -> bytes:
    """Score a chunk in a process of the cluster; gives the part as bytes.

    Raises
    ------
    UserError
        If it is to be scored on a GPU and there is none: its sums would pass for those of one.
    """
    torch.set_num_threads(threads)
    if device_name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "tuning.gpus_per_trial: a process of the cluster was given a GPU, but PyTorch finds none there; "
            "install PyTorch with CUDA on all machines, or give --device cpu"
        )
    device = torch.device(device_name)
    view = _view(chunk.store, chunk.segment, chunk.memory_gib, chunk.cache_gib)
    return score_chunk(chunk, view, device).to_bytes()


@functools.lru_cache(maxsize=4)
def _model(url: str, identity: str) -> SuperResolutionModel:
    """Load a model once per process."""
    if model_identity(load_card(url)) != identity:
        raise UserError(f"model {url}: it has changed since this evaluation began; start it again")
    return load_model(url)


@functools.lru_cache(maxsize=1)
def _view(store: FieldStore, segment: Segment, memory_gib: float, cache_gib: float) -> FieldView:
    """Open a split once per process."""
    store.check_unchanged()
    return FieldView.load(store, segment, memory_gib, cache_gib)
