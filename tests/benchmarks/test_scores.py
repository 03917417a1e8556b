import sys

import pytest

from pipeline import UserError
from pipeline.benchmarks.scores import scoring_benchmark, scoring_speed, stream


def test_all_ways_are_compared(tiny, pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "xskillscore", None)
    monkeypatch.setattr("pipeline.benchmarks.scores.ProcessPoolExecutor", InThisProcess)
    found = scoring_benchmark(tiny, pair, windows=3, rounds=2)
    assert {name: len(rates) for name, rates in found.rates.items()} == {
        "finescale": 2,
        "scores": 2,
        "xskillscore": 0,
    }
    assert found.windows == (3, 30)
    assert found.saved[0] == found.saved[1]
    text = str(found)
    for part in (
        "scores: fair CRPS",
        "times as fast",
        "not installed: pip install xskillscore",
        "30 windows",
    ):
        assert part in text


class InThisProcess:
    """Runs what is submitted at once: a fresh process takes seconds to import everything."""

    def __init__(self, *_, **__):
        self.value = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        self.value = function(*arguments)
        return self

    def result(self):
        return self.value


def test_the_sums_of_a_stream_do_not_grow(tiny, pair):
    assert stream(tiny, pair, 1)[1] == stream(tiny, pair, 17)[1] > 0


def test_it_measures_one_pair(tiny):
    with pytest.raises(UserError, match="one pair"):
        scoring_speed(tiny)
