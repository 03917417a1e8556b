"""An evaluation as a run in MLflow: the chosen scores with their intervals, the tables and the report."""

from __future__ import annotations

import hashlib
import re

from pipeline import environment
from pipeline.code_version import code_version
from pipeline.config import Config
from pipeline.data.store import FieldStore
from pipeline.evaluation.chunks import ENSEMBLE
from pipeline.evaluation.note import evaluation_note
from pipeline.evaluation.run import CSV, FIGURES, REPORT, SCORES, Evaluated
from pipeline.evaluation.tidy import SKILL, Row
from pipeline.files import join, list_folder, read_bytes
from pipeline.recording import recorded
from pipeline.tracking import TrackedData, how_to_look

_METRICS = (
    "fair_crps", "rmse", "bias", "spread_skill_ratio", "log_spectral_distance", "conservation_tile",
    "conservation_cell",
)  # fmt: skip


def record_evaluation(config: Config, store: FieldStore, found: Evaluated, split: str) -> str:
    """Record a finished evaluation; the same one again goes on with its run.

    Parameters
    ----------
    config : Config
        Of any of its models, for the tracking server and the output that the outbox is under.
    store : FieldStore
    found : Evaluated
    split : str

    Returns
    -------
    str
        How a person sees the run.

    Raises
    ------
    UserError
        If MLflow does not answer.
    """
    config = config.model_copy(update={"output": environment.resolve_output(config.output)})
    name = f"evaluation-{hashlib.sha256(found.output.encode()).hexdigest()[:8]}"
    pairs = dict.fromkeys(row.pair for row in found.table.rows)
    tags = {
        "finescale.role": "evaluation",
        "finescale.split": split,
        "finescale.pairs": ",".join(pairs),
        "finescale.models": ", ".join(one.candidate.label for one in found.summaries),
    }
    with recorded(config, store, name, "evaluation", {"finescale.code": code_version()}) as tracker:
        tracker.use_data(TrackedData.of(store, "evaluation"))
        tracker.start(name, f"evaluation of {', '.join(pairs)}, {split} split", tags=tags)
        tracker.note(name, evaluation_note(found.table.rows, store.info.name, split))
        tracker.metrics(name, _chosen(found))
        for file in (REPORT, CSV, SCORES):
            tracker.artifact(name, file, read_bytes(join(found.output, file)))
        for file in list_folder(join(found.output, FIGURES)):
            tracker.artifact(name, f"figures/{file}", read_bytes(join(found.output, FIGURES, file)))
        tracker.end(name, "FINISHED")
        tracker.flush(config.tracking.patience)
        return how_to_look(tracker.uri, config.output)


def _chosen(found: Evaluated) -> dict[str, float]:
    """Give the scores of the ensembles by names that MLflow takes, with the ends of their intervals."""
    labels = [one.candidate.label for one in found.summaries]
    several = len(labels) > len({row.pair for row in found.table.rows})
    metrics: dict[str, float] = {}
    for row in found.table.rows:
        if row.field != ENSEMBLE or not (row.metric in _METRICS or _is_headline(row)):
            continue
        over = f"_over_{row.reference}" if row.reference else ""
        whose = f"{row.pair}_{row.model}" if several else row.pair
        name = re.sub(r"[^A-Za-z0-9_./ -]", "-", f"{whose}_{row.metric}{over}")
        metrics[name] = row.value
        if row.metric in ("fair_crps", SKILL):
            metrics |= {f"{name}_low": row.low, f"{name}_high": row.high}
    return metrics


def _is_headline(row: Row) -> bool:
    return row.metric == SKILL and row.reference in ("bicubic", "quantile_mapping")
