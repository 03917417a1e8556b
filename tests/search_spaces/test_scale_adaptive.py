import warnings

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.laws import ParameterInterval
from pipeline.prior import PUBLISHED, paper_prior
from pipeline.recipe import Origin, Recipe, RecipeEntry
from search_spaces.scale_adaptive import TAPER, beta_range, context_range, first_trials, suggest

PAIRS = [
    *PUBLISHED,
    *(FactorPair(s, t) for s in (1, 2, 4, 16, 50) for t in (1, 2, 3, 6, 24) if (s, t) != (1, 1)),
]
PAIR = FactorPair(10, 3)  # the prior: beta 0.02, L 5
IDENTITY_PER_CELL = Conservation(scope=Scope.CELL)


def paper(pair):
    return Recipe().entry(pair)


def known(origin, beta=0.02, context=5, f=IDENTITY_PER_CELL, interval=None, pair=PAIR):
    parameters = ScaleParameters(beta=beta, context=context, conservation=f)
    if interval:
        interval = ParameterInterval(beta=interval[0], context=interval[1])
    return RecipeEntry(pair=pair, parameters=parameters, origin=origin, interval=interval)


class Recorder:
    """Gives a point's values as an Optuna trial would, and remembers the range each was asked in."""

    def __init__(self, point):
        self.point, self.ranges = point, {}

    def suggest_float(self, name, low, high, *, log=False):
        assert low <= high
        assert low > 0 or not log
        self.ranges[name] = (low, high)
        return self.point[name]

    def suggest_int(self, name, low, high):
        return self.suggest_float(name, low, high)

    def suggest_categorical(self, name, choices):
        self.ranges[name] = choices
        return self.point[name]


