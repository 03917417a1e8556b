"""An evaluation from its models to its files: tables, figures, and a report that people read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.errors import UserError, one_line
from pipeline.evaluation.candidates import Candidate, check_candidates, rivals
from pipeline.evaluation.held_out import HeldOutSplit
from pipeline.evaluation.pieces import PairScores, Piece, collect, pieces_of, score_pieces, state
from pipeline.evaluation.report.charts import Charts, Picture
from pipeline.evaluation.report.gallery import Gallery
from pipeline.evaluation.report.page import Page
from pipeline.evaluation.summary import Summary, scores_json, summaries
from pipeline.evaluation.tidy import TidyTable
from pipeline.storage.files import exists, join, read_text, remove, write_bytes, write_text
from pipeline.store.field_store import FieldStore
from pipeline.store.manifest import StoreInfo

SCORES, CSV, PARQUET, REPORT = "scores.json", "scores.csv", "scores.parquet", "report.html"
FIGURES, PARTS = "figures", "parts"


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation.

    Attributes
    ----------
    summaries : tuple of Summary
        Of every model.
    table : TidyTable
    output : str
        Folder that everything is in.
    figures : tuple of str
        Names of its pictures, in `figures/` there.
    """

    summaries: tuple[Summary, ...]
    table: TidyTable
    output: str
    figures: tuple[str, ...] = ()

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
    notes = check_candidates(candidates, info, split) if info else []
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
    candidates: Sequence[Candidate], store: FieldStore, split: HeldOutSplit, output: str, device: torch.device
) -> str:
    """Say how much of an evaluation has been scored before; windows are looked for if there is anything."""
    if not exists(join(output, PARTS)):
        return f"nothing is scored yet in {output}"
    found = rivals(candidates, store, split)
    pieces = [piece for one in found for piece in pieces_of(one, output, device)]
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


@dataclass(frozen=True)
class Prepared:
    """An evaluation whose every check has been passed.

    Attributes
    ----------
    store : FieldStore
    split : {"validation", "test"}
    device : torch.device
        That scores; with workers, theirs.
    output : str
        Folder for `parts/`, `figures/`, `scores.csv`, `scores.parquet`, `report.html` and, last,
        `scores.json`.
    pieces : tuple of Piece
        Models and references, each on the windows of its pair.
    notes : tuple of str
        What a reader of the scores should know.
    """

    store: FieldStore
    split: HeldOutSplit
    device: torch.device
    output: str
    pieces: tuple[Piece, ...]
    notes: tuple[str, ...]

    def score(self, *, workers: int | None = None, settings: str = "") -> Evaluated:
        """Score the models, and write tables, figures and the report.

        What has been scored before into the same folder is not scored again.

        Parameters
        ----------
        workers : int, optional
            Processes of a Ray cluster; none: all is done in this one.
        settings : str
            The configuration as text, for the report.
        """
        info, output = self.store.info, self.output
        score_pieces(self.pieces, workers=workers, device=self.device)
        print("drawing the report ...", flush=True)
        scores = collect(self.pieces)
        table = TidyTable.of(scores, info)
        here = self.device if workers is None else torch.device("cpu")  # workers may have GPUs, and we none
        pictures = _pictures(scores, table, info, here)
        drawn = [one for part in pictures.values() for one in part]
        remove(join(output, SCORES))  # it vouches for the others
        _write_figures(output, drawn)
        write_text(join(output, CSV), table.csv())
        write_bytes(join(output, PARQUET), table.parquet())
        page = Page(scores, table, info, self.split, self.notes, pictures, settings)
        write_text(join(output, REPORT), page.html())
        found = tuple(summary for one in scores for summary in summaries(one, table, info))
        write_text(join(output, SCORES), scores_json(found))
        return Evaluated(found, table, output, tuple(one.file for one in drawn))


def prepare(
    candidates: Sequence[Candidate],
    store: FieldStore,
    *,
    split: HeldOutSplit,
    device: torch.device,
    output: str,
) -> Prepared:
    """Check all that can be checked before finished models are scored on held-out windows.

    Parameters
    ----------
    candidates : sequence of Candidate
        With `saved.defaults()` below the user's settings, windows and ensembles are those of the training.
    store : FieldStore
    split : {"validation", "test"}
    device : torch.device
    output : str

    Raises
    ------
    UserError
        If a model does not fit the store, two do not compare, or frames of a training would be scored,
        or `output` cannot be written to; nothing is written.
    """
    for one in candidates:
        one.saved.check(one.config)
    notes = check_candidates(candidates, store.info, split)
    pieces = [piece for one in rivals(candidates, store, split) for piece in pieces_of(one, output, device)]
    _check_writable(output)
    return Prepared(store, split, device, output, tuple(pieces), tuple(notes))


def _check_writable(output: str) -> None:
    """Find out before hours of scoring that nothing can be written."""
    probe = join(output, PARTS, ".probe")
    try:
        write_bytes(probe, b"")
        remove(probe)
    except OSError as error:
        raise UserError(
            f"--output {output}: cannot be written to ({one_line(error)}); give another folder"
        ) from error


def _write_figures(output: str, pictures: Sequence[Picture]) -> None:
    """Write pictures, and take those away that an earlier evaluation left; others' files stay."""
    listed = join(output, PARTS, "figures.json")
    before = set(json.loads(read_text(listed))) if exists(listed) else set()
    now = {one.file for one in pictures}
    write_text(listed, json.dumps(sorted(before | now)))
    for one in pictures:
        write_bytes(join(output, FIGURES, one.file), one.content)
    for name in before - now:
        remove(join(output, FIGURES, name))
    write_text(listed, json.dumps(sorted(now)))


def _pictures(
    scores: Sequence[PairScores], table: TidyTable, info: StoreInfo, device: torch.device
) -> dict[str, list[Picture]]:
    """Draw everything, by section of the report."""
    charts = Charts(scores, table, info)
    galleries = [Gallery(one, charts.best[one.rivals.pair], device) for one in scores]
    # The film is of the pair that refines most, in time if any does.
    told = max(galleries, key=lambda one: (one.pair.time > 1, one.pair.pixels_per_cell))
    return {
        "pairs": list(charts.across_pairs()),
        "calibration": list(charts.calibration()),
        "distributions": list(charts.distributions()),
        "neighbourhoods": list(charts.neighbourhoods()),
        "windows": [told.film(), *(picture for one in galleries for picture in one.panels())],
    }
