import math

from pipeline.evaluation.note import evaluation_note
from pipeline.evaluation.tidy import SKILL, Row

NAN = math.nan


def row(metric, value, low=NAN, high=NAN, field="ensemble", **others):
    what = {"model": "a", "pair": "4x2", "units": "mm/h", "better": "lower", "split": "test", "store": "s"}
    return Row(
        field=field,
        metric=metric,
        value=value,
        low=low,
        high=high,
        windows=35,
        blocks=21,
        **{**what, **others},
    )


ROWS = [
    row("fair_crps", 0.1, field="bicubic", model=""),
    row("fair_crps", 0.0617, 0.0438, 0.0821),
    row("rmse", 0.3),
    row(SKILL, 0.387, 0.3, 0.45, reference="bicubic"),
    row(SKILL, 0.2, reference="quantile_mapping"),
    row(SKILL, 0.1, reference="nearest"),
    row("fair_crps", 0.07, model="b"),
]


def test_each_model_with_how_sure():
    note = evaluation_note(ROWS, "rain", "test", 0.95, {"b": "evaluation-1/4x2/1"})
    lines = [line for line in note.replace("&nbsp;", "").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][2] == "CRPS, mm/h (95 %)"
    assert cells[0][3] == "skill over bicubic (95 %)"
    assert cells[2:] == [
        ["**4x2**", "a", "0.0617 (0.0438 to 0.0821)", "38.7% (30.0% to 45.0%)", "20.0%", "35 in 21"],
        ["**4x2**", "[b](run:evaluation-1/4x2/1)", "0.0700", "", "", "35 in 21"],
    ]
    assert "On the test split of `rain`" in note
    assert "Tuning chose" not in note


def test_the_paper_s_settings_have_a_column_where_they_were_scored():
    known = [*ROWS, row(SKILL, -0.05, reference="published")]
    note = evaluation_note(known, "rain", "test", 0.9, {}).replace("&nbsp;", " ")
    assert "over the paper's settings (90 %)" in note
    assert "-5.0%" in note
    assert "paper" not in evaluation_note(ROWS, "rain", "test", 0.9, {})


def test_what_tuning_chose_on_is_said():
    assert "Tuning chose among its trials on these windows" in evaluation_note(
        ROWS, "rain", "validation", 0.9, {}
    )


def test_nothing_was_scored():
    assert "report.html" in evaluation_note([], "rain", "test", 0.9, {})
