import math
from dataclasses import replace

import pytest

from pipeline import FactorPair
from pipeline.evaluation.bootstrap import Difference
from pipeline.factors import Conservation, ScaleParameters, Scope
from pipeline.mlflow_view.markdown import linked
from pipeline.tuning.notes import open_study_note, study_note, sweep_note
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.results import PairResult, Rival
from pipeline.tuning.study import Ended

TUNED = ScaleParameters(beta=0.0139, context=5, conservation=Conservation(scope=Scope.CELL))
PRIOR = ScaleParameters(beta=0.02, context=5)


def result(low=0.07, high=0.09, prior=PRIOR, difference=(0.5, 0.4, 0.6)):
    outcome = Outcome(state="complete", parameters=TUNED, metrics={"crps": 0.1}, model_url="/m")
    rivals = {"paper's prior": Rival(prior, 0.12, Difference(*difference, 8))}
    test = {"crps": 0.08, "crps_low": low, "crps_high": high, "crps_skill": 0.481}
    return PairResult(FactorPair(4, 2), Ended(3, outcome, False, None), test, rivals, trials=10, pruned=4)


def rows(note):
    """Cells of the note's table, without links and emphasis."""
    lines = [line for line in note.replace("&nbsp;", "").splitlines() if line.startswith("|")]
    plain = linked("\n".join(lines), "1", {}.get).replace("*", "").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in plain]


def test_the_best_values_per_pair_with_how_sure():
    note = sweep_note("s", "rain", "mm/h", [result()], {FactorPair(4, 2): "FINISHED"})
    head, _, row, *others = rows(note)
    assert dict(zip(head, row, strict=True)).items() >= {
        "pair": "4x2", "beta": "0.0139", "L": "5", "f": "x, cell",
        "test CRPS, mm/h (90 %)": "0.0800 (0.0700 to 0.0900)", "below bicubic": "48.1%",
    }.items()  # fmt: skip
    assert others[0] == ["pair", "paper's prior"]
    assert [cell.replace("\\", "").strip() for cell in others[2]] == ["4x2", "+50.0% (+40.0% to +60.0%)"]
    assert "](run:s/4x2)" in note
    assert "](view:finescale-trials-s-4x2#charts)" in note
    assert "](view:finescale-sweep-s)" in note


def test_without_an_interval_none_is_claimed():
    few = result(low=math.nan, high=math.nan, difference=(0.5, math.nan, math.nan))
    _, _, row, *_, compared = rows(sweep_note("s", "rain", "mm/h", [few], {}))
    assert (row[4], compared[1]) == ("0.0800", "+50.0%")
    assert "90 %: " not in study_note("s", few, "mm/h", None)


def test_the_prior_may_be_the_best():
    assert rows(sweep_note("s", "rain", "mm/h", [result(prior=TUNED)], {}))[-1] == ["4x2", "="]


def test_nothing_was_compared():
    alone = replace(result(), rivals={})
    assert "larger by" not in sweep_note("s", "rain", "mm/h", [alone], {})


def test_pairs_without_a_result_say_why():
    pairs = {FactorPair(4, 2): "FINISHED", FactorPair(8, 1): "FAILED"}
    note = sweep_note("s", "rain", "mm/h", [result()], pairs)
    assert [row[:2] for row in rows(note)[2:4]] == [["4x2", "0.0139"], ["8x1", "FAILED"]]
    early = sweep_note("s", "rain", "mm/h", [], dict.fromkeys(pairs, "no score yet"))
    assert [row[1] for row in rows(early)[2:]] == ["no score yet", "no score yet"]
    assert "view:finescale-sweep" not in early


@pytest.mark.parametrize("model", [None, "finescale-rain-4x2"])
def test_a_study(model):
    note = study_note("s", result(), "mm/h", model)
    assert note.startswith(
        f"Best of 10 trials for **4x2**: **{TUNED}**, test CRPS **0.0800 (0.0700 to 0.0900)** mm/h"
    )
    assert "[best trial](run:s/4x2/3)" in note
    assert ("](model:finescale-rain-4x2)" in note) == (model is not None)
    assert rows(note)[2][:3] == ["paper's prior", str(PRIOR), "0.12"]


def test_a_study_without_a_result():
    note = open_study_note("s", FactorPair(4, 2))
    assert note.startswith("Tuning of **4x2**: no score yet.")
    assert "](view:finescale-trials-s-4x2#charts) · [sweep s](run:s)" in note
