import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tuning.pace import Pace, time_left

SECONDS = st.integers(0, 30)


def test_nothing_is_known_before_anything_is_measured():
    assert Pace().new(100) is None
    assert Pace().rest(100) is None


def test_steps_then_whole_trials():
    pace = Pace().trained(10, 20.0).trained(30, 20.0)  # 1 s a step
    assert pace.new(50) == 50
    pace = pace.end(whole=42.0, scoring=6.0).end(whole=10.0, scoring=None)
    assert pace.new(50) == 26  # the mean of the trials, whatever their steps
    assert pace.rest(15) == 15 + 6
    assert pace.rest(50) == 26


@given(st.integers(0, 1000), st.floats(0, 1e4), st.lists(st.floats(0, 1e4)), st.integers(0, 1000))
def test_estimates_are_never_negative(steps, training, wholes, left):
    pace = Pace().trained(steps, training)
    for whole in wholes:
        pace = pace.end(whole, whole / 2)
    for estimate in (pace.new(left), pace.rest(left)):
        assert estimate is None or estimate >= 0
    if wholes:
        assert pace.rest(left) <= pace.new(left)


def second_by_second(running, waiting, each, at_once):
    """Play it through: every second, fill the free places, then let all run."""
    running, now = [seconds for seconds in running if seconds > 0], 0
    while running or waiting:
        while waiting and len(running) < at_once:
            running.append(each)
            waiting -= 1
        now += 1
        running = [seconds - 1 for seconds in running if seconds > 1]
    return now


@given(st.lists(SECONDS, max_size=4), st.integers(0, 20), st.integers(1, 30), st.integers(0, 3))
def test_time_left(running, waiting, each, more):
    at_once = max(1, len(running) + more)
    left = time_left(running, waiting, each, at_once)
    assert left == second_by_second(running, waiting, each, at_once)
    assert left >= (sum(running) + waiting * each) / at_once


def test_time_left_of_nothing():
    assert time_left([], 0, 10.0, 3) == 0
    assert time_left([7.5], 0, 10.0, 1) == pytest.approx(7.5)
