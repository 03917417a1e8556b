"""Scoring some windows: what a process of the cluster does, and this one without a cluster.

An ensemble belongs to its seed and place, and every batch begins at a multiple of the batch size, so a score
does not depend on how the windows are shared out, up to the rounding of float64 sums.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import EvaluationSettings, SamplingSettings
from pipeline.data.batch import Batch
from pipeline.data.covariates import Covariates
from pipeline.data.splits import Segment
from pipeline.data.store import FieldStore
from pipeline.data.view import FieldView
from pipeline.data.windows import Windows
from pipeline.errors import UserError
from pipeline.evaluation.baselines import BASELINES, Baseline
from pipeline.evaluation.evaluate import batches
from pipeline.evaluation.metrics import default_statistics
from pipeline.evaluation.parts import Part
from pipeline.evaluation.quantile_mapping import QuantileMapping
from pipeline.evaluation.spectra import spectral_statistics
from pipeline.evaluation.statistics import conservation_statistics, ensemble_statistics
from pipeline.evaluation.sums import BlockSums, Scored
from pipeline.factors import FactorPair
from pipeline.model_file import load_card, load_model
from pipeline.models.family import SuperResolutionModel

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
    sha256 : str
        Of its weights: what is loaded must be that model.
    sampling : SamplingSettings
    seed : int
        Of the ensemble.
    """

    url: str
    sha256: str
    sampling: SamplingSettings
    seed: int

    def decides(self) -> dict[str, Any]:
        """Give what the fields depend on, besides the windows."""
        return {
            "model": self.sha256,
            "sampling": self.sampling.model_dump(mode="json"),
            "seed": self.seed,
        }

    def seen_by(self, windows: Windows) -> Windows:
        """Give the windows with the context and the covariates of the model."""
        spec = _model(self.url, self.sha256).spec
        known = Covariates(spec.statics, spec.dynamics)
        return Windows(windows.view, windows.pair, spec.parameters.context, windows.patch, windows.places,
                       covariates=known)  # fmt: skip

    def fields(self, batch: Batch, device: torch.device) -> Fields:
        """Draw the ensemble and predict the mean."""
        model, there = _model(self.url, self.sha256).to(device), batch.to(device)
        members = model.sample(there, self.sampling, self.seed)
        return {ENSEMBLE: members, MEAN: model.predict_mean(there).unsqueeze(1)}


@dataclass(frozen=True)
class BaselineFields:
    """The references of a pair.

    Attributes
    ----------
    context : int
        L that they may look at: 2 where the split leaves room for it, for the one that is linear in time.
    fitted_to : str
        Digest of what the quantile mapping is fitted to.
    mapping : QuantileMapping, optional
        Needed for scoring, not for finding out what has been scored.
    """

    context: int
    fitted_to: str
    mapping: QuantileMapping | None = None

    def decides(self) -> dict[str, Any]:
        """Give what the fields depend on, besides the windows."""
        return {"baselines": [*BASELINES, MAPPED], "context": self.context, "fitted_to": self.fitted_to}

    def seen_by(self, windows: Windows) -> Windows:
        """Give the windows with the context that the references look at."""
        return windows.with_context(self.context)

    def fields(self, batch: Batch, device: torch.device) -> Fields:
        """Refine the coarse frames in every way that a model has to beat."""
        known: dict[str, Baseline] = dict(BASELINES)
        if self.mapping is not None:
            known[MAPPED] = self.mapping
        there, pair = batch.to(device), _pair(batch)
        return {
            name: refine(there.coarse, pair, there.coarse_mask).unsqueeze(1) for name, refine in known.items()
        }


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
    memory_gib : float
        Memory for the split's field.
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
    pair: FactorPair
    patch: int
    places: np.ndarray
    blocks: Tensor
    settings: EvaluationSettings
    batch: int

    def windows(self, view: FieldView) -> Windows:
        """Give the windows, seen as the subject sees them."""
        return self.subject.seen_by(Windows(view, self.pair, 1, self.patch, self.places))


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
    rows, local = chunk.blocks.unique(return_inverse=True)
    statistics = default_statistics(chunk.settings, chunk.pair, chunk.store.info.units)
    sums: dict[str, BlockSums] = {}
    kept: list[dict[str, Tensor]] = []
    done = 0
    for batch in batches(chunk.windows(view), chunk.batch):
        fields, there = chunk.subject.fields(batch, device), batch.to(device)
        for name, members in fields.items():
            scored = Scored(
                members, there.fine, there.mask, there.last[:, 0], there.last_mask[:, 0], chunk.pair
            )
            block_sums = sums.setdefault(name, BlockSums(statistics, len(rows)))
            block_sums.add(scored, local[done : done + len(batch)])
        if ENSEMBLE in fields:
            kept.append(_per_window(fields[ENSEMBLE], there, chunk.pair))
        done += len(batch)
        if advance is not None:
            advance(len(batch))
    windows = {name: torch.cat([one[name] for one in kept]) for name in (kept[0] if kept else {})}
    return Part(rows, sums, windows)


