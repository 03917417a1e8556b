import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from pipeline.config import PruningSettings
from pipeline.tuning.proposal import draw, rung_limits, rung_steps

SPACE = {"x": FloatDistribution(0.0, 1.0), "f": CategoricalDistribution(["a", "b"])}
ONLY_A = {"y": FloatDistribution(0.0, 1.0)}  # a parameter that "b" lacks


def trial(x, value=None, state=TrialState.COMPLETE, rungs=None):
    f = "a" if x < 0.5 else "b"
    params, space = {"x": x, "f": f}, dict(SPACE)
    if f == "a":
        params, space = params | {"y": x}, space | ONLY_A
    return create_trial(
        state=state,
        value=value if state is TrialState.COMPLETE else None,
        params=params,
        distributions=space,
        intermediate_values=rungs or {},
    )


def point(ended, running=(), startup=4, key="k"):
    opened = draw(ended, running, 1, startup, key)
    x, f = opened.suggest_float("x", 0.0, 1.0), opened.suggest_categorical("f", ["a", "b"])
    return x, f, opened.suggest_float("y", 0.0, 1.0) if f == "a" else None


def ended(count=8):
    """Scores with a minimum at x = 0.2."""
    return [trial((i + 0.5) / count, ((i + 0.5) / count - 0.2) ** 2) for i in range(count)]


def test_the_same_knowledge_and_key_give_the_same_point():
    points = {point(ended(), [trial(0.7, state=TrialState.RUNNING)]) for _ in range(3)}
    assert len(points) == 1
    assert point(ended(), key="other") not in points


def test_the_results_of_running_trials_cannot_matter():
    running = [trial(0.3, state=TrialState.RUNNING)]
    for seen in (
        trial(0.3, value=-100.0),
        trial(0.3, value=100.0),
        trial(0.3, state=TrialState.PRUNED, rungs={3: 0.1}),
        trial(0.3, state=TrialState.FAIL),
    ):
        assert point(ended(), [seen]) == point(ended(), running)


def share_near(known, running=()):
    """How many of 40 draws come near to x = 0.2."""
    return sum(abs(point(known, running, key=str(key))[0] - 0.2) < 0.15 for key in range(40)) / 40


def test_where_running_trials_are_does_matter():
    """They count as bad, so that what they try now is not tried beside them."""
    running = [trial(0.2 + 0.001 * i, state=TrialState.RUNNING) for i in range(12)]
    assert share_near(ended(20), running) < share_near(ended(20)) - 0.1


def test_results_of_ended_trials_matter():
    turned = [trial(t.params["x"], -t.value) for t in ended(20)]
    assert share_near(turned) < 0.3 < 0.5 < share_near(ended(20))


def test_before_the_start_is_over_points_are_random():
    assert point(ended(3), startup=5) == point([trial(t.params["x"], 1.0) for t in ended(3)], startup=5)
    assert point(ended(5), startup=5) != point([trial(t.params["x"], 1.0) for t in ended(5)], startup=5)


def test_pruned_trials_tell_something():
    pruned = [trial((i + 0.5) / 8, state=TrialState.PRUNED, rungs={3: i}) for i in range(8)]
    other = [trial((i + 0.5) / 8, state=TrialState.PRUNED, rungs={3: -i}) for i in range(8)]
    assert point(pruned) != point(other)


def test_several_objectives():
    def both(values):
        return [
            create_trial(params={"x": x, "f": "b"}, distributions=SPACE, values=pair)
            for x, pair in zip((0.1, 0.3, 0.5, 0.7, 0.9), values, strict=True)
        ]

    def drawn(values):
        opened = draw(both(values), [], 2, 3, "k")
        return opened.suggest_float("x", 0.0, 1.0)

    values = [(1.0, 5.0), (2.0, 4.0), (3.0, 3.0), (4.0, 2.0), (5.0, 1.0)]
    assert drawn(values) == drawn(values)
    assert drawn(values) != drawn([(5.0, 5.0), (2.0, 4.0), (4.0, 4.0), (4.0, 2.0), (1.0, 1.0)])


def test_nothing_is_left_in_what_is_copied():
    study = optuna.create_study()
    study.add_trials(ended())
    before = [str(t) for t in study.trials]
    point(study.get_trials(deepcopy=False))
    assert [str(t) for t in study.trials] == before


@pytest.mark.parametrize(
    ("steps", "rungs", "reduction", "expected"),
    [
        (600, 2, 2, (150, 300)),
        (600, 3, 3, (22, 66, 200)),
        (12, 2, 2, (3, 6)),
        (12, 0, 2, ()),
        (3, 5, 2, (1,)),  # 3 // 2; further ones would lie at step 0
        (1, 2, 2, ()),
    ],
)
def test_rung_steps(steps, rungs, reduction, expected):
    assert rung_steps(steps, PruningSettings(rungs=rungs, reduction=reduction)) == expected


def at(rung, *values):
    return [trial(0.3, state=TrialState.PRUNED, rungs={rung: value}) for value in values]


def test_limits_by_hand():
    two, three = PruningSettings(reduction=2), PruningSettings(reduction=3)
    assert rung_limits([], (3, 6), two, 1) == {3: None, 6: None}
    assert rung_limits(at(3, 2.0), (3,), two, 1) == {3: 2.0}  # 1 of 2
    assert rung_limits(at(3, 2.0, 1.0), (3,), two, 1) == {3: 1.0}  # 1 of 3
    assert rung_limits(at(3, 2.0, 1.0, 3.0), (3,), two, 1) == {3: 2.0}  # 2 of 4
    assert rung_limits(at(3, 2.0, 1.0, 3.0), (3,), three, 1) == {3: 1.0}  # 1 of 4
    assert rung_limits(at(3, 2.0), (3,), three, 1) == {3: 2.0}  # there is always one
    assert rung_limits(at(3, 2.0, 1.0, 3.0), (3,), two, 4) == {3: None}
    assert rung_limits([*at(3, 2.0, 1.0), *at(6, 9.0)], (3, 6), two, 2) == {3: 1.0, 6: None}
    assert rung_limits(at(6, 1.0, 2.0), (3,), two, 1) == {3: None}  # of another rung


@given(
    st.lists(st.floats(0, 10), max_size=20),
    st.floats(0, 10),
    st.integers(2, 4),
    st.integers(1, 6),
)
def test_as_many_go_on_as_successive_halving_says(values, own, reduction, startup):
    limit = rung_limits(at(3, *values), (3,), PruningSettings(reduction=reduction), startup)[3]
    if len(values) < startup:
        assert limit is None
        return
    together = len(values) + 1
    rank = sum(value < own for value in values)  # 0: the best; equal ones share a rank
    assert (own <= limit) == (rank < max(1, math.floor(together / reduction)))