def check_first_points(entry, max_context):
    """Every first point is accepted, differs from the others, and comes back as it was given."""
    points = first_trials(entry, max_context)
    assert all(points[i] != points[j] for i in range(len(points)) for j in range(i))
    choices = []
    for point in points:
        trial = Recorder(point)
        parameters = suggest(trial, entry, max_context)
        assert trial.ranges.keys() == point.keys()
        for name, bounds in trial.ranges.items():
            if name in ("scope", "f"):
                assert point[name] in bounds
            else:
                assert bounds[0] <= point[name] <= bounds[1], (name, point[name], bounds)
        assert 1 <= trial.ranges["context"][0] <= trial.ranges["context"][1] <= max_context
        assert parameters.beta == point["beta"]
        assert parameters.context == point["context"]
        assert parameters.conservation.model_dump(mode="json") == {
            "power": point.get("power", 1.0),
            "threshold": point.get("threshold", 0.0),
            "scope": point["scope"],
        }
        choices.append((trial.ranges["scope"], trial.ranges["f"]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna only warns of values out of range
            assert suggest(optuna.trial.FixedTrial(point), entry, max_context) == parameters
    assert all(choice == choices[0] for choice in choices)  # Optuna allows no others within a study
    prior = paper_prior(entry.pair)
    assert suggest(Recorder(points[0]), entry, max_context) == prior.model_copy(
        update={"context": min(prior.context, max_context)}
    )
    return points


@pytest.mark.parametrize("max_context", [1, 2, 3, 4, 16, 200])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_first_points_lie_in_the_ranges(pair, max_context):
    points = check_first_points(paper(pair), max_context)
    prior = paper_prior(pair)
    start = {"beta": prior.beta, "context": min(prior.context, max_context)}
    f = {"power": prior.conservation.power, "threshold": prior.conservation.threshold}
    assert points == [
        start | {"scope": "tile", "f": "taper"} | f,
        start | {"scope": "cell", "f": "identity"},
    ]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("end", [0, 1])
def test_both_ends_of_every_range_are_valid(pair, end):
    for entry in (
        paper(pair),
        known(Origin.TUNED, beta=0.9, context=200, pair=pair),
        known(Origin.TUNED, beta=1.1e-4, context=1, pair=pair),
        known(Origin.PREDICTED, beta=0.1, interval=((0.001, 0.2), (1, 200)), pair=pair),
    ):
        trial = Recorder(first_trials(entry, 16)[0])
        suggest(trial, entry, 16)
        extreme = {name: bounds[-end] for name, bounds in trial.ranges.items()} | {"f": TAPER}
        assert isinstance(suggest(Recorder(extreme), entry, 16), ScaleParameters)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_without_a_recipe_ranges_are_centred_on_the_prior(pair):
    prior = paper_prior(pair)
    assert beta_range(paper(pair)) == pytest.approx((prior.beta / 4, prior.beta * 4))
    assert context_range(paper(pair), 200) == (max(1, prior.context - 2), prior.context + 2)
    assert context_range(paper(pair), 1) == (1, 1)
    trial = Recorder(first_trials(paper(pair), 16)[0])
    suggest(trial, paper(pair), 16)
    assert trial.ranges["power"] == (0.4, 1.0)
    assert trial.ranges["threshold"] == (0.0, 2 * prior.conservation.threshold)


@pytest.mark.parametrize(
    ("entry", "beta", "context"),
    [
        (known(Origin.TUNED), (0.01, 0.04), (4, 6)),
        (known(Origin.TUNED, beta=0.03, context=6), (0.015, 0.06), (5, 7)),
        (known(Origin.TUNED, beta=0.1, context=9), (0.02, 0.2), (5, 10)),  # down to the prior
        (known(Origin.TUNED, beta=0.005, context=2), (0.0025, 0.02), (1, 5)),  # up to the prior
        (known(Origin.PREDICTED, interval=((0.012, 0.03), (4, 7))), (0.012, 0.03), (4, 7)),
        (known(Origin.PREDICTED, interval=((0.001, 0.2), (1, 40))), (0.005, 0.08), (3, 7)),  # no wider
        (known(Origin.PREDICTED, interval=((0.02, 0.02), (5, 5))), (0.016, 0.025), (4, 6)),  # no point
        (known(Origin.PREDICTED, 0.05, 8, interval=((0.03, 0.08), (7, 9))), (0.02, 0.08), (5, 9)),
        (known(Origin.PREDICTED), (0.005, 0.08), (3, 7)),  # written by hand, without an interval
    ],
)  # fmt: skip
def test_a_recipe_narrows_the_ranges(entry, beta, context):
    assert beta_range(entry) == pytest.approx(beta)
    assert context_range(entry, 16) == context


def test_the_prior_comes_first_and_the_recipe_second():
    entry = known(Origin.TUNED, beta=0.013, context=7, f=Conservation(power=0.7, threshold=0.05))
    points = check_first_points(entry, 6)
    assert [point["beta"] for point in points] == [0.02, 0.013, 0.02]
    assert points[1] == {
        "beta": 0.013, "context": 6, "scope": "tile", "f": "taper", "power": 0.7, "threshold": 0.05
    }  # fmt: skip
    assert points[2] == {"beta": 0.02, "context": 5, "scope": "cell", "f": "identity"}


def test_the_same_point_is_not_tried_twice():
    assert len(check_first_points(known(Origin.TUNED), 16)) == 2  # the prior without taper, already
    prior = paper_prior(PAIR)
    as_prior = known(Origin.PREDICTED, prior.beta, prior.context, prior.conservation)
    assert check_first_points(as_prior, 16) == first_trials(paper(PAIR), 16)


INTERVAL = st.none() | st.tuples(
    st.lists(st.floats(1e-3, 0.2), min_size=2, max_size=2).map(sorted).map(tuple),
    st.lists(st.integers(1, 256), min_size=2, max_size=2).map(sorted).map(tuple),
)


@given(
    st.builds(
        known,
        st.sampled_from([Origin.TUNED, Origin.PREDICTED]),
        st.floats(1.1e-4, 0.99),
        st.integers(1, 256),
        st.builds(
            Conservation, power=st.floats(0.01, 1), threshold=st.floats(0, 0.9), scope=st.sampled_from(Scope)
        ),
        INTERVAL,
        st.sampled_from(PAIRS),
    ),
    st.integers(1, 64),
)
@settings(deadline=None)
def test_any_entry_gives_a_space_that_holds_its_first_points(entry, max_context):
    points = check_first_points(entry, max_context)
    own = {"beta": entry.parameters.beta, "context": min(entry.parameters.context, max_context)}
    assert any(own.items() <= point.items() for point in points)
    low, high = beta_range(entry)
    assert low < high
    assert max_context == 1 or len(set(context_range(entry, max_context))) == 2
