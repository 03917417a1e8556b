"""What a sweep found, per pair, and how it is laid out as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.factors import FactorPair, ScaleParameters
from pipeline.tuning.study import Finished


@dataclass(frozen=True)
class PairResult:
    """A tuned pair, scored on the test split.

    Attributes
    ----------
    pair : FactorPair
    best : Finished
        The trial with the lowest validation CRPS.
    test : dict
        Its test scores by name.
    prior_test : dict or None
        Those of the paper's prior, if its trial was scored.
    trials : int
        Finished trials.
    """

    pair: FactorPair
    best: Finished
    test: dict[str, float]
    prior_test: dict[str, float] | None
    trials: int


_COLUMNS = (
    "pair",
    "beta",
    "L",
    "f",
    "CRPS",
    "bicubic",
    "skill",
    "prior",
    "spread/skill",
    "cons. tile",
    "cons. cell",
    "trials",
)


def table(results: Sequence[PairResult], units: str) -> str:
    """Lay the results out as text; scores are on the test split."""
    rows = [_COLUMNS, *(_row(result) for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = "-" * len(lines[0])
    legend = (
        f"test split, {units}. CRPS: fair CRPS of the tuned ensemble; bicubic: its MAE; "
        "skill: 1 - CRPS / bicubic;\n"
        "prior: CRPS of the paper's prior; cons.: relative error of the amount kept per tile and "
        "per coarse cell"
    )
    return "\n".join([lines[0], rule, *lines[1:], rule, legend])


def _row(result: PairResult) -> tuple[str, ...]:
    parameters, test = result.best.parameters, result.test
    return (
        str(result.pair),
        f"{parameters.beta:.4f}",
        str(parameters.context),
        str(parameters.conservation),
        f"{test['crps']:.4f}",
        f"{test['bicubic_mae']:.4f}",
        f"{test['crps_skill']:.1%}",
        f"{result.prior_test['crps']:.4f}" if result.prior_test else "-",
        f"{test['spread_skill_ratio']:.2f}",
        f"{test['conservation_tile']:.1e}",
        f"{test['conservation_cell']:.1e}",
        str(result.trials),
    )


def table_csv(results: Sequence[PairResult]) -> str:
    """Give every test score of every pair, one row a pair."""
    rows = [
        {
            "pair": str(r.pair),
            **_flat(r.best.parameters),
            **r.test,
            "trials": r.trials,
            "validation_crps": r.best.crps,
        }
        for r in results
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["pair"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(parameters: ScaleParameters) -> dict[str, Any]:
    f = parameters.conservation
    return {"beta": parameters.beta, "context": parameters.context, **f.model_dump(mode="json")}
