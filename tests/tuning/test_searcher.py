import pytest
from ray.tune.search import Searcher

from pipeline import FactorPair
from pipeline.config import TuningSettings
from pipeline.prior import paper_prior
from pipeline.tuning.searcher import StudySearcher
from pipeline.tuning.study import PairStudy, open_storage

PAIRS = (FactorPair(4, 2), FactorPair(1, 3))


@pytest.fixture
def studies(tmp_path):
    settings = TuningSettings(trials=2, max_failures=1)
    storage = open_storage(settings, str(tmp_path))
    return {pair: PairStudy(storage, f"s/{pair}", pair, settings, 6, 0) for pair in PAIRS}


def scored(crps=0.5):
    """A result as Tune hands it to searchers."""
    return {"metrics/crps": crps, "metrics/rmse": 1.0, "model_url": "/m", "time_total_s": 3.0, "done": True}


def test_pairs_take_turns_until_all_is_done(studies):
    searcher = StudySearcher(studies)
    points = [searcher.suggest(str(i)) for i in range(4)]
    assert [point["pair"] for point in points] == ["4x2", "1x3", "4x2", "1x3"]
    assert points[0]["parameters"] == paper_prior(PAIRS[0]).model_dump(mode="json")
    assert searcher.suggest("4") is None  # all are running
    for i in range(3):
        searcher.on_trial_complete(str(i), scored())
    assert searcher.suggest("5") is None
    searcher.on_trial_complete("3", scored(0.25))
    assert searcher.suggest("6") == Searcher.FINISHED
    best = studies[PAIRS[1]].best()
    assert (best.crps, best.metrics, best.model_url) == (0.25, {"crps": 0.25, "rmse": 1.0}, "/m")


def test_the_pair_that_is_behind_comes_first(studies):
    proposal = studies[PAIRS[0]].ask()
    studies[PAIRS[0]].tell(proposal.number, {"crps": 1.0}, "/m")
    searcher = StudySearcher(studies)
    assert [searcher.suggest(str(i))["pair"] for i in range(3)] == ["1x3", "4x2", "1x3"]


@pytest.mark.parametrize(
    ("result", "error"),
    [(None, True), ({"step": 5}, True), ({"step": 5, "stage": "mean"}, False), ({}, False), (None, False)],
)
def test_without_a_score_the_point_comes_again(studies, result, error):
    searcher = StudySearcher(studies)
    point = searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    later = [searcher.suggest(name) for name in "bcde"]
    again = [p for p in later if (p["pair"], p["parameters"]) == (point["pair"], point["parameters"])]
    assert [p["number"] != point["number"] for p in again] == [True]
    assert studies[PAIRS[0]].failures == 0


def test_a_verdict_on_the_point(studies):
    searcher = StudySearcher(studies)
    point = searcher.suggest("a")
    searcher.on_trial_complete("a", {"failure": "loss is nan"})
    assert studies[PAIRS[0]].failures == 1
    assert searcher.suggest("b")["parameters"] != point["parameters"]


def test_it_ends_when_what_is_left_is_given_up(studies):
    searcher = StudySearcher(studies)
    for i in range(20):
        point = searcher.suggest(str(i))
        if point == Searcher.FINISHED:
            break
        searcher.on_trial_complete(str(i), {"failure": "loss is nan"})
    assert point == Searcher.FINISHED
    assert all(study.exhausted for study in studies.values())


def test_what_it_never_asked_for_is_ignored(studies):
    searcher = StudySearcher(studies)
    searcher.on_trial_complete("stranger", scored())
    searcher.suggest("a")
    searcher.on_trial_complete("a", scored())
    searcher.on_trial_complete("a", scored())
    assert len(studies[PAIRS[0]].finished) == 1
