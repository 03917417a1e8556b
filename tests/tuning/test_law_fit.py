import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from pipeline import FactorPair
from pipeline.laws import terms
from pipeline.prior import PUBLISHED
from pipeline.tuning.law_fit import Prior, fit_law
from pipeline.tuning.recipe_fit import BETA, HORIZON, POWER, THRESHOLD

GRID = [FactorPair(s, t) for s in (1, 2, 4, 8, 16, 25) for t in (1, 2, 3, 6) if (s, t) != (1, 1)]


def test_the_prior_mean_is_the_least_squares_plane():
    x = np.array([terms(pair) for pair in PUBLISHED])
    for prior, y in (
        (BETA, [math.log(known.beta) for known in PUBLISHED.values()]),
        (HORIZON, [math.log(known.context * pair.time) for pair, known in PUBLISHED.items()]),
    ):
        residual = np.array(y) - x @ prior.mean
        assert x.T @ residual == pytest.approx([0, 0, 0], abs=1e-12)
        assert np.abs(residual).max() < 0.35
    assert (POWER.mean, THRESHOLD.mean) == ((1, 0, 0), (0, 0, 0))


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("prior", [BETA, THRESHOLD], ids=lambda prior: prior.name)
def test_the_prediction_is_the_conditional_of_a_multivariate_t(n, prior):
    """Of (y_1 ... y_n, y_new) together, as the prior gives it: another road to the posterior."""
    rng = np.random.default_rng(n)
    pairs, new = [GRID[i] for i in rng.choice(len(GRID), n, replace=False)], FactorPair(10, 4)
    x = np.array([terms(pair) for pair in [*pairs, new]])
    errors = rng.uniform(0, 2, n) * prior.noise
    y = x[:n] @ prior.mean + rng.normal(size=n) * 3 * prior.noise

    centre = np.mean([terms(pair) for pair in PUBLISHED], axis=0)
    at_centre = x - np.array([0, *centre[1:]])
    coefficients = at_centre @ np.diag([prior.level**2, prior.slope**2, prior.slope**2]) @ at_centre.T
    shape = coefficients + np.diag([*(prior.noise**2 + errors**2), prior.noise**2])
    together = scipy.stats.multivariate_t(loc=x @ prior.mean, shape=shape, df=4)
    alone = scipy.stats.multivariate_t(loc=x[:n] @ prior.mean, shape=shape[:n, :n], df=4)

    value, low, high = fit_law(prior, pairs, y, errors).predict(new)
    density = lambda at: together.pdf([*y, at]) / alone.pdf(y)  # noqa: E731
    width = high - low
    inside = scipy.integrate.quad(density, low, high)[0]
    below = scipy.integrate.quad(density, low - 200 * width, low, points=[low - 5 * width], limit=200)[0]
    assert inside == pytest.approx(0.9, abs=1e-5)
    assert below == pytest.approx(0.05, abs=1e-4)
    assert low < value < high


def test_a_vague_prior_gives_weighted_least_squares():
    rng = np.random.default_rng(1)
    pairs = [FactorPair(s, t) for s in range(1, 26) for t in range(2, 13)]
    x = np.array([terms(pair) for pair in pairs])
    errors = rng.uniform(0, 0.6, len(pairs))
    y = x @ [-2.0, 0.5, -0.4] + np.hypot(BETA.noise, errors) * rng.normal(size=len(pairs))
    root = 1 / np.hypot(BETA.noise, errors)
    wls = np.linalg.lstsq(x * root[:, None], y * root)[0]
    vague = Prior("q", (0.0, 0.0, 0.0), 1e3, 1e3, BETA.noise, ratio=True)
    law = fit_law(vague, pairs, y, errors)
    assert law.coefficients == pytest.approx(wls, rel=1e-4)
    assert law.noise == pytest.approx(BETA.noise, rel=0.1)


def test_intervals_cover():
    """Truths drawn from the prior lie in the 90 % interval in 90 of 100 cases, from one pair on."""
    rng = np.random.default_rng(7)
    centre = np.array([0, *np.mean([terms(pair) for pair in PUBLISHED], axis=0)[1:]])
    covered, cases = 0, 1500
    for case in range(cases):
        n = 1 + case % 6
        sigma = BETA.noise * math.sqrt(4 / rng.chisquare(4))
        deviation = rng.normal(size=3) * [BETA.level, BETA.slope, BETA.slope] * (sigma / BETA.noise)
        pairs = [GRID[i] for i in rng.choice(len(GRID), n + 1, replace=False)]
        x = np.array([terms(pair) for pair in pairs])
        y = x @ BETA.mean + (x - centre) @ deviation + sigma * rng.normal(size=n + 1)
        _, low, high = fit_law(BETA, pairs[:n], y[:n], [0.0] * n).predict(pairs[n])
        covered += low < y[n] < high
    assert covered / cases == pytest.approx(0.9, abs=0.025)  # 3 standard deviations


def test_the_order_of_the_pairs_does_not_matter():
    pairs, y = GRID[:6], [-4.0, -3.5, -4.2, -3.0, -3.9, -4.4]
    one, other = fit_law(BETA, pairs, y, [0.1] * 6), fit_law(BETA, pairs[::-1], y[::-1], [0.1] * 6)
    assert one.coefficients == pytest.approx(other.coefficients)
    assert one.evidence.law_error == pytest.approx(other.evidence.law_error)


def test_left_out_errors_are_those_of_fits_without_the_pair():
    pairs, y, errors = GRID[:4], [-4.0, -3.5, -4.2, -3.0], [0.1, 0.5, 0.2, 0.0]
    law_misses, constant_misses = [], []
    for i in range(4):
        rest = [j for j in range(4) if j != i]
        law = fit_law(BETA, [pairs[j] for j in rest], [y[j] for j in rest], [errors[j] for j in rest])
        law_misses.append(law.predict(pairs[i])[0] - y[i])
        weights = [1 / (BETA.noise**2 + errors[j] ** 2) for j in rest]
        constant_misses.append(
            sum(w * y[j] for w, j in zip(weights, rest, strict=True)) / sum(weights) - y[i]
        )
    evidence = fit_law(BETA, pairs, y, errors).evidence
    assert evidence.law_error == pytest.approx(math.sqrt(np.mean(np.square(law_misses))))
    assert evidence.constant_error == pytest.approx(math.sqrt(np.mean(np.square(constant_misses))))


def test_a_prior_of_ones_own():
    """A sharp prior is not moved by one pair; a vague one follows it."""
    sharp, vague = (Prior("q", (0.0, 0.0, 0.0), sd, 1e-3, 0.1, ratio=False) for sd in (1e-3, 100.0))
    assert abs(fit_law(sharp, GRID[:1], [5.0], [0.0]).predict(GRID[0])[0]) < 0.01
    assert fit_law(vague, GRID[:1], [5.0], [0.0]).predict(GRID[0])[0] == pytest.approx(5.0, rel=1e-3)
