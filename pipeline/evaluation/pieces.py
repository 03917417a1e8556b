"""Scoring models and references on their windows: here, or on the processes of a Ray cluster.

The work is cut into chunks of windows. Each becomes a file when it is done, so whatever is killed carries on
when the same command is given again, also with another number of workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pipeline import environment
from pipeline.code_version import code_version, digest_of
from pipeline.config import Config
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.candidates import Candidate, Rivals
from pipeline.evaluation.chunks import (
    ENSEMBLE,
    MAPPED,
    MEAN,
    BaselineFields,
    Chunk,
    ModelFields,
    Subject,
    model_identity,
    score_chunk,
    score_remotely,
)
from pipeline.evaluation.measures.metric import Sums
from pipeline.evaluation.parts import Bounds, PartFolder, WindowScores, merged
from pipeline.evaluation.quantile_mapping import QuantileMapping
from pipeline.progress import progress
from pipeline.storage.files import exists, join, read_text, write_text

_CHUNK = 32  # windows, or a batch if that is more: small enough to lose, large enough to start a task for
_DECIDING = (  # besides what scores a trial
    *(f"evaluation/{n}.py" for n in ("chunks", "held_out", "metrics", "parts", "quantile_mapping", "sums")),
    "evaluation/measures",
    "model_file.py",
    "units.py",
)


@dataclass(frozen=True)
class Piece:
    """One model, or the references of one pair, on the pair's windows.

    Attributes
    ----------
    label : str
        For messages.
    rivals : Rivals
    config : Config
    subject : ModelFields or BaselineFields
    parts : PartFolder
    """

    label: str
    rivals: Rivals
    config: Config
    subject: Subject
    parts: PartFolder

    def chunk(self, bounds: Bounds, shared_by: int = 1) -> Chunk:
        """Give some of its windows, for a process that shares the memory of a machine with others."""
        rivals, chosen = self.rivals, slice(*bounds)
        return Chunk(
            subject=self.subject,
            store=rivals.data.store,
            segment=rivals.data.segments[rivals.split],
            memory_gib=self.config.data.memory_gib / shared_by,
            cache_gib=self.config.data.cache_gib,
            pair=rivals.pair,
            patch=rivals.windows.patch,
            places=rivals.windows.places[chosen],
            blocks=rivals.blocks.rows[chosen],
            settings=self.config.evaluation,
            batch=self.config.scoring.batch,
        )


@dataclass(frozen=True)
class PairScores:
    """All scores of one pair, on the same windows.

    Attributes
    ----------
    rivals : Rivals
    baselines : dict
        By reference, sums by block.
    models : dict
        By model label and field (`ensemble`, `mean`), sums by block.
    windows : dict
        By model label.
    """

    rivals: Rivals
    baselines: dict[str, Sums]
    models: dict[str, dict[str, Sums]]
    windows: dict[str, WindowScores]


def pieces_of(rivals: Rivals, output: str, device: torch.device) -> list[Piece]:
    """Give the pieces of one pair, scored on such a device: its references, then each of its models."""
    count = len(rivals.windows)

    def piece(label: str, config: Config, subject: Subject) -> Piece:
        batch = config.scoring.batch
        size = max(1, _CHUNK // batch) * batch
        bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
        parts = PartFolder.under(output, _decides(rivals, config, subject, device), bounds)
        return Piece(label, rivals, config, subject, parts)

    baselines = BaselineFields(rivals.pair, min(2, rivals.data.max_context), _fitted_to(rivals))
    return [
        piece(f"references of {rivals.pair}", rivals.config, baselines),
        *(piece(one.label, one.config, _model_fields(one)) for one in rivals.models),
    ]


def _model_fields(one: Candidate) -> ModelFields:
    return ModelFields(one.saved.url, model_identity(one.saved.card), one.config.sampling, one.config.seed)


def _decides(rivals: Rivals, config: Config, subject: Subject, device: torch.device) -> dict[str, Any]:
    """Give everything that the parts of a piece depend on."""
    where = hashlib.sha256(np.ascontiguousarray(rivals.windows.places, dtype=np.int64).tobytes())
    where.update(rivals.blocks.rows.numpy().tobytes())
    return {
        **subject.decides(),
        "store": rivals.data.store.info.fingerprint,
        "split": rivals.split,
        "windows": where.hexdigest(),
        "pair": str(rivals.pair),
        "patch": rivals.windows.patch,
        "batch": config.scoring.batch,
        "device": device.type,  # the same noise is rounded differently there
        "settings": config.evaluation.model_dump(mode="json", exclude={"blocks", "level"}),
        "code": deciding_code(),
    }


def deciding_code() -> str:
    """Digest the code that turns windows into sums."""
    return f"{code_version()}-{digest_of(*_DECIDING)}"


def _fitted_to(rivals: Rivals) -> str:
    """Digest what decides the quantile mapping: the training windows of the store."""
    settings = rivals.data.settings.deciding()
    decided: dict[str, Any] = {name: settings[name] for name in settings if name != "transform"}
    decided |= {"max_context": rivals.data.max_context, "seed": rivals.config.seed}
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def state(pieces: Sequence[Piece]) -> list[str]:
    """Say of each piece how much of it is there already, one line each."""
    lines = []
    for piece in pieces:
        missing, damaged = piece.parts.missing()
        total = len(piece.parts.chunks)
        text = f"  {piece.label}: {total - len(missing)} of {total} chunks of windows are there"
        lines.append(text + (f", {len(damaged)} damaged" if damaged else ""))
    return lines


def score_pieces(
    pieces: Sequence[Piece], *, workers: int | None, device: torch.device, say: Callable[[str], None] = print
) -> None:
    """Score whatever is not there yet.

    Parameters
    ----------
    pieces : sequence of Piece
    workers : int, optional
        Processes of a Ray cluster; none: all is done in this one.
    device : torch.device
    say : callable
        For what a reader should know, such as a damaged part.

    Raises
    ------
    UserError
        If there is too little on this machine, a model has changed, or the training period is too short for
        the quantile mapping.
    """
    todo: list[tuple[Piece, Bounds]] = []
    for piece in pieces:
        missing, damaged = piece.parts.missing()
        for file in damaged:
            say(f"{file} is damaged; it is made again")
        if missing:
            ready = _with_mapping(piece)
            todo += [(ready, bounds) for bounds in missing]
    total = sum(len(piece.parts.chunks) for piece in pieces)
    if len(todo) < total:
        say(f"{total - len(todo)} of {total} chunks of windows have been scored before")
    if not todo:
        return
    windows = sum(stop - start for _, (start, stop) in todo)
    with progress("scoring", windows, "windows") as advance:
        if workers is None:
            _score_here(todo, device, advance)
        else:
            _score_on_cluster(todo, workers, device, advance)


def _with_mapping(piece: Piece) -> Piece:
    """Fit the quantile mapping of a pair's references, once per output folder."""
    if not isinstance(piece.subject, BaselineFields):
        return piece
    file = join(piece.parts.url, "quantile_mapping.json")
    if exists(file):
        mapping = QuantileMapping.from_json(read_text(file), file)
    else:
        mapping = QuantileMapping.fit(piece.rivals.data.training_windows(1), seed=piece.config.seed)
        write_text(file, mapping.to_json())
    return replace(piece, subject=replace(piece.subject, mapping=mapping))


