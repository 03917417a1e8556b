import pytest

from pipeline import FactorPair, ScaleParameters
from pipeline.prior import PUBLISHED, paper_prior
from search_spaces.scale_adaptive import TAPER, first_trials, suggest

PAIRS = [
    *PUBLISHED,
    *(FactorPair(s, t) for s in (1, 2, 4, 16, 50) for t in (1, 2, 3, 6, 24) if (s, t) != (1, 1)),
]


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


@pytest.mark.parametrize("max_context", [1, 2, 3, 4, 16, 200])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_first_points_lie_in_the_ranges(pair, max_context):
    points = first_trials(pair, max_context)
    assert len({tuple(point.items()) for point in points}) == len(points)
    for point in points:
        trial = Recorder(point)
        parameters = suggest(trial, pair, max_context)
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


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_first_point_is_the_papers(pair):
    prior = paper_prior(pair)
    point = first_trials(pair, 200)[0]
    assert suggest(Recorder(point), pair, 200) == prior
    shorter = suggest(Recorder(first_trials(pair, 2)[0]), pair, 2)
    assert shorter == prior.model_copy(update={"context": min(prior.context, 2)})


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("end", [0, 1])
def test_both_ends_of_every_range_are_valid(pair, end):
    trial = Recorder(first_trials(pair, 16)[0])
    suggest(trial, pair, 16)
    extreme = {name: bounds[-end] for name, bounds in trial.ranges.items()} | {"f": TAPER}
    assert isinstance(suggest(Recorder(extreme), pair, 16), ScaleParameters)


def test_ranges_are_centred_on_the_prior():
    pair = FactorPair(10, 3)
    trial = Recorder(first_trials(pair, 16)[0])
    suggest(trial, pair, 16)
    low, high = trial.ranges["beta"]
    assert (low * high) ** 0.5 == pytest.approx(paper_prior(pair).beta)
    assert sum(trial.ranges["context"]) / 2 == paper_prior(pair).context
