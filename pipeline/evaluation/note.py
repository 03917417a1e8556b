"""What a person reads first on the page of an evaluation in MLflow, in markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.evaluation.chunks import ENSEMBLE
from pipeline.evaluation.tidy import SKILL, Row
from pipeline.mlflow_view.markdown import table
from pipeline.mlflow_view.views import EVALUATIONS, VALUES

_SKILLS = {"bicubic": "skill over bicubic (90 %)", "quantile_mapping": "over quantile mapping (90 %)"}


def evaluation_note(rows: Sequence[Row], dataset: str, split: str) -> str:
    """Describe an evaluation: each model's CRPS and skill with their intervals.

    Parameters
    ----------
    rows : sequence of Row
        All of the evaluation.
    dataset, split : str
    """
    ensembles = [row for row in rows if row.field == ENSEMBLE]
    scores = [row for row in ensembles if row.metric == "fair_crps"]
    skills = {(row.pair, row.model, row.reference): row for row in ensembles if row.metric == SKILL}
    units = scores[0].units if scores else ""
    lines = [
        [
            f"**{row.pair}**",
            row.model,
            _sure(row, ".4f"),
            *(_sure(skills.get((row.pair, row.model, name)), ".1%") for name in _SKILLS),
            f"{row.windows} in {row.blocks}",
        ]
        for row in scores
    ]
    heads = ["pair", "model", f"CRPS, {units} (90 %)", *_SKILLS.values(), "windows, blocks"]
    return "\n\n".join(
        [
            table(heads, lines),
            f"On the {split} split of `{dataset}`. Artifacts: `report.html` (all scores, figures, formulas), "
            "`scores.csv`.",
            f"[All evaluations](view:{EVALUATIONS.key}) · [tuned pairs and final models](view:{VALUES.key})",
        ]
    )


def _sure(row: Row | None, form: str) -> str:
    if row is None:
        return ""
    if math.isnan(row.low) or math.isnan(row.high):
        return f"{row.value:{form}}"
    return f"{row.value:{form}} ({row.low:{form}} to {row.high:{form}})"
