"""What a sweep found, per pair, and how it is laid out as tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.evaluation.bootstrap import Difference
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.laws import Laws
from pipeline.tuning.recipe_fit import Observation
from pipeline.tuning.study import Ended


@dataclass(frozen=True)
class Rival:
    """Another setting of a pair, scored on the same windows as the tuned one.

    Attributes
    ----------
    parameters : ScaleParameters
    crps : float
        On the test split.
    difference : Difference
        Its CRPS over the tuned one, less 1, with a 90 % interval.
    """

    parameters: ScaleParameters
    crps: float
    difference: Difference


@dataclass(frozen=True)
class PairResult:
    """A tuned pair, scored on the test split.

    Attributes
    ----------
    pair : FactorPair
    best : Ended
        The trial with the best validation score.
    test : dict
        Its test scores by name.
    rivals : dict
        What it is compared with, by name.
    trials, pruned : int
        How many trials count, and how many of them were stopped early.
    """

    pair: FactorPair
    best: Ended
    test: dict[str, float]
    rivals: dict[str, Rival] = field(default_factory=dict)
    trials: int = 0
    pruned: int = 0


@dataclass(frozen=True)
class Findings:
    """All that a sweep's report is made from.

    Attributes
    ----------
    results : list of PairResult
        Of the pairs with a scored trial.
    observations : dict
        Their scored trials, and those of pairs that the sweep tuned before.
    laws : Laws or None
        Fitted to them; none without any.
    showcases : dict
        A picture (PNG) per pair.
    """

    results: list[PairResult]
    observations: dict[FactorPair, Observation]
    laws: Laws | None
    showcases: dict[FactorPair, bytes]


def table(results: Sequence[PairResult], units: str) -> str:
    """Lay the scores of the tuned values out as text; all are on the test split."""
    heads = "pair", "beta", "L", "f", "CRPS", "bicubic", "skill", "spread/skill", "cons. tile", "cons. cell"
    legend = (
        f"test split, {units}. CRPS: fair CRPS of the tuned ensemble; bicubic: its MAE; "
        "skill: 1 - CRPS / bicubic;\n"
        "cons.: relative error of the amount kept per tile and per coarse cell"
    )
    return _lay_out([(*heads, "trials"), *map(_row, results)], legend)


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
        f"{test['spread_skill_ratio']:.2f}",
        f"{test['conservation_tile']:.1e}",
        f"{test['conservation_cell']:.1e}",
        f"{result.trials} ({result.pruned} pruned)" if result.pruned else str(result.trials),
    )


def comparison(results: Sequence[PairResult]) -> str:
    """Lay out what each pair would lose with other settings than the tuned ones; empty if none was scored."""
    names = list(dict.fromkeys(name for result in results for name in result.rivals))
    if not names:
        return ""
    rows = [("pair", "tuned", *names, "blocks")]
    for result in results:
        losses = [_loss(result.rivals.get(name), result.best.parameters) for name in names]
        blocks = max((rival.difference.blocks for rival in result.rivals.values()), default=0)
        rows.append((str(result.pair), f"{result.test['crps']:.4f}", *losses, str(blocks)))
    legend = (
        "tuned: its CRPS; the others: by how much theirs is larger, with the 90 % interval of a paired\n"
        "block bootstrap; blocks: how many; *: the interval leaves 0 out; =: it is the tuned setting itself"
    )
    return _lay_out(rows, legend)


def _loss(rival: Rival | None, tuned: ScaleParameters) -> str:
    if rival is None:
        return "-"
    if rival.parameters == tuned:
        return "="
    difference = rival.difference
    text = f"{difference.value:+.1%}"
    if math.isnan(difference.low):
        return text
    return f"{text} [{difference.low:+.1%}, {difference.high:+.1%}]{'*' if difference.decided else ' '}"


def verdict(results: Sequence[PairResult]) -> list[str]:
    """Say for each rival how often retuning was better or worse than it, as far as the intervals decide."""
    names = list(dict.fromkeys(name for result in results for name in result.rivals))
    lines = []
    for name in names:
        pairs = [r for r in results if name in r.rivals]
        same = sum(r.rivals[name].parameters == r.best.parameters for r in pairs)
        found = [r.rivals[name].difference for r in pairs]
        better = sum(d.decided and d.value > 0 for d in found)
        worse = sum(d.decided and d.value < 0 for d in found)
        lines.append(
            f"against {name}: tuned is better at {better} of {len(found)} pairs, worse at {worse}, "
            f"undecided at {len(found) - better - worse - same}" + (f", the same at {same}" if same else "")
        )
    return lines


def table_csv(results: Sequence[PairResult]) -> str:
    """Give every test score of every pair, one row a pair."""
    rows = [
        {
            "pair": str(r.pair),
            **_flat(r.best.parameters),
            **r.test,
            **{f"{name} {column}": value for name, rival in r.rivals.items() for column, value in _of(rival)},
            "trials": r.trials,
            "pruned": r.pruned,
            "validation_crps": r.best.crps,
        }
        for r in results
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row)) or ["pair"]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _of(rival: Rival) -> list[tuple[str, float]]:
    difference = rival.difference
    return [
        ("crps", rival.crps),
        ("loss", difference.value),
        ("loss_low", difference.low),
        ("loss_high", difference.high),
    ]


def _flat(parameters: ScaleParameters) -> dict[str, Any]:
    f = parameters.conservation
    return {"beta": parameters.beta, "context": parameters.context, **f.model_dump(mode="json")}


def _lay_out(rows: Sequence[Sequence[str]], legend: str) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:], rule, legend])
