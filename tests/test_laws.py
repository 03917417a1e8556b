import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import FactorPair, ScaleParameters, Scope
from pipeline.laws import Evidence, Law, Laws, ParameterInterval
from pipeline.prior import BETA_RANGE

EVIDENCE = Evidence(supported=False, statement="made up")
NO_SCALE = ((0.0, 0.0, 0.0),) * 3

PAIRS = st.builds(lambda s, t: FactorPair(s, t + (s == t == 1)), st.integers(1, 10**9), st.integers(1, 10**9))


def law(a, b=0.0, c=0.0, noise=1e-9, scale=NO_SCALE, freedom=8.0):
    return Law(
        coefficients=(a, b, c), scale=scale, noise=noise, degrees_of_freedom=freedom, n=4, evidence=EVIDENCE
    )


def laws(beta=None, horizon=None, power=None, threshold=None):
    return Laws(
        beta=beta or law(math.log(0.02)),
        horizon=horizon or law(math.log(12)),
        power=power or law(1.0),
        threshold=threshold or law(0.0),
        scope=Scope.CELL,
    )


def test_a_law_is_linear_in_the_logarithms():
    value, _, _ = law(-4.0, 0.3, 0.7).predict(FactorPair(10, 3))
    assert value == pytest.approx(-4 + 0.3 * math.log(10) + 0.7 * math.log(3))


def test_the_interval_is_student_t():
    """Against draws: (a, b, c) and the departure share one chi-square."""
    rng = np.random.default_rng(3)
    root = np.array([[0.5, 0, 0], [-0.1, 0.2, 0], [0.05, 0.1, 0.3]])
    scale = root @ root.T
    one = law(-4.0, 0.3, 0.7, noise=0.4, scale=scale.tolist(), freedom=5.0)
    chi = np.sqrt(5 / rng.chisquare(5, 400_000))
    drawn = np.array([-4.0, 0.3, 0.7]) + chi[:, None] * (rng.normal(size=(400_000, 3)) @ root.T)
    y = drawn @ [1, math.log(8), math.log(2)] + 0.4 * chi * rng.normal(size=400_000)
    _, low, high = one.predict(FactorPair(8, 2))
    assert np.mean((low < y) & (y < high)) == pytest.approx(0.9, abs=0.003)
    assert np.mean(y < low) == pytest.approx(0.05, abs=0.003)
    for i, (slope, low, high) in enumerate(one.slopes(), start=1):
        exact = scipy.stats.t(5, loc=one.coefficients[i], scale=math.sqrt(scale[i, i])).interval(0.9)
        assert (low, high) == pytest.approx(exact)
        assert slope == one.coefficients[i]


def test_parameters_from_the_laws():
    found = laws(beta=law(math.log(0.01), 0.5), horizon=law(math.log(10), 0, 0.2)).predict(FactorPair(4, 3))
    assert found.parameters.beta == 0.02  # 0.01 * sqrt(4)
    assert found.parameters.context == 4  # 10 * 3^0.2 = 12.5 fine frames, 4.15 coarse ones
    assert str(found.parameters.conservation) == "x, cell"
    assert found.interval == ParameterInterval(beta=(0.02, 0.02), context=(4, 4))


def test_the_interval_is_on_the_scale_of_the_values():
    noise, t95 = 0.3, scipy.stats.t(8).ppf(0.95)
    found = laws(beta=law(math.log(0.02), noise=noise), horizon=law(math.log(12), noise=noise)).predict(
        FactorPair(4, 2)
    )
    factor = math.exp(t95 * noise)
    assert found.interval.beta == pytest.approx((0.02 / factor, 0.02 * factor), rel=5e-3)
    assert found.interval.context == (round(6 / factor), round(6 * factor))


def test_a_tiny_departure_from_the_identity_is_rounded_away():
    found = laws(power=law(1.0000001), threshold=law(1e-6)).predict(FactorPair(4, 2))
    assert (found.parameters.conservation.power, found.parameters.conservation.threshold) == (1.0, 0.0)


def test_context_stays_within_what_the_data_allow():
    found = laws(horizon=law(math.log(24), noise=0.5)).predict(FactorPair(4, 2), max_context=5)
    assert found.parameters.context == 5
    assert found.interval.context[1] == 5
    assert laws().predict(FactorPair(4, 48)).parameters.context == 1


COEFFICIENT = st.floats(-50, 50)


@given(PAIRS, st.lists(st.tuples(COEFFICIENT, COEFFICIENT, COEFFICIENT), min_size=4, max_size=4))
def test_any_pair_gives_valid_parameters(pair, coefficients):
    found = laws(*(law(*abc, noise=0.5) for abc in coefficients)).predict(pair)
    assert ScaleParameters.model_validate(found.parameters.model_dump()) == found.parameters
    (low, high), (shortest, longest) = found.interval.beta, found.interval.context
    assert BETA_RANGE[0] <= low <= found.parameters.beta <= high <= BETA_RANGE[1]
    assert 1 <= shortest <= found.parameters.context <= longest


@pytest.mark.parametrize(
    ("beta", "context"),
    [((0.03, 0.02), (2, 3)), ((0, 0.1), (2, 3)), ((0.01, 0.1), (0, 3)), ((0.01, 0.1), (4, 3))],
)
def test_an_interval_has_two_ends_in_order(beta, context):
    with pytest.raises(ValidationError, match=r"give \[low, high\]"):
        ParameterInterval(beta=beta, context=context)


def test_the_statements_are_those_of_the_laws():
    assert laws().statements == ("made up",) * 4
