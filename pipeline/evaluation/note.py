"""What a person reads first on the pages of an evaluation in MLflow, in markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.evaluation.candidates import PUBLISHED, Candidate
from pipeline.evaluation.chunks import ENSEMBLE
from pipeline.evaluation.tidy import SKILL, Row
from pipeline.mlflow_view.markdown import table
from pipeline.mlflow_view.source_run import SourceRun
from pipeline.mlflow_view.views import EVALUATIONS, VALUES

_SKILLS = {
    "bicubic": "skill over bicubic",
    "quantile_mapping": "over quantile mapping",
    PUBLISHED: "over the paper's settings",
}
_CHOSEN = "Tuning chose among its trials on these windows, so a tuned model looks better here than it is."


def evaluation_note(
    rows: Sequence[Row], dataset: str, split: str, level: float, runs: Mapping[str, str]
) -> str:
    """Describe an evaluation: each model's CRPS and skill with their intervals.

    Parameters
    ----------
    rows : sequence of Row
        All of the evaluation.
    dataset, split : str
    level : float
        Of the intervals.
    runs : mapping
        Keys of the models' runs, by label.
    """
    ensembles = [row for row in rows if row.field == ENSEMBLE]
    lines = [
        [f"**{row.pair}**", _linked(row.model, runs), *_scores(row, ensembles)]
        for row in ensembles
        if row.metric == "fair_crps"
    ]
    heads = ["pair", "model", *_heads(ensembles, level)]
    return "\n\n".join(
        [
            table(heads, lines),
            f"On the {split} split of `{dataset}`. {_warning(split)}Artifacts: `report.html` (all scores, "
            "figures, formulas), `scores.csv`, `scores.parquet`.",
            _elsewhere(split),
        ]
    )


def model_note(
    rows: Sequence[Row],
    evaluation: str,
    candidate: Candidate,
    split: str,
    level: float,
    source: SourceRun | None,
) -> str:
    """Describe the scores of one model in an evaluation.

    Parameters
    ----------
    rows : sequence of Row
        Of its ensembles.
    evaluation : str
        Key of the run that holds the report.
    candidate : Candidate
    split : str
    level : float
        Of the intervals.
    source : SourceRun or None
        That made the model; none: nobody knows it.
    """
    spec = candidate.saved.model.spec
    lines = [_scores(row, rows) for row in rows if row.metric == "fair_crps"]
    made = f", made by {source.link}" if source else ""
    return "\n\n".join(
        [
            f"**{spec.pair}**: **{spec.parameters}**, model `{candidate.saved.url}`{made}.",
            table(_heads(rows, level), lines),
            f"On the {split} split. {_warning(split)}[Report, tables and figures](run:{evaluation}).",
            _elsewhere(split),
        ]
    )


def _heads(rows: Sequence[Row], level: float) -> list[str]:
    units = next((row.units for row in rows if row.metric == "fair_crps"), "")
    sure = f"({100 * level:g} %)"
    skills = [f"{name} {sure}" for name in _skills(rows).values()]
    return [f"CRPS, {units} {sure}", *skills, "windows, blocks"]


def _skills(rows: Sequence[Row]) -> dict[str, str]:
    """Give the references that have a column: that with the paper's settings only if there is one."""
    prior = any((row.metric, row.reference) == (SKILL, PUBLISHED) for row in rows)
    return {name: title for name, title in _SKILLS.items() if prior or name != PUBLISHED}


def _scores(crps: Row, rows: Sequence[Row]) -> list[str]:
    """Give the cells of a model whose CRPS is known."""
    skills = {
        row.reference: row
        for row in rows
        if (row.metric, row.pair, row.model) == (SKILL, crps.pair, crps.model)
    }
    return [
        _sure(crps, ".4f"),
        *(_sure(skills.get(name), ".1%") for name in _skills(rows)),
        f"{crps.windows} in {crps.blocks}",
    ]


def _linked(label: str, runs: Mapping[str, str]) -> str:
    if label not in runs:
        return label
    return f"[{label.replace('[', '(').replace(']', ')')}](run:{runs[label]})"


def _warning(split: str) -> str:
    return f"{_CHOSEN} " if split == "validation" else ""


def _elsewhere(split: str) -> str:
    view = EVALUATIONS[split].key
    return (
        f"[All models evaluated so](view:{view}) ([charts](view:{view}#charts)) · "
        f"[tuned pairs and final models](view:{VALUES.key})"
    )


def _sure(row: Row | None, form: str) -> str:
    if row is None:
        return ""
    if math.isnan(row.low) or math.isnan(row.high):
        return f"{row.value:{form}}"
    return f"{row.value:{form}} ({row.low:{form}} to {row.high:{form}})"
