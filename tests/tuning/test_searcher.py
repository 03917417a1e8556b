import json

import pytest
from ray.tune.search import Searcher

from pipeline import FactorPair, ScaleParameters
from pipeline.config import TuningSettings
from pipeline.prior import paper_prior
from pipeline.recipe import Recipe
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.searcher import StudySearcher
from pipeline.tuning.storage import open_storage
from pipeline.tuning.study import PairStudy

PAIRS = (FactorPair(4, 2), FactorPair(1, 3))


@pytest.fixture
def reopen(tmp_path):
    def open_(trials=2, max_failures=1, at_once=2):
        settings = TuningSettings(trials=trials, max_failures=max_failures, at_once=at_once, startup_trials=2)
        storage = open_storage(settings, str(tmp_path))
        return {
            pair: PairStudy(storage, f"s/{pair}", Recipe().entry(pair), settings, 6, (3, 6), 0)
            for pair in PAIRS
        }

    return open_


@pytest.fixture
def studies(reopen):
    return reopen()


def scored(point, crps=0.5, **changes):
    """A result as Tune hands it to searchers."""
    outcome = Outcome(
        **{
            "state": "complete",
            "parameters": ScaleParameters.model_validate(point["parameters"]),
            "metrics": {"crps": crps, "ratio": float("inf")},
            "rungs": {3: 1.5},
            "model_url": "/m",
            **changes,
        }
    )
    return {"outcome": outcome.model_dump_json(), "time_total_s": 3.0, "done": True}


def failed(point):
    return scored(point, state="failed", metrics={}, rungs={}, model_url=None, reason="loss is nan")


def test_pairs_take_turns_until_all_is_done(studies):
    searcher = StudySearcher(studies)
    points = [searcher.suggest(str(i)) for i in range(4)]
    assert [point["pair"] for point in points] == ["4x2", "1x3", "4x2", "1x3"]
    assert [point["number"] for point in points] == [0, 0, 1, 1]
    assert points[0]["parameters"] == paper_prior(PAIRS[0]).model_dump(mode="json")
    assert searcher.suggest("4") is None  # all are running
    for i in range(3):
        searcher.on_trial_complete(str(i), scored(points[i]))
    assert searcher.suggest("5") is None
    searcher.on_trial_complete("3", scored(points[3], 0.25))
    assert searcher.suggest("6") == Searcher.FINISHED
    best = studies[PAIRS[1]].best()
    assert (best.number, best.crps, best.model_url) == (1, 0.25, "/m")
    assert best.outcome.metrics["ratio"] == float("inf")
    assert best.outcome.rungs == {3: 1.5}


def test_points_survive_json(reopen):
    searcher = StudySearcher(reopen(trials=9, at_once=1))
    for number in range(5):
        points = [searcher.suggest(f"{number}/{i}") for i in range(2)]
        assert json.loads(json.dumps(points)) == [
            {**point, "limits": [list(limit) for limit in point["limits"]]} for point in points
        ]
        for i in range(2):
            searcher.on_trial_complete(f"{number}/{i}", scored(points[i]))
    assert points[0]["limits"] == [(3, 1.5), (6, None)]


def test_what_has_to_wait_waits(reopen):
    searcher = StudySearcher(reopen(trials=3, at_once=1))
    points = [searcher.suggest("a"), searcher.suggest("b")]
    assert [point["pair"] for point in points] == ["4x2", "1x3"]
    assert searcher.suggest("c") is None  # not finished: the next are drawn from these
    searcher.on_trial_complete("b", scored(points[1]))
    assert searcher.suggest("c")["pair"] == "1x3"


def test_the_pair_that_is_behind_comes_first(studies):
    searcher = StudySearcher({PAIRS[0]: studies[PAIRS[0]]})
    searcher.on_trial_complete("a", scored(searcher.suggest("a")))
    searcher = StudySearcher(studies)
    assert [searcher.suggest(str(i))["pair"] for i in range(3)] == ["1x3", "4x2", "1x3"]


@pytest.mark.parametrize(
    ("result", "error"),
    [(None, True), ({"step": 5}, True), ({"step": 5, "stage": "mean"}, False), ({}, False), (None, False)],
)
def test_without_an_outcome_the_trial_comes_again(studies, result, error):
    searcher = StudySearcher(studies)
    point = searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    later = [searcher.suggest(name) for name in "bcde"]
    assert later.count(point) == 1  # under its number
    assert len({(p["pair"], p["number"]) for p in later}) == 4
    assert studies[PAIRS[0]].failures == 0


def test_a_verdict_on_the_point(studies):
    searcher = StudySearcher(studies)
    point = searcher.suggest("a")
    searcher.on_trial_complete("a", failed(point))
    assert studies[PAIRS[0]].failures == 1
    assert searcher.suggest("b")["parameters"] != point["parameters"]


def test_a_pruned_trial_counts(studies):
    searcher = StudySearcher(studies)
    point = searcher.suggest("a")
    searcher.on_trial_complete("a", scored(point, state="pruned", metrics={}, model_url=None))
    assert (studies[PAIRS[0]].pruned, studies[PAIRS[0]].done) == (1, 1)


@pytest.mark.parametrize("killed", [False, True])
def test_it_ends_when_what_is_left_is_given_up(studies, killed):
    searcher = StudySearcher(studies)
    for i in range(20):
        point = searcher.suggest(str(i))
        if point == Searcher.FINISHED:
            break
        searcher.on_trial_complete(str(i), *((None, True) if killed else (failed(point),)))
    assert point == Searcher.FINISHED
    assert all(study.exhausted for study in studies.values())


def test_what_it_never_asked_for_is_ignored(studies):
    searcher = StudySearcher(studies)
    searcher.on_trial_complete("stranger", {"outcome": "{}"})
    point = searcher.suggest("a")
    searcher.on_trial_complete("a", scored(point))
    searcher.on_trial_complete("a", scored(point))
    assert len(studies[PAIRS[0]].finished) == 1


def test_a_new_driver_carries_on(reopen):
    searcher = StudySearcher(reopen())
    points = [searcher.suggest(name) for name in "abc"]
    searcher.on_trial_complete("b", scored(points[1]))
    studies = reopen()
    searcher = StudySearcher(studies)
    again = [searcher.suggest(name) for name in "abc"]
    assert [point for point in again if point in points] == [points[0], points[2]]
    for name, point in zip("abc", again, strict=True):
        searcher.on_trial_complete(name, scored(point))
    assert searcher.suggest("d") == Searcher.FINISHED
    assert [[trial.number for trial in study.ended] for study in studies.values()] == [[0, 1], [0, 1]]
