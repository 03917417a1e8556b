"""An evaluation from its models to its files: tables, figures, and a report that people read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.data.manifest import StoreInfo
from pipeline.data.store import FieldStore
from pipeline.evaluation.candidates import Candidate, check_candidates, rivals
from pipeline.evaluation.charts import Charts, Picture, best_models
from pipeline.evaluation.events import Gallery
from pipeline.evaluation.held_out import HeldOutSplit
from pipeline.evaluation.page import Page
from pipeline.evaluation.run import PairScores, Piece, collect, pieces_of, score_pieces, state
from pipeline.evaluation.summary import ModelScores, model_scores, scores_json
from pipeline.evaluation.tidy import Row, tidy, to_csv, to_parquet
from pipeline.files import exists, join, write_bytes, write_text

SCORES, TABLE, COLUMNS, REPORT = "scores.json", "scores.csv", "scores.parquet", "report.html"
FIGURES, PARTS = "figures", "parts"


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation.

    Attributes
    ----------
    scores : tuple of ModelScores
    rows : tuple of Row
        Of the tidy table.
    output : str
        Folder that everything is in.
    """

    scores: tuple[ModelScores, ...]
    rows: tuple[Row, ...]
    output: str

    @property
    def report(self) -> str:
        """Where the report is."""
        return join(self.output, REPORT)


def describe(candidates: Sequence[Candidate], split: HeldOutSplit, info: StoreInfo | None) -> str:
    """Say what would be scored, after all checks that need no field values.

    Parameters
    ----------
    candidates : sequence of Candidate
    split : {"validation", "test"}
    info : StoreInfo, optional
        Of the store; none: synthetic rain that is not made for that.

    Raises
    ------
    UserError
        If a model cannot be scored so, or two do not compare.
    """
    notes = check_candidates(candidates, info) if info else []
    data = info.name if info else "synthetic rain"
    lines = []
    for one in candidates:
        spec, config = one.saved.model.spec, one.config
        count = config.scoring.test_windows if split == "test" else config.scoring.windows
        lines += [
            f"plan: {spec.pair}, {spec.parameters}" + (f" ({one.label})" if len(candidates) > 1 else ""),
            f"  scored on at most {count} windows of the {split} split of {data}, "
            f"{config.sampling.members} members each, {config.sampling.steps} network evaluations a member",
        ]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def what_is_there(
    candidates: Sequence[Candidate], store: FieldStore, split: HeldOutSplit, output: str
) -> str:
    """Say how much of an evaluation has been scored before; windows are looked for if there is anything."""
    if not exists(join(output, PARTS)):
        return f"nothing is scored yet in {output}"
    found = rivals(candidates, store, split)
    pieces = [piece for one in found for piece in pieces_of(one, split, output)]
    return "\n".join([f"in {output}:", *state(pieces)])


def output_folder(
    candidates: Sequence[Candidate], split: HeldOutSplit, info: StoreInfo, *, inside: bool
) -> str:
    """Give where scores go unless another place is named.

    Parameters
    ----------
    candidates : sequence of Candidate
    split : {"validation", "test"}
    info : StoreInfo
    inside : bool
        A single model's scores go into its own folder; those of several below `output` of the configuration.
    """
    data = f"{split}-{info.fingerprint[:8]}"
    if inside and len(candidates) == 1:
        return join(candidates[0].saved.url, "evaluation", data)
    which = "".join(sorted(one.saved.card["sha256"] for one in candidates))
    digest = hashlib.sha256(which.encode()).hexdigest()[:8]
    return join(candidates[0].config.output, "evaluations", f"{info.name}-{data}-{digest}")


def evaluate_models(
    candidates: Sequence[Candidate],
    store: FieldStore,
    *,
    split: HeldOutSplit,
    device: torch.device,
    output: str,
    workers: int | None = None,
    settings: str = "",
) -> Evaluated:
    """Score finished models on held-out windows, and write tables, figures and the report.

    What has been scored before into the same folder is not scored again.

    Parameters
    ----------
    candidates : sequence of Candidate
        With `saved.defaults()` below the user's settings, windows and ensembles are those of the training.
    store : FieldStore
    split : {"validation", "test"}
    device : torch.device
        That scores; with workers, theirs.
    output : str
        Folder for `parts/`, `figures/`, `scores.csv`, `scores.parquet`, `report.html` and, last,
        `scores.json`.
    workers : int, optional
        Processes of a Ray cluster; none: all is done in this one.
    settings : str
        The configuration as text, for the report.

    Raises
    ------
    UserError
        If a model does not fit the store, two do not compare, or frames of a training would be scored;
        nothing is written.
    """
    for one in candidates:
        one.saved.check(one.config)
    notes = check_candidates(candidates, store.info)
    found = rivals(candidates, store, split)
    pieces: list[Piece] = [piece for one in found for piece in pieces_of(one, split, output)]
    score_pieces(pieces, workers=workers, device=device)
    print("drawing the report ...", flush=True)
    scores = collect(pieces)
    rows = tidy(scores, store.info, split)
    here = device if workers is None else torch.device("cpu")  # the workers' GPU may not be this process's
    pictures = _pictures(scores, rows, store.info, here)
    for picture in (one for part in pictures.values() for one in part):
        write_bytes(join(output, FIGURES, picture.file), picture.content)
    page = Page(scores, rows, store.info, split, notes, pictures, settings)
    write_text(join(output, TABLE), to_csv(rows))
    write_bytes(join(output, COLUMNS), to_parquet(rows))
    write_text(join(output, REPORT), page.html())
    models = [one for pair in scores for one in model_scores(pair, store.info, split)]
    write_text(join(output, SCORES), scores_json(models))
    return Evaluated(tuple(models), tuple(rows), output)


def _pictures(
    scores: Sequence[PairScores], rows: Sequence[Row], info: StoreInfo, device: torch.device
) -> dict[str, list[Picture]]:
    """Draw everything, by section of the report."""
    charts = Charts(scores, rows, info, scores[0].rivals.config.evaluation.level)
    best = best_models(scores, rows)
    galleries = [
        Gallery(one, next(m for m in one.rivals.models if m.label == best[one.rivals.pair]), device)
        for one in scores
    ]
    # The film is of the pair that refines most, in time if any does.
    told = max(galleries, key=lambda one: _refined(one.scores))
    return {
        "pairs": list(charts.across_pairs()),
        "calibration": list(charts.calibration()),
        "distributions": list(charts.distributions()),
        "neighbourhoods": list(charts.neighbourhoods()),
        "windows": [told.film(), *(picture for one in galleries for picture in one.panels())],
    }


def _refined(scores: PairScores) -> tuple[bool, int]:
    pair = scores.rivals.pair
    return pair.time > 1, pair.pixels_per_cell
