import json

from pipeline import FactorPair
from pipeline.mlflow_view.views import EVALUATIONS, VALUES, View, sweep_view, trials_view

PAIR = FactorPair(4, 2)


def state_of(view):
    content = json.loads(view.to_json(7))
    return json.loads(content["state"]) if view.name else content


def test_a_named_view_is_listed_and_an_unnamed_one_is_not():
    listed = json.loads(VALUES.to_json(7))
    assert (listed["name"], listed["createdAt"], listed["updatedAt"]) == (VALUES.name, 7, 7)
    assert "name" not in json.loads(trials_view("s", PAIR).to_json(7))


def test_columns_and_order():
    view = View("k", "metrics.a > 0", "metrics.a", ("params.beta", "tags.finescale.pair"))
    state = state_of(view)
    assert state["selectedColumns"] == state["columnOrder"] == ["params.`beta`", "tags.`finescale.pair`"]
    assert state["columnWidths"].keys() == set(state["columnOrder"])
    assert (state["searchFilter"], state["orderByKey"], state["orderByAsc"]) == (
        "metrics.a > 0", "metrics.`a`", True,
    )  # fmt: skip
    assert "compareRunCharts" not in state


def test_charts_of_trials():
    state = state_of(trials_view("s", PAIR))
    sections = {section["uuid"]: section for section in state["compareRunSections"]}
    parallel, *scatters = state["compareRunCharts"]
    assert parallel["type"] == "PARALLEL"
    assert parallel["selectedParams"] == ["context", "power", "threshold", "scope"]
    assert parallel["selectedMetrics"] == ["log10_beta", "crps"]
    assert [(one["xaxis"], one["yaxis"]["key"]) for one in scatters] == [
        ({"key": "log10_beta", "type": "METRIC"}, "crps"),
        ({"key": "context", "type": "PARAM"}, "crps"),
    ]
    assert all(sections[chart["metricSectionId"]]["display"] for chart in state["compareRunCharts"])
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == 3
    # The UI looks for these two by name, and adds a chart of every metric to them.
    assert [s["display"] for s in sections.values() if s["name"] in ("Model metrics", "System metrics")] == [
        False, False,
    ]  # fmt: skip
    assert state["runsHiddenMode"] == "SHOW_ALL"


def test_evaluated_models_have_their_values_and_scores_as_columns():
    for split, view in EVALUATIONS.items():
        score = f"metrics.{split}_crps"
        assert {
            "tags.finescale.pair", "metrics.beta", "metrics.context", "tags.finescale.conservation",
            score, f"{score}_low", f"{score}_high", f"{score}_skill",
        } <= set(view.columns)  # fmt: skip
        assert "'evaluated'" in view.filter
    assert "!= 'evaluated'" in VALUES.filter  # on other windows than those of the trainings


def test_views_are_told_apart_and_fit_a_tag():
    views = [
        VALUES,
        *EVALUATIONS.values(),
        sweep_view("s"),
        sweep_view("t"),
        *(trials_view(s, PAIR) for s in "st"),
    ]
    assert len({view.tag for view in views}) == 7
    for view in [*views, trials_view("s" * 100, FactorPair(100, 100))]:
        assert len(view.to_json(10**13)) < 5000  # what MLflow takes
        assert len(view.tag) <= 250
    assert "'t'" in state_of(trials_view("t", PAIR))["searchFilter"]
