import csv
import io
import re

import pytest

from pipeline import Conservation, FactorPair, ScaleParameters
from pipeline.tuning.results import PairResult, table, table_csv
from pipeline.tuning.study import Finished

TEST = {
    "crps": 0.1234,
    "bicubic_mae": 0.25,
    "crps_skill": 0.5064,
    "spread_skill_ratio": 0.876,
    "conservation_tile": 1.25e-7,
    "conservation_cell": 0.03,
}


def result(pair, prior=None, trials=4):
    parameters = ScaleParameters(
        beta=0.02, context=5, conservation=Conservation(power=0.5, threshold=0.01, scope="cell")
    )
    best = Finished(2, parameters, 0.2, {"crps": 0.2}, "/m")
    return PairResult(pair, best, TEST, prior, trials)


@pytest.fixture
def results():
    return [result(FactorPair(10, 3), TEST | {"crps": 0.15}), result(FactorPair(1, 2), trials=12)]


def test_table(results):
    lines = table(results, "mm/h").splitlines()
    head, *rows = (re.split(r"\s{2,}", line.strip()) for line in (lines[0], *lines[2:4]))
    assert head[:7] == ["pair", "beta", "L", "f", "CRPS", "bicubic", "skill"]
    assert rows[0] == [
        *("10x3", "0.0200", "5", "x^0.5 - 0.01, cell", "0.1234", "0.2500", "50.6%"),
        *("0.1500", "0.88", "1.2e-07", "3.0e-02", "4"),
    ]
    assert rows[1][0] == "1x2"
    assert rows[1][7] == "-"  # the prior was not scored
    assert rows[1][-1] == "12"
    assert len({len(line) for line in lines[:5]}) == 1
    assert "test split, mm/h" in table(results, "mm/h")


def test_empty_table():
    assert "pair" in table([], "mm/h")
    assert table_csv([]) == "pair\n"


def test_csv(results):
    rows = list(csv.DictReader(io.StringIO(table_csv(results))))
    assert [row["pair"] for row in rows] == ["10x3", "1x2"]
    row = rows[0]
    assert {name: float(row[name]) for name in TEST} == TEST
    assert (row["beta"], row["context"], row["power"], row["threshold"]) == ("0.02", "5", "0.5", "0.01")
    assert (row["scope"], row["trials"], row["validation_crps"]) == ("cell", "4", "0.2")
