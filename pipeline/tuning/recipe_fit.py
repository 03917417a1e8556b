"""Learning the recipe: scaling laws over factor pairs, fitted to the trials of a sweep.

What enters a law is where the optimum of each pair lies, and how sharply its trials place it; `law_fit` does
the regression. A law that does not foretell left-out pairs better than their mean does is not supported, and
its statement says so.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.factors import FactorPair, ScaleParameters, Scope
from pipeline.laws import Laws, terms
from pipeline.prior import PUBLISHED
from pipeline.tuning.law_fit import Prior, fit_law

TOLERANCE = 0.02
"""A trial whose CRPS is so much (relatively) above the best one's counts 1/e as much: about the noise of a
score on a few dozen windows with one training seed."""


@dataclass(frozen=True)
class Observation:
    """The scored trials of one pair.

    Attributes
    ----------
    pair : FactorPair
    trials : sequence of (ScaleParameters, float)
        Complete trials with their CRPS.

    Raises
    ------
    ValueError
        If there is no trial, or a CRPS is not a number.
    """

    pair: FactorPair
    trials: Sequence[tuple[ScaleParameters, float]]

    def __post_init__(self) -> None:
        if not self.trials or not all(math.isfinite(crps) for _, crps in self.trials):
            raise ValueError(f"{self.pair}: give one complete trial at least, each with a finite CRPS")


def _published_plane(quantity: Callable[[FactorPair, ScaleParameters], float]) -> tuple[float, float, float]:
    """Give the least-squares (a, b, c) through the paper's four points."""
    x = np.array([terms(pair) for pair in PUBLISHED])
    y = np.array([quantity(pair, known) for pair, known in PUBLISHED.items()])
    a, b, c = np.linalg.lstsq(x, y)[0].tolist()
    return a, b, c


# The slopes are the paper's, the level is left open by a factor of e: other data, another network or a
# standardised residual move beta and L at all pairs alike. A slope of 0.5 more or less is a factor of 3
# between 1x3 and 10x3, more than the paper's values differ.
BETA = Prior("log beta", _published_plane(lambda _, known: math.log(known.beta)), 1.0, 0.5, 0.3, ratio=True)
HORIZON = Prior(
    "log horizon",
    _published_plane(lambda pair, known: math.log(known.context * pair.time)),
    1.0, 0.5, 0.3, ratio=True,
)  # fmt: skip
# f is the identity unless trials say otherwise. The published tapers are no guide: they compress at the small
# factors, where the abstract asks for it at the large ones (specification, section 5).
POWER = Prior("power", (1.0, 0.0, 0.0), 0.3, 0.1, 0.1, ratio=False)
THRESHOLD = Prior("threshold", (0.0, 0.0, 0.0), 0.02, 0.007, 0.007, ratio=False)

_SINGLE_TRIAL = math.log(2)
"""One trial near the optimum places the best beta, and the best horizon, within a factor of 2."""


def fit_laws(observations: Sequence[Observation]) -> Laws:
    """Fit the laws to tuned pairs.

    Parameters
    ----------
    observations : sequence of Observation
        One per pair, at least one.

    Returns
    -------
    Laws

    Notes
    -----
    beta and the horizon of a pair are means over its near-optimal trials (`near_optimum`), as the optimum is
    flat and the very best trial is often so by chance. f is the best trial's: identity and taper are two
    kinds, and the mean of one of each would be an f that nobody tried. The scope is the one that most
    near-optimal trials have, each pair counting once.

    Raises
    ------
    ValueError
        If there is no observation, or two of one pair.
    """
    pairs = [seen.pair for seen in observations]
    if not pairs or len(set(pairs)) < len(pairs):
        raise ValueError(f"laws need one observation per pair, and at least one; these are {pairs}")
    log_beta = [near_optimum(seen, lambda _, tried: math.log(tried.beta)) for seen in observations]
    log_horizon = [
        near_optimum(seen, lambda pair, tried: math.log(tried.context * pair.time)) for seen in observations
    ]
    f = [min(seen.trials, key=lambda trial: trial[1])[0].conservation for seen in observations]
    exact = [0.0] * len(pairs)
    return Laws(
        beta=fit_law(BETA, pairs, *zip(*log_beta, strict=True)),
        horizon=fit_law(HORIZON, pairs, *zip(*log_horizon, strict=True)),
        power=fit_law(POWER, pairs, [one.power for one in f], exact),
        threshold=fit_law(THRESHOLD, pairs, [one.threshold for one in f], exact),
        scope=_scope(observations),
    )


def leave_out(observations: Sequence[Observation], pair: FactorPair) -> Laws | None:
    """Fit the laws without a pair, to see what they would have said of it; None if no other was tuned."""
    others = [seen for seen in observations if seen.pair != pair]
    return fit_laws(others) if others else None


def fixed_setting(best: Mapping[FactorPair, ScaleParameters]) -> ScaleParameters:
    """Give one compromise for all pairs: what a user would take who does not retune.

    Parameters
    ----------
    best : mapping of FactorPair to ScaleParameters
        The tuned values; at least one.

    Returns
    -------
    ScaleParameters
        Geometric mean of beta, median of L, the most frequent f: a mean of an identity and a taper would be
        an f that nobody tried.
    """
    if not best:
        raise ValueError("a fixed setting needs one tuned pair at least")
    return ScaleParameters(
        beta=float(f"{statistics.geometric_mean(tuned.beta for tuned in best.values()):.3g}"),
        context=statistics.median_low(tuned.context for tuned in best.values()),
        conservation=statistics.mode(tuned.conservation for tuned in best.values()),
    )


def near_optimum(
    seen: Observation, quantity: Callable[[FactorPair, ScaleParameters], float]
) -> tuple[float, float]:
    """Place the optimum of a quantity among a pair's trials.

    Returns
    -------
    value, error : float
        Mean of the quantity under the weights w = exp(-(CRPS / best - 1) / 0.02), scaled to sum to 1, and
        its standard error. The weights are read as a distribution of where the optimum lies, so the error's
        square is their variance, large where the optimum is flat, plus that of a single trial over the
        number of trials that count, 1 / sum(w^2): few trials never place it sharply.
    """
    weights = _weights(seen)
    values = np.array([quantity(seen.pair, tried) for tried, _ in seen.trials])
    mean = float(weights @ values)
    variance = float(weights @ (values - mean) ** 2) + _SINGLE_TRIAL**2 * float(weights @ weights)
    return mean, math.sqrt(variance)


def _weights(seen: Observation) -> np.ndarray:
    """Give each trial's share of the pair's say; they sum to 1."""
    crps = np.array([score for _, score in seen.trials])
    best = crps.min()
    weights = np.exp(-(crps - best) / max(TOLERANCE * best, 1e-12))  # a best of 0 leaves only its equals
    return np.asarray(weights / weights.sum())


def _scope(observations: Sequence[Observation]) -> Scope:
    votes: Counter[Scope] = Counter()
    for seen in observations:
        for (tried, _), weight in zip(seen.trials, _weights(seen), strict=True):
            votes[tried.conservation.scope] += weight
    return votes.most_common(1)[0][0]
