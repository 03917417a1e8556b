import numpy as np
import pytest

from pipeline import UserError
from pipeline.sources.readers import Selection
from pipeline.sources.readers.window import frames, window

Y = np.arange(60, 40, -5.0)
GLOBE = np.arange(0, 360, 10.0)


def read(part, columns):
    image = np.broadcast_to(np.arange(columns), (4, columns))
    return part.read(lambda rows, cols: image[rows, cols])[0]


@pytest.mark.parametrize(
    ("x0", "x1", "longitudes"),
    [
        (10, 30, [10, 20, 30]),
        (-20, 10, [-20, -10, 0, 10]),
        (-30, -10, [-30, -20, -10]),
        (340, 370, [340, 350, 360, 370]),
        (-180, 180, [*range(-180, 180, 10)]),
        (-5, 354, [*range(0, 355, 10)]),
        (-10, 359, [*range(-10, 350, 10)]),
    ],
)
def test_a_box_on_the_globe(x0, x1, longitudes):
    part = window(Y, GLOBE, Selection(bbox=(x0, 45, x1, 55)), "a")
    np.testing.assert_array_equal(part.x, longitudes)
    np.testing.assert_array_equal(part.y, [55, 50, 45])
    np.testing.assert_array_equal(read(part, 36) * 10, np.mod(longitudes, 360))


def test_longitudes_that_do_not_go_around_are_not_turned():
    x = np.arange(0, 300, 10.0)
    np.testing.assert_array_equal(window(Y, x, Selection(bbox=(-20, 45, 10, 55)), "a").x, [0, 10])
    with pytest.raises(UserError, match=r"^a: no pixel within --bbox -20,45,-1,55; x runs from 0 to 290"):
        window(Y, x, Selection(bbox=(-20, 45, -1, 55)), "a")


def test_centres_on_the_edge_are_inside():
    part = window(Y, np.array([3.0, 2, 1]), Selection(bbox=(1, 50, 2, 55)), "a")
    np.testing.assert_array_equal(part.x, [2, 1])
    np.testing.assert_array_equal(read(part, 3), [1, 2])


def test_first_and_last_time_are_included():
    times = np.array(["2020-01-02", "2020-01-01", "2020-01-03"], "datetime64[s]")
    chosen = frames(times, Selection(np.datetime64("2020-01-02"), np.datetime64("2020-01-03")))
    np.testing.assert_array_equal(chosen, [0, 2])
    np.testing.assert_array_equal(frames(times, None), [0, 1, 2])