def score_remotely(chunk: Chunk, device_name: str, threads: int) -> bytes:
    """Score a chunk in a process of the cluster; gives the part as bytes."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if device_name != "cpu" and torch.cuda.is_available() else "cpu")
    return score_chunk(chunk, _view(chunk.store, chunk.segment, chunk.memory_gib), device).to_bytes()


def _per_window(members: Tensor, batch: Batch, pair: FactorPair) -> dict[str, Tensor]:
    """Give what is kept of an ensemble window by window, as a training keeps it; float64 on the CPU.

    Conservation is judged on whole cells: the ensemble does not know which pixels of the truth are valid.
    """
    found = ensemble_statistics(members, batch.fine, batch.mask)
    kept = conservation_statistics(
        members, torch.ones_like(batch.mask), batch.last[:, 0], batch.last_mask[:, 0], pair
    )
    spectra = spectral_statistics(members, batch.fine, batch.mask)
    return {
        **{f"pixel.{name}": getattr(found, name) for name in PIXEL},
        **{f"conservation.{name}": getattr(kept, name) for name in CONSERVATION},
        # A distance of spectra needs their sums alone.
        "spectra.truth": spectra.truth.sum(dim=0, keepdim=True),
        "spectra.members": spectra.members.sum(dim=0, keepdim=True),
    }


PIXEL = ("weight", "absolute_error", "squared_error", "error", "crps", "variance")
CONSERVATION = ("amount", "tile", "tile_worst", "cell")


def _pair(batch: Batch) -> FactorPair:
    return FactorPair(batch.fine.shape[-1] // batch.coarse.shape[-1], batch.fine.shape[1])


@functools.lru_cache(maxsize=4)
def _model(url: str, sha256: str) -> SuperResolutionModel:
    """Load a model once per process."""
    if load_card(url).get("sha256") != sha256:
        raise UserError(f"model {url}: it has changed since this evaluation began; start it again")
    return load_model(url)


@functools.lru_cache(maxsize=1)
def _view(store: FieldStore, segment: Segment, memory_gib: float) -> FieldView:
    """Open a split once per process."""
    store.check_unchanged()
    return FieldView.load(store, segment, memory_gib)


def deciding_code() -> str:
    """Digest the code that turns windows into sums."""
    from pipeline.code_version import code_version, digest_of

    names = ("baselines", "chunks", "metrics", "parts", "quantile_mapping", "sums")
    files = [f"evaluation/{name}.py" for name in names] + ["evaluation/measures"]
    return f"{code_version()}-{digest_of(*files)}"


def decides(chunk: Chunk, places: np.ndarray, blocks: Tensor, split: str) -> dict[str, Any]:
    """Give everything that the parts of an evaluation depend on.

    Parameters
    ----------
    chunk : Chunk
        Any of its chunks.
    places, blocks : ndarray, Tensor
        Of all its windows.
    split : str
    """
    where = hashlib.sha256(np.ascontiguousarray(places, dtype=np.int64).tobytes())
    where.update(blocks.numpy().tobytes())
    settings = chunk.settings.model_dump(mode="json", exclude={"blocks", "level"})
    return {
        **chunk.subject.decides(),
        "store": chunk.store.info.fingerprint,
        "split": split,
        "windows": where.hexdigest(),
        "pair": str(chunk.pair),
        "patch": chunk.patch,
        "batch": chunk.batch,
        "settings": settings,
        "code": deciding_code(),
    }
