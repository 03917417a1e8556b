"""The paper's settings, and a documented rule that extends them to any factor pair.

Four settings are published (arXiv 2604.21903, read off the authors' run names):

========  ===  ===========  ========  =====================
pair       L   L * tau      beta_end  f
========  ===  ===========  ========  =====================
10 x 1     10  10           0.010     x^0.5 - 0.01
 1 x 3      4  12           0.015     x^0.5 - 0.01
10 x 3      5  15           0.020     x - 0.02
25 x 6      3  18           0.035     x - 0.04
========  ===  ===========  ========  =====================

How they were chosen is not known. The rule between and beyond them is ours:

* `beta` and the attention horizon `L * tau` follow the one law that is bilinear in (log s, log tau) for their
  logarithm and passes through all four points. beta then grows with both factors everywhere.
* The horizon is kept inside the published range of 10 to 18 fine frames, and L is the horizon over tau.
* `p` and `theta` depend on the underdetermination tau * s^2 alone (3, 100, 300 and 3750 above), linear in
  its logarithm between the published points and constant outside them.
"""

from __future__ import annotations

import math

from pipeline.factors import Conservation, FactorPair, ScaleParameters

PUBLISHED: dict[FactorPair, ScaleParameters] = {
    FactorPair(space, time): ScaleParameters(
        beta=beta, context=context, conservation=Conservation(power=power, threshold=threshold)
    )
    for space, time, context, beta, power, threshold in (
        (10, 1, 10, 0.010, 0.5, 0.01),
        (1, 3, 4, 0.015, 0.5, 0.01),
        (10, 3, 5, 0.020, 1.0, 0.02),
        (25, 6, 3, 0.035, 1.0, 0.04),
    )
}
_HORIZON_RANGE = (10, 18)  # fine frames: the smallest and the largest published L * tau
BETA_RANGE = (1e-3, 0.2)  # beyond these the law extrapolates further than four points can carry it


def paper_prior(pair: FactorPair) -> ScaleParameters:
    """Give the paper's hyperparameters for a pair: published where it published them, by the rule elsewhere.

    Parameters
    ----------
    pair : FactorPair
        Any pair.

    Returns
    -------
    ScaleParameters
        With the `tile` scope, the default of the authors' code.
    """
    if pair in PUBLISHED:
        return PUBLISHED[pair]
    beta = math.exp(_bilinear(pair, [math.log(known.beta) for known in PUBLISHED.values()]))
    horizons = [math.log(known.context * at.time) for at, known in PUBLISHED.items()]
    horizon = _clip(math.exp(_bilinear(pair, horizons)), *_HORIZON_RANGE)
    known_f = [known.conservation for known in PUBLISHED.values()]
    return ScaleParameters(
        beta=float(f"{_clip(beta, *BETA_RANGE):.3g}"),
        context=max(1, round(horizon / pair.time)),
        conservation=Conservation(
            power=round(_by_underdetermination(pair, [f.power for f in known_f]), 3),
            threshold=round(_by_underdetermination(pair, [f.threshold for f in known_f]), 4),
        ),
    )


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _bilinear(pair: FactorPair, values: list[float]) -> float:
    """Evaluate a + b log s + c log tau + d log s log tau, which takes `values` at the published pairs."""
    import numpy as np  # here and not above, so that `--help` stays quick

    def terms(p: FactorPair) -> list[float]:
        return [1.0, math.log(p.space), math.log(p.time), math.log(p.space) * math.log(p.time)]

    coefficients = np.linalg.solve(np.array([terms(p) for p in PUBLISHED]), np.array(values))
    return float(coefficients @ np.array(terms(pair)))


def _by_underdetermination(pair: FactorPair, values: list[float]) -> float:
    """Interpolate linearly in log(tau * s^2) between the published pairs; constant beyond them."""
    import numpy as np

    known = sorted(zip((math.log(p.pixels_per_cell) for p in PUBLISHED), values, strict=True))
    return float(np.interp(math.log(pair.pixels_per_cell), [k[0] for k in known], [k[1] for k in known]))
