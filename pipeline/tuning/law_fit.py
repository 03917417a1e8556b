"""One scaling law, y = a + b log s + c log tau, fitted to tuned pairs and judged at pairs left out.

Bayesian linear regression with the conjugate normal-inverse-gamma prior (Gelman et al., Bayesian Data
Analysis, 3rd ed., sections 14.2 and 14.8): proper from the first pair on, and close to least squares once the
pairs are many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.factors import FactorPair
from pipeline.laws import Evidence, Law, terms
from pipeline.prior import PUBLISHED

SUPPORT_PAIRS = 5
"""Fewest pairs that can support a law: its three coefficients, one pair left out, and one to spare."""

SUPPORT_MARGIN = 0.8
"""A supported law's error at left-out pairs is below this share of a constant's. Simulated betas that do not
depend on the pair pass in 5 of 100 sweeps of five pairs if they scatter by x1.35, in 15 if by x1.8; of eight
pairs, in 2 and in 5."""

_PRIOR_FREEDOM = 4.0  # degrees of freedom of the noise's prior: four pairs of data outweigh it


@dataclass(frozen=True)
class Prior:
    """What is assumed of one quantity before any pair is tuned.

    Attributes
    ----------
    name : str
    mean : tuple of 3 floats
        Of (a, b, c).
    level : float
        Standard deviation of the quantity at the centre of the published pairs, near 7x3.
    slope : float
        Standard deviation of b and of c.
    noise : float
        Scale of a pair's own departure from the law.
    ratio : bool
        Whether the quantity is a logarithm, and its errors are factors.
    """

    name: str
    mean: tuple[float, float, float]
    level: float
    slope: float
    noise: float
    ratio: bool


def fit_law(
    prior: Prior, pairs: Sequence[FactorPair], values: Sequence[float], errors: Sequence[float]
) -> Law:
    """Fit one law and judge it at left-out pairs.

    Parameters
    ----------
    prior : Prior
    pairs : sequence of FactorPair
    values : sequence of float
        The quantity at each pair.
    errors : sequence of float
        Standard error of each value, on top of the pair's own departure from the law.
    """
    x = np.array([terms(pair) for pair in pairs])
    y = np.array(values, dtype=float)
    v = 1 + (np.array(errors) / prior.noise) ** 2  # variance of each value over that of the law's noise
    law_misses, constant_misses = [], []
    for i in range(len(y) if len(y) > 1 else 0):
        others = np.arange(len(y)) != i
        coefficients = _posterior(prior, x[others], y[others], v[others])[0]
        law_misses.append(float(x[i] @ coefficients - y[i]))
        constant_misses.append(float(np.average(y[others], weights=1 / v[others]) - y[i]))

    coefficients, scale, noise, freedom = _posterior(prior, x, y, v)
    law = Law(
        coefficients=coefficients.tolist(),
        scale=scale.tolist(),
        noise=noise,
        degrees_of_freedom=freedom,
        n=len(y),
        evidence=Evidence(supported=False, statement="not judged yet"),
    )
    return law.model_copy(update={"evidence": _judge(prior, law, y, law_misses, constant_misses)})


def _posterior(
    prior: Prior, x: np.ndarray, y: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Give mean and scale matrix of (a, b, c), scale of the noise, and degrees of freedom.

    The model is y ~ N(x w, sigma^2 diag(v)), w ~ N(m, sigma^2 S), sigma^2 ~ scaled inverse chi-square. In
    this form (an n x n system, not a 3 x 3 one) data that agree with the prior leave its mean exactly as it
    was: pairs whose best f is the identity predict the identity.
    """
    m, S = np.array(prior.mean), _prior_covariance(prior) / prior.noise**2
    expected = np.diag(v) + x @ S @ x.T  # (n, n) covariance of y before it is seen, over sigma^2
    surprise = y - x @ m
    gain = np.linalg.solve(expected, x @ S).T  # (3, n)
    freedom = _PRIOR_FREEDOM + len(y)
    squares = _PRIOR_FREEDOM * prior.noise**2 + float(surprise @ np.linalg.solve(expected, surprise))
    variance = squares / freedom
    left = S - gain @ x @ S
    return m + gain @ surprise, variance * (left + left.T) / 2, math.sqrt(variance), freedom


def _prior_covariance(prior: Prior) -> np.ndarray:
    """Give the (3, 3) covariance of (a, b, c); level and slopes are independent at the published centre."""
    _, log_s, log_tau = np.mean([terms(pair) for pair in PUBLISHED], axis=0)
    from_centre = np.array([[1.0, -log_s, -log_tau], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(from_centre @ np.diag([prior.level**2, prior.slope**2, prior.slope**2]) @ from_centre.T)


def _judge(
    prior: Prior, law: Law, y: np.ndarray, law_misses: list[float], constant_misses: list[float]
) -> Evidence:
    """Say whether the pairs support the law, and in which words."""
    n = len(y)
    if n == 1:
        words = f"{prior.name}: one pair says nothing about the factors; its slopes are those assumed before"
        return Evidence(supported=False, statement=words)
    law_error, constant_error = (
        math.sqrt(sum(miss**2 for miss in misses) / n) for misses in (law_misses, constant_misses)
    )
    if np.ptp(y) < 1e-9:
        value = math.exp(y[0]) if prior.ratio else y[0]
        words = f"{prior.name.removeprefix('log ')}: {value:.3g} at all {n} pairs, whatever their factors"
        return Evidence(law_error=law_error, constant_error=constant_error, supported=False, statement=words)
    supported = n >= SUPPORT_PAIRS and law_error < SUPPORT_MARGIN * constant_error
    on_s, on_tau = (f"{b:.2g} [{low:.2g}, {high:.2g}]" for b, low, high in law.slopes())
    with_law, with_constant = (
        f"x{math.exp(error):.2f}" if prior.ratio else f"{error:.2g}" for error in (law_error, constant_error)
    )
    if supported:
        verdict = f"{n} pairs support a dependence on the factors"
    elif n < SUPPORT_PAIRS:
        verdict = f"{n} pairs are too few to support a dependence on the factors ({SUPPORT_PAIRS} can)"
    else:
        verdict = f"{n} pairs do not support a dependence on the factors"
    return Evidence(
        law_error=law_error,
        constant_error=constant_error,
        supported=supported,
        statement=f"{prior.name}: slopes {on_s} on log s and {on_tau} on log tau; left-out pairs are missed "
        f"by {with_law} with the law and {with_constant} with a constant: {verdict}",
    )
