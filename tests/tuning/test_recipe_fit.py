import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.laws import Laws, terms
from pipeline.tuning.recipe_fit import (
    Observation,
    fit_laws,
    fixed_setting,
    leave_out,
    near_optimum,
)

GRID = [FactorPair(s, t) for s in (1, 2, 4, 8, 16, 25) for t in (1, 2, 3, 6) if (s, t) != (1, 1)]
IDENTITY = Conservation(scope=Scope.CELL)


def log_beta(_, tried):
    return math.log(tried.beta)


def tuned(pair, beta, context=4, f=IDENTITY, crps=0.1):
    """Give a pair whose trials place the best beta within a few per cent."""
    return Observation(
        pair,
        [
            (ScaleParameters(beta=beta * factor, context=context, conservation=f), crps * (1 + loss))
            for factor, loss in ((1.0, 0.0), (0.97, 0.001), (1.03, 0.001), (4.0, 1.0), (0.25, 1.0))
        ],
    )


def follow(a, b, c, pairs, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return [tuned(pair, math.exp(np.dot((a, b, c), terms(pair)) + noise * rng.normal())) for pair in pairs]


# What the evidence says


def test_a_true_law_is_recovered_and_supported():
    laws = fit_laws(follow(-5.0, 0.4, 0.6, GRID, noise=0.2))
    assert laws.beta.evidence.supported
    assert "23 pairs support a dependence" in laws.beta.evidence.statement
    for slope, (value, low, high) in zip((0.4, 0.6), laws.beta.slopes(), strict=True):
        assert low < slope < high
        assert value == pytest.approx(slope, abs=0.15)
    new = FactorPair(12, 4)
    truth = math.exp(np.dot((-5.0, 0.4, 0.6), terms(new)))
    assert laws.predict(new).parameters.beta == pytest.approx(truth, rel=0.2)


def test_random_betas_support_nothing():
    supported = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        pairs = [GRID[i] for i in rng.choice(len(GRID), 8, replace=False)]
        evidence = fit_laws(follow(-4.0, 0.0, 0.0, pairs, noise=0.5, seed=seed)).beta.evidence
        supported += evidence.supported
        assert ("do not support" in evidence.statement) is not evidence.supported
    assert supported <= 5  # about 2 expected


def test_few_pairs_support_nothing_even_if_they_follow_a_law():
    pairs = [FactorPair(1, 2), FactorPair(25, 6), FactorPair(8, 1), FactorPair(4, 3)]
    evidence = fit_laws(follow(-5.0, 0.4, 0.6, pairs)).beta.evidence
    assert evidence.law_error < 0.8 * evidence.constant_error
    assert not evidence.supported
    assert "4 pairs are too few" in evidence.statement


def test_the_statement_gives_errors_as_factors_for_logarithms_and_as_differences_otherwise():
    pairs, taper = GRID[:6], Conservation(power=0.5, threshold=0.01)
    laws = fit_laws(
        [tuned(pair, 0.01 * (1 + i), f=taper if i % 2 else IDENTITY) for i, pair in enumerate(pairs)]
    )
    beta, power = laws.beta.evidence, laws.power.evidence
    assert f"by x{math.exp(beta.law_error):.2f} with the law" in beta.statement
    assert f"x{math.exp(beta.constant_error):.2f} with a constant" in beta.statement
    assert f"by {power.law_error:.2g} with the law" in power.statement


# From trials to laws


def test_the_interval_narrows_with_pairs_and_widens_away_from_them():
    observations = follow(
        -4, 0.3, 0.2, [FactorPair(4, 2), FactorPair(8, 2), FactorPair(4, 3), FactorPair(2, 3)]
    )
    width = lambda laws, pair: np.ptp(laws.beta.predict(pair))  # noqa: E731
    widths = [width(fit_laws(observations[:n]), FactorPair(5, 2)) for n in (1, 2, 3, 4)]
    assert widths == sorted(widths, reverse=True)
    assert width(fit_laws(observations), FactorPair(50, 12)) > 1.3 * widths[-1]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_pair_is_enough_for_a_proper_prediction(n):
    pairs = [FactorPair(4, 2), FactorPair(8, 1), FactorPair(1, 3)][:n]
    laws = fit_laws([tuned(pair, 0.02) for pair in pairs])
    assert not any(law.evidence.supported for law in (laws.beta, laws.horizon, laws.power, laws.threshold))
    near, far = laws.predict(FactorPair(4, 2)), laws.predict(FactorPair(25, 6))
    assert near.parameters.beta == pytest.approx(0.02, rel=0.35)
    for found in (near, far):
        low, high = found.interval.beta
        assert low < found.parameters.beta < high
    assert np.divide(*far.interval.beta[::-1]) > np.divide(*near.interval.beta[::-1])
    if n == 1:
        assert laws.beta.evidence.law_error is None
        assert "one pair says nothing" in laws.beta.evidence.statement


@given(st.lists(st.sampled_from(GRID), min_size=1, unique=True))
@settings(max_examples=40, deadline=None)
def test_identity_everywhere_predicts_exactly_the_identity(pairs):
    laws = fit_laws([tuned(pair, 0.02) for pair in pairs])
    assert laws.power.coefficients == (1, 0, 0)
    assert laws.threshold.coefficients == (0, 0, 0)
    for pair in (*GRID, FactorPair(1000, 100)):
        assert laws.predict(pair).parameters.conservation == IDENTITY


def test_identity_everywhere_is_said_in_words():
    laws = fit_laws([tuned(pair, 0.02) for pair in GRID[:5]])
    assert laws.power.evidence.statement.startswith("power: 1 at all 5 pairs")
    assert laws.threshold.evidence.statement.startswith("threshold: 0 at all 5 pairs")
    assert laws.beta.evidence.statement.startswith("beta: 0.02 at all 5 pairs")
    assert not laws.power.evidence.supported


def test_a_taper_everywhere_is_learnt():
    taper = Conservation(power=0.6, threshold=0.02, scope=Scope.TILE)
    laws = fit_laws([tuned(pair, 0.02, f=taper) for pair in GRID[::2]])
    found = laws.predict(FactorPair(10, 3)).parameters.conservation
    assert found.power == pytest.approx(0.6, abs=0.03)
    assert found.threshold == pytest.approx(0.02, abs=0.002)
    assert found.scope is Scope.TILE


def test_near_optimal_trials_share_the_say():
    def trial(beta, crps):
        return ScaleParameters(beta=beta, context=4), crps

    pair = FactorPair(4, 2)
    mean, error = near_optimum(
        Observation(pair, [trial(0.01, 0.1), trial(0.04, 0.1), trial(0.2, 0.9)]), log_beta
    )
    assert math.exp(mean) == pytest.approx(0.02)
    assert error**2 == pytest.approx(math.log(2) ** 2 + math.log(2) ** 2 / 2)  # spread, and two that count

    # 2 % above the best counts 1 / e as much
    mean, _ = near_optimum(Observation(pair, [trial(0.01, 0.1), trial(0.04, 0.102)]), log_beta)
    assert mean == pytest.approx(math.log(0.01) + math.log(4) / (1 + math.e))

    mean, error = near_optimum(Observation(pair, [trial(0.03, 0.0), trial(0.1, 1e-3)]), log_beta)
    assert (mean, error) == pytest.approx((math.log(0.03), math.log(2)))  # a best of 0 leaves one


def test_a_flat_optimum_weighs_less():
    sharp = [tuned(pair, 0.02) for pair in GRID[:3]]

    def with_last(trials):
        last = Observation(GRID[5], [(ScaleParameters(beta=beta, context=4), 0.1) for beta in trials])
        return math.exp(fit_laws([*sharp, last]).beta.predict(GRID[5])[0])

    assert with_last([0.095, 0.1, 0.1, 0.1053]) > with_last([0.02, 0.05, 0.2, 0.5]) > 0.02


def test_f_is_the_best_trials_and_scope_that_of_most_near_optimal_ones():
    def trial(f, crps):
        return ScaleParameters(beta=0.02, context=4, conservation=f), crps

    taper = Conservation(power=0.5, threshold=0.01, scope=Scope.TILE)
    observations = [
        Observation(FactorPair(4, 2), [trial(IDENTITY, 0.1), trial(taper, 0.5)]),
        Observation(FactorPair(8, 2), [trial(IDENTITY, 0.1), trial(taper, 0.1001), trial(taper, 0.1001)]),
    ]
    laws = fit_laws(observations)
    assert (laws.power.coefficients, laws.threshold.coefficients) == ((1, 0, 0), (0, 0, 0))
    assert laws.scope is Scope.CELL  # 1 + 1/3 against 2/3
    assert fit_laws(observations[1:]).scope is Scope.TILE


def test_the_horizon_law_keeps_the_horizon():
    observations = [
        tuned(FactorPair(s, t), 0.02, context=12 // t) for s, t in itertools.product((2, 4, 8), (1, 2, 3, 4))
    ]
    laws = fit_laws(observations)
    assert laws.predict(FactorPair(5, 6)).parameters.context == 2
    assert laws.predict(FactorPair(3, 1), max_context=8).parameters.context == 8


def test_leave_out():
    observations = follow(-5.0, 0.4, 0.6, GRID[:5], noise=0.2)
    assert leave_out(observations, GRID[2]) == fit_laws([*observations[:2], *observations[3:]])
    assert leave_out(observations[:1], GRID[0]) is None
    assert leave_out(observations[:1], GRID[1]) == fit_laws(observations[:1])


def test_fixed_setting():
    taper = Conservation(power=0.5, threshold=0.02, scope=Scope.TILE)
    best = {
        FactorPair(4, 1): ScaleParameters(beta=0.01, context=6, conservation=IDENTITY),
        FactorPair(4, 2): ScaleParameters(beta=0.04, context=5, conservation=IDENTITY),
        FactorPair(1, 3): ScaleParameters(beta=0.02, context=2, conservation=taper),
    }
    assert fixed_setting(best) == ScaleParameters(beta=0.02, context=5, conservation=IDENTITY)
    for pair, parameters in best.items():
        assert fixed_setting({pair: parameters}) == parameters


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: Observation(FactorPair(4, 2), []), "4x2: give one complete trial"),
        (lambda: Observation(FactorPair(4, 2), [(ScaleParameters(beta=0.1, context=1), math.nan)]), "finite"),
        (lambda: fit_laws([]), "at least one"),
        (lambda: fit_laws([tuned(FactorPair(4, 2), 0.1)] * 2), "one observation per pair"),
        (lambda: fixed_setting({}), "one tuned pair"),
    ],
)
def test_mistakes_are_refused(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()


PARAMETERS = st.builds(
    ScaleParameters,
    beta=st.floats(2e-4, 0.8),
    context=st.integers(1, 64),
    conservation=st.builds(
        Conservation, power=st.floats(0.1, 1), threshold=st.floats(0, 0.5), scope=st.sampled_from(Scope)
    ),
)
TRIALS = st.lists(st.tuples(PARAMETERS, st.floats(0, 10)), min_size=1, max_size=5)


@given(st.dictionaries(st.sampled_from(GRID), TRIALS, min_size=1, max_size=8), st.sampled_from(GRID))
@settings(max_examples=60, deadline=None)
def test_any_trials_give_laws_that_survive_a_file(trials, new):
    laws = fit_laws([Observation(pair, scored) for pair, scored in trials.items()])
    assert Laws.model_validate(laws.model_dump(mode="json")) == laws
    found = laws.predict(new, max_context=7)
    assert found.parameters.context <= 7
    assert found.interval.beta[0] <= found.parameters.beta <= found.interval.beta[1]