def _score_here(
    todo: Sequence[tuple[Piece, Bounds]], device: torch.device, advance: Callable[[int], None]
) -> None:
    for piece, bounds in todo:
        part = score_chunk(piece.chunk(bounds), piece.rivals.windows.view, device, advance)
        piece.parts.write(bounds, part.to_bytes())


def _score_on_cluster(
    todo: Sequence[tuple[Piece, Bounds]], workers: int, device: torch.device, advance: Callable[[int], None]
) -> None:
    """Keep so many processes busy; what comes back is written here, so they need no common disk for it."""
    config = todo[0][0].config
    cpus, gpus = config.tuning.cpus_per_trial, config.tuning.gpus_per_trial
    environment.start_ray(config, {"CPU": cpus, "GPU": gpus}, processes=workers)
    import ray  # not before the cluster is started, which it reads its token from

    score = environment.remotely(score_remotely, config)
    more: Iterator[tuple[Piece, Bounds]] = iter(todo)
    running: dict[Any, tuple[Piece, Bounds]] = {}
    while True:
        while len(running) < workers and (task := next(more, None)) is not None:
            piece, bounds = task
            chunk = piece.chunk(bounds, shared_by=workers)
            running[score.remote(chunk, device.type, max(1, int(cpus)))] = task
        if not running:
            return
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        piece, bounds = running.pop(done)
        piece.parts.write(bounds, environment.fetched(done))
        advance(bounds[1] - bounds[0])


def collect(pieces: Sequence[Piece]) -> list[PairScores]:
    """Put the parts of all pieces together, pair by pair."""
    found: dict[str, PairScores] = {}
    for piece in pieces:
        sums, windows = merged(map(piece.parts.read, piece.parts.chunks), piece.rivals.blocks.count)
        pair = found.setdefault(str(piece.rivals.pair), PairScores(piece.rivals, {}, {}, {}))
        # In a fixed order: safetensors has none.
        if windows is None:
            pair.baselines.update({name: sums[name] for name in (*BASELINES, MAPPED)})
        else:
            pair.models[piece.label] = {name: sums[name] for name in (ENSEMBLE, MEAN)}
            pair.windows[piece.label] = windows
    return list(found.values())
