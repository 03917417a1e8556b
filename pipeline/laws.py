"""Scaling laws: what beta, L and f become at a factor pair that was never tuned, and how sure that is.

Four quantities follow a law each: log beta, the log of the horizon L * tau (in fine frames), the power p and
the threshold theta of the taper. A law is linear in log s and log tau,

    y(s, tau) = a + b log s + c log tau + noise,

and is kept as the posterior that `pipeline.tuning.law_fit` finds: (a, b, c) follow a multivariate Student-t
distribution, and so does y at a new pair. The scope of f is one word for all pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.factors import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.prior import BETA_RANGE

LEVEL = 0.9
"""Probability that an interval holds."""

Estimate = tuple[float, float, float]
"""A value and the two ends of its interval."""

_LONGEST_CONTEXT = 256  # the most that ScaleParameters takes
_POWER_RANGE = (0.3, 1.0)  # the published powers are 0.5 and 1; below 0.3 extremes are all but gone
_THRESHOLD_RANGE = (0.0, 0.1)  # the largest published threshold is 0.04


class _Stored(BaseModel):
    """Base of what recipe files hold: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Evidence(_Stored):
    """What the tuned pairs say for a law.

    Attributes
    ----------
    law_error, constant_error : float or None
        Root-mean-square error at pairs that were left out of the fit, in the units of the law's quantity: of
        the law, and of the mean of the other pairs. None if a single pair was tuned.
    supported : bool
        Whether the pairs are enough, and the law misses left-out pairs by clearly less than a constant does.
    statement : str
        The same in a sentence.
    """

    law_error: float | None = Field(None, ge=0)
    constant_error: float | None = Field(None, ge=0)
    supported: bool
    statement: str


class Law(_Stored):
    """One quantity as a function of the factor pair.

    Attributes
    ----------
    coefficients : tuple of 3 floats
        (a, b, c).
    scale : tuple of 3 tuples of 3 floats
        Scale matrix of their Student-t distribution.
    noise : float
        Scale of a pair's own departure from the law.
    degrees_of_freedom : float
        Of the Student-t distribution.
    n : int
        Pairs that the law was fitted to.
    evidence : Evidence
    """

    coefficients: tuple[float, float, float]
    scale: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
    noise: float = Field(gt=0)
    degrees_of_freedom: float = Field(gt=0)
    n: int = Field(ge=1)
    evidence: Evidence

    def predict(self, pair: FactorPair) -> Estimate:
        """Give the quantity at a pair, and the interval that holds the pair's own value 9 times in 10."""
        return self._estimate(terms(pair), self.noise**2)

    def slopes(self) -> tuple[Estimate, Estimate]:
        """Give b and c with their 90 % intervals."""
        return self._estimate((0.0, 1.0, 0.0), 0.0), self._estimate((0.0, 0.0, 1.0), 0.0)

    def _estimate(self, x: tuple[float, float, float], variance: float) -> Estimate:
        """Give x . (a, b, c) and its interval, with a variance of its own added."""
        from scipy.special import stdtrit  # here and not above, so that `--help` stays quick

        value = math.fsum(c * t for c, t in zip(self.coefficients, x, strict=True))
        spread = variance + math.fsum(x[i] * self.scale[i][j] * x[j] for i in range(3) for j in range(3))
        half = float(stdtrit(self.degrees_of_freedom, (1 + LEVEL) / 2)) * math.sqrt(max(spread, 0.0))
        return value, value - half, value + half


class ParameterInterval(_Stored):
    """Between which values beta and L of a pair lie, as far as its laws can tell."""

    beta: tuple[float, float]
    context: tuple[int, int]

    @model_validator(mode="after")
    def _in_order(self) -> ParameterInterval:
        if not 0 < self.beta[0] <= self.beta[1] < 1:
            raise ValueError(f"interval of beta {list(self.beta)}: give [low, high] between 0 and 1")
        if not 1 <= self.context[0] <= self.context[1]:
            raise ValueError(f"interval of context {list(self.context)}: give [low, high] from 1 on")
        return self

    def __str__(self) -> str:
        return f"beta {self.beta[0]:.3g} to {self.beta[1]:.3g}, L {self.context[0]} to {self.context[1]}"


@dataclass(frozen=True)
class Prediction:
    """What the laws give for a pair."""

    pair: FactorPair
    parameters: ScaleParameters
    interval: ParameterInterval


class Laws(_Stored):
    """The laws of all scale parameters.

    Attributes
    ----------
    beta : Law
        Of log beta.
    horizon : Law
        Of log(L * tau), L * tau in fine frames.
    power, threshold : Law
        Of p and theta in f(x) = max(x^p - theta, 0).
    scope : Scope
        Of the conserved amount, at every pair.
    """

    beta: Law
    horizon: Law
    power: Law
    threshold: Law
    scope: Scope

    @property
    def statements(self) -> tuple[str, ...]:
        """What the data say for each law, a sentence each."""
        return tuple(law.evidence.statement for law in (self.beta, self.horizon, self.power, self.threshold))

    def predict(self, pair: FactorPair, max_context: int | None = None) -> Prediction:
        """Give the parameters of any pair, and the interval of beta and L.

        Parameters
        ----------
        pair : FactorPair
        max_context : int, optional
            Largest L that the data allow.

        Returns
        -------
        Prediction
            beta is the law's median, inside the range that the paper's prior keeps to as well; L is the
            horizon over tau, whole and at least 1.
        """
        longest = min(max_context or _LONGEST_CONTEXT, _LONGEST_CONTEXT)
        beta = [_beta(value) for value in self.beta.predict(pair)]
        context = [_context(value, pair, longest) for value in self.horizon.predict(pair)]
        power = _clip(self.power.predict(pair)[0], *_POWER_RANGE)
        threshold = _clip(self.threshold.predict(pair)[0], *_THRESHOLD_RANGE)
        f = Conservation(power=round(power, 3), threshold=round(threshold, 4), scope=self.scope)
        return Prediction(
            pair,
            ScaleParameters(beta=beta[0], context=context[0], conservation=f),
            ParameterInterval(beta=(beta[1], beta[2]), context=(context[1], context[2])),
        )


def terms(pair: FactorPair) -> tuple[float, float, float]:
    """Give (1, log s, log tau), which a law's coefficients multiply."""
    return 1.0, math.log(pair.space), math.log(pair.time)


def _beta(log_beta: float) -> float:
    low, high = BETA_RANGE
    return float(f"{math.exp(_clip(log_beta, math.log(low), math.log(high))):.3g}")


def _context(log_horizon: float, pair: FactorPair, longest: int) -> int:
    return round(math.exp(_clip(log_horizon - math.log(pair.time), 0.0, math.log(longest))))


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
