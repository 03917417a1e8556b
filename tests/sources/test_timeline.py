import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import UserError
from pipeline.sources.timeline import Axis, build, describe_gaps

START = np.datetime64("2020-01-01T00:00:00", "s")


def at(*minutes):
    return START + np.array(minutes) * np.timedelta64(60, "s")


@given(order=st.permutations(range(12)), cuts=st.sets(st.integers(1, 11)))
def test_every_frame_finds_its_place_in_any_order(order, cuts):
    edges = [0, *sorted(cuts), 12]
    times = [at(*(5 * k for k in order[a:b])) for a, b in zip(edges, edges[1:], strict=False)]  # noqa: RUF007
    line = build(times, [f"file{i}" for i in range(len(times))])
    assert (line.start, line.cadence_seconds, line.frames) == (START, 300, 12)
    for place, source, frame in line.entries:
        assert line.time(place) == times[source][frame]
    places = [place for index, first, stop, run in line.runs() for place in run]
    assert places == list(range(12))
    for index, first, stop, run in line.runs():
        np.testing.assert_array_equal(times[index][first:stop], [line.time(place) for place in run])


def test_the_cadence_is_the_most_common_step():
    line = build([at(0, 5, 10, 30, 35)], ["a"])
    assert (line.cadence_seconds, line.frames) == (300, 8)
    assert list(line.entries[:, 0]) == [0, 1, 2, 6, 7]


def test_a_time_that_comes_twice_keeps_both_in_the_order_of_the_files():
    line = build([at(5, 10), at(0, 5)], ["a", "b"])
    assert line.entries.tolist() == [[0, 1, 0], [1, 0, 0], [1, 1, 1], [2, 0, 1]]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([at(0)], "a: one time only"),
        ([at(0), at(5, 10, 17)], "b: 2020-01-01T00:17:00 does not fit the cadence: a frame every 300 s from"),
        # The odd one out is named even where it is the first.
        ([at(2), at(10, 15, 20)], "a: 2020-01-01T00:02:00 does not fit the cadence"),
        ([at(0, 5), at(525_600)], "gap of 105118 frames between 2020-01-01T00:05:00 and 2020-12-31T00:00:00"),
    ],
)
def test_times_that_make_no_axis(times, message):
    with pytest.raises(UserError, match=message):
        build(times, ["a", "b"])


def test_an_axis_that_is_there_already():
    axis = Axis(START, 300, np.array([True, False, True]))
    assert axis.has(at(0, 5, 10, 15, 2, -5)).tolist() == [True, False, True, False, False, False]
    line = build([at(5, 20)], ["a"], axis)
    assert (line.frames, line.entries.tolist()) == (5, [[1, 0, 0], [4, 0, 1]])
    with pytest.raises(UserError, match=r"a: 2019-12-31T23:55:00 lies before the store's first time"):
        build([at(-5)], ["a"], axis)
    with pytest.raises(UserError, match="does not fit the cadence"):
        build([at(7)], ["a"], axis)


def test_frames_that_are_passed_over_have_no_place():
    axis = Axis(START, 300, np.ones(3, bool))
    times = at(5, 10, 15)
    times[:2] = np.datetime64("NaT")
    assert build([times], ["a"], axis).entries.tolist() == [[3, 0, 2]]
    times[:] = np.datetime64("NaT")
    line = build([times], ["a"], axis)
    assert (line.frames, line.runs()) == (3, [])


def test_gaps_in_words():
    assert describe_gaps([], START, 300) == "none"
    said = describe_gaps([(1, 2), (7, 1)], START, 300)
    assert said == (
        "3 frames that no file has, missing "
        "(2 between 2020-01-01T00:00:00 and 2020-01-01T00:15:00 and 1 more)"
    )
