import csv
import io
import math
import re
from datetime import datetime

import pytest

from pipeline import Conservation, FactorPair, ScaleParameters
from pipeline.evaluation.bootstrap import Difference
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.results import PairResult, Rival, comparison, table, table_csv, verdict
from pipeline.tuning.study import Ended

TEST = {
    "crps": 0.1234,
    "bicubic_mae": 0.25,
    "crps_skill": 0.5064,
    "spread_skill_ratio": 0.876,
    "conservation_tile": 1.25e-7,
    "conservation_cell": 0.03,
}
TUNED = ScaleParameters(
    beta=0.02, context=5, conservation=Conservation(power=0.5, threshold=0.01, scope="cell")
)
PRIOR = TUNED.model_copy(update={"beta": 0.04})


def rival(value=0.5, low=0.25, high=0.75, blocks=9, parameters=PRIOR):
    return Rival(parameters, TEST["crps"] * (1 + value), Difference(value, low, high, blocks))


def result(pair, trials=4, pruned=0, **rivals):
    outcome = Outcome(state="complete", parameters=TUNED, metrics={"crps": 0.2}, model_url="/m")
    best = Ended(2, outcome, False, datetime(2026, 1, 1))
    return PairResult(FactorPair.parse(pair), best, TEST, rivals, trials, pruned)


def cells(text):
    """The rows of a table, without rules and legend, as lists of cells; all must be of one length."""
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if line and set(line) == {"-"}]
    assert len(rules) == 2
    rows = [lines[0], *lines[rules[0] + 1 : rules[1]]]
    assert len({len(line) for line in lines[: rules[1] + 1]}) == 1
    return [re.split(r"\s{2,}", row.strip()) for row in rows]


def test_table():
    results = [result("10x3"), result("1x2", trials=12, pruned=5)]
    head, *rows = cells(table(results, "mm/h"))
    assert head == [
        *("pair", "beta", "L", "f", "CRPS", "bicubic", "skill"),
        *("spread/skill", "cons. tile", "cons. cell", "trials"),
    ]
    assert rows[0] == [
        *("10x3", "0.0200", "5", "x^0.5 - 0.01, cell", "0.1234", "0.2500", "50.6%"),
        *("0.88", "1.2e-07", "3.0e-02", "4"),
    ]
    assert (rows[1][0], rows[1][-1]) == ("1x2", "12 (5 pruned)")
    assert "test split, mm/h" in table(results, "mm/h")


def test_nothing_to_show():
    assert cells(table([], "mm/h"))[0][0] == "pair"
    assert table_csv([]) == "pair\n"
    assert comparison([]) == ""
    assert comparison([result("4x2")]) == ""
    assert verdict([result("4x2")]) == []


def test_comparison():
    results = [
        result("10x3", prior=rival(), fixed=rival(-0.125, -0.25, 0.0625, blocks=9)),
        result("4x2", prior=rival(-0.5, -0.75, -0.25, blocks=7)),
        result("1x2", prior=rival(0.3, math.nan, math.nan, blocks=3), fixed=rival(0, 0, 0, 3, TUNED)),
        result("8x1"),
    ]
    head, *rows = cells(comparison(results))
    assert head == ["pair", "tuned", "prior", "fixed", "blocks"]
    assert rows == [
        ["10x3", "0.1234", "+50.0% [+25.0%, +75.0%]*", "-12.5% [-25.0%, +6.2%]", "9"],
        ["4x2", "0.1234", "-50.0% [-75.0%, -25.0%]*", "-", "7"],
        ["1x2", "0.1234", "+30.0%", "=", "3"],
        ["8x1", "0.1234", "-", "-", "0"],
    ]


@pytest.mark.parametrize("bound", [0.0, math.nan])
def test_the_tuned_setting_itself_is_said_to_be_it(bound):
    own = result("4x2", prior=rival(0.0, bound, bound, 3, TUNED))
    assert cells(comparison([own]))[1][2] == "="
    other = result("4x2", prior=rival(0.0, bound, bound, 3))  # another that happens to score the same
    assert cells(comparison([other]))[1][2].startswith("+0.0%")


def test_verdict():
    results = [
        result("10x3", prior=rival(), fixed=rival(-0.1, -0.2, 0.1)),
        result("4x2", prior=rival(-0.5, -0.75, -0.25)),
        result("1x2", prior=rival(0.3, math.nan, math.nan), fixed=rival(0.1, 0.0, 0.2)),
        result("8x1", prior=rival(0.2, 1e-9, 0.4), fixed=rival(0, 0, 0, 3, TUNED)),
    ]
    assert verdict(results) == [
        "against prior: tuned is better at 2 of 4 pairs, worse at 1, undecided at 1",
        "against fixed: tuned is better at 0 of 3 pairs, worse at 0, undecided at 2, the same at 1",
    ]


def test_csv():
    results = [result("10x3", pruned=1, prior=rival()), result("1x2", trials=12)]
    rows = list(csv.DictReader(io.StringIO(table_csv(results))))
    assert [row["pair"] for row in rows] == ["10x3", "1x2"]
    row = rows[0]
    assert {name: float(row[name]) for name in TEST} == TEST
    assert (row["beta"], row["context"], row["power"], row["threshold"]) == ("0.02", "5", "0.5", "0.01")
    assert (row["scope"], row["trials"], row["pruned"], row["validation_crps"]) == ("cell", "4", "1", "0.2")
    assert float(row["prior crps"]) == pytest.approx(0.1851)
    assert [row[f"prior {name}"] for name in ("loss", "loss_low", "loss_high")] == ["0.5", "0.25", "0.75"]
    assert rows[1]["prior crps"] == ""
