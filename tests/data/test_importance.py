import itertools

import numpy as np
import pytest

from pipeline.data.importance import Importance

WETNESS = np.array([0.0, 0.02, 0.3, 0.3, 0.9, 0.001, 0.5], dtype="f4")


def test_chances_are_in_proportion():
    chances = Importance.of(WETNESS, floor=0.1).chances
    np.testing.assert_allclose(chances / chances[0], (WETNESS + 0.1) / 0.1, rtol=1e-6)
    assert chances.sum() == pytest.approx(1)


def every_draw(importance):
    """Give all draws there are, each with the length of the stretch of offsets that gives it."""
    ends = np.cumsum(importance.chances) * len(importance.chances)
    edges = np.unique(np.concatenate([[0, 1], ends % 1]))
    return [(importance.draw((a + b) / 2), b - a) for a, b in itertools.pairwise(edges) if b > a]


@pytest.mark.parametrize("floor", [1e-3, 0.1, 10.0])
def test_the_expected_loss_is_that_of_uniform_sampling(floor):
    """By enumeration: a draw is a function of one number, constant between a few edges."""
    importance, count = Importance.of(WETNESS, floor), len(WETNESS)
    losses = np.random.default_rng(0).gamma(1.0, 3.0, count)
    draws = every_draw(importance)
    assert sum(length for _, length in draws) == pytest.approx(1)
    expected = sum(
        length * (importance.weights(drawn) * losses[drawn]).sum() / count for drawn, length in draws
    )
    assert expected == pytest.approx(losses.mean(), rel=1e-6)
    if floor < 1:  # or the weights would not matter here
        unweighted = sum(length * losses[drawn].mean() for drawn, length in draws)
        assert abs(unweighted / losses.mean() - 1) > 0.1


def test_every_draw_has_each_window_as_often_as_expected_up_to_rounding():
    importance = Importance.of(WETNESS, 0.1)
    expected = importance.chances * len(WETNESS)
    for drawn, _ in every_draw(importance):
        assert len(drawn) == len(WETNESS)
        counts = np.bincount(drawn, minlength=len(WETNESS))
        assert (np.abs(counts - expected) < 1).all()


def test_equal_windows_are_drawn_once_each_and_weigh_1():
    importance = Importance.of(np.full(8, 0.5, "f4"), floor=0.1)
    for offset in (0.01, 0.5, 0.99):
        assert sorted(importance.draw(offset)) == list(range(8))
    np.testing.assert_array_equal(importance.weights(np.arange(8)), np.ones(8, "f4"))
