from dataclasses import replace

import pytest

from pipeline import ScaleParameters, UserError
from pipeline.evaluation.evaluate import Evaluation
from pipeline.model_file import load_card
from pipeline.tuning import trial
from pipeline.tuning.stage_cache import LeasedClaims

PARAMETERS = ScaleParameters(beta=0.02, context=2)


@pytest.fixture
def run(tiny, store, pair, tmp_path):
    config = tiny.model_copy(update={"output": str(tmp_path)})
    reports = []

    def run_(number=0, parameters=PARAMETERS, store=store):
        reports.clear()
        result = trial.run_trial(
            config, store, pair, parameters, claims=LeasedClaims(), owner=str(number), label=f"t{number}",
            model_url=str(tmp_path / f"model-{number}"), on_report=reports.append,
        )  # fmt: skip
        return result, list(reports)

    return run_


def test_a_trial_and_its_neighbour(run, tmp_path, store, tiny):
    first, reports = run(0)
    metrics = first["metrics"]
    assert metrics["steps_from_cache"] == 0
    assert {r.stage for r in reports} == {"mean", "residual"}
    card = load_card(first["model_url"])
    assert card["scores"]["validation_crps"] == metrics["crps"]
    assert list((tmp_path / "unfinished").glob("*")) == []

    # the same mean under another beta; its own point again gives the same score to the last digit
    other, _ = run(1, PARAMETERS.model_copy(update={"beta": 0.05}))
    assert other["metrics"]["steps_from_cache"] == 12
    assert other["metrics"]["crps"] != metrics["crps"]
    same, _ = run(2)
    assert same["metrics"]["steps_from_cache"] == 12
    assert same["metrics"]["crps"] == metrics["crps"]

    saved = trial.score_saved(tiny, store, first["model_url"], "validation")
    assert saved.as_metrics()["crps"] == pytest.approx(metrics["crps"], rel=1e-6)


def test_a_score_that_is_not_finite_is_a_verdict(run, monkeypatch, tmp_path):
    score = trial.score

    def broken(*arguments):
        scores: Evaluation = score(*arguments)
        return replace(scores, ensemble=replace(scores.ensemble, crps=float("nan")))

    monkeypatch.setattr(trial, "score", broken)
    with pytest.raises(FloatingPointError, match="CRPS is nan"):
        run()
    assert not (tmp_path / "model-0").exists()


def test_a_store_that_changes_is_refused(run, store, one_line):
    with pytest.raises(UserError) as raised:
        run(store=replace(store, info=replace(store.info, fingerprint="old")))
    one_line(raised, "it changed during the sweep")
