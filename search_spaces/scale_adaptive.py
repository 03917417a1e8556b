"""Where to look for (beta, L, f) of a factor pair: ranges centred on the paper's prior.

Edit freely, or give a module of your own with `--set tuning.search_space=my_module`. It needs the two
functions below; what the first returns must lie inside the ranges of the second.
"""

from __future__ import annotations

from typing import Any, Protocol

from pipeline.factors import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.prior import paper_prior

BETA_FACTOR = 4.0  # beta from prior / 4 to prior * 4, on a log scale
CONTEXT_REACH = 2  # L from prior - 2 to prior + 2
LOWEST_POWER = 0.4  # p of a taper from here to 1
IDENTITY, TAPER = "identity", "taper"  # f(x) = x, or max(x^p - theta, 0)


class Trial(Protocol):
    """The part of an Optuna trial that is used here."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...  # noqa: D102
    def suggest_int(self, name: str, low: int, high: int) -> int: ...  # noqa: D102
    def suggest_categorical(self, name: str, choices: list[str]) -> Any: ...  # noqa: D102


def first_trials(pair: FactorPair, max_context: int) -> list[dict[str, Any]]:
    """Give the points every study begins with: the paper's prior, then the same without taper, kept per cell.

    Both need the same conditional mean, so the second costs little and tells what f does.
    """
    prior = paper_prior(pair)
    point = {
        "beta": prior.beta,
        "context": min(prior.context, max_context),
        "scope": prior.conservation.scope.value,
    }
    f = {"f": TAPER, "power": prior.conservation.power, "threshold": prior.conservation.threshold}
    return [point | f, point | {"f": IDENTITY, "scope": Scope.CELL.value}]


def suggest(trial: Trial, pair: FactorPair, max_context: int) -> ScaleParameters:
    """Draw the parameters of one trial.

    Parameters
    ----------
    trial : optuna.Trial
    pair : FactorPair
    max_context : int
        Largest L that the data and the settings allow.
    """
    prior = paper_prior(pair)
    centre = min(prior.context, max_context)
    f = Conservation(scope=Scope(trial.suggest_categorical("scope", [Scope.TILE.value, Scope.CELL.value])))
    # A choice of its own: drawn from ranges, p = 1 and theta = 0 would never come up.
    if trial.suggest_categorical("f", [IDENTITY, TAPER]) == TAPER:
        power = trial.suggest_float("power", LOWEST_POWER, 1.0)
        threshold = trial.suggest_float("threshold", 0.0, 2 * prior.conservation.threshold)
        f = Conservation(power=power, threshold=threshold, scope=f.scope)
    return ScaleParameters(
        beta=trial.suggest_float("beta", prior.beta / BETA_FACTOR, prior.beta * BETA_FACTOR, log=True),
        context=trial.suggest_int(
            "context", max(1, centre - CONTEXT_REACH), min(max_context, centre + CONTEXT_REACH)
        ),
        conservation=f,
    )
