"""Where to look for (beta, L, f) of a factor pair: ranges centred on what is known of it.

That is the paper's prior, or an entry of a recipe (`--set tuning.recipe=FILE`), tuned or predicted, around
which the ranges are narrower. Edit freely, or give a module of your own with
`--set tuning.search_space=my_module`. It needs the functions `first_trials` and `suggest`; what the first
returns must lie inside the ranges of the second.
"""

from __future__ import annotations

from typing import Any, Protocol

from pipeline.factors import Conservation, ScaleParameters, Scope
from pipeline.prior import paper_prior
from pipeline.recipe import Origin, RecipeEntry

BETA_FACTOR = 4.0  # beta from prior / 4 to prior * 4, on a log scale
CONTEXT_REACH = 2  # L from prior - 2 to prior + 2
TUNED_BETA_FACTOR, TUNED_CONTEXT_REACH = 2.0, 1  # likewise around a tuned entry
LEAST_BETA_FACTOR, LEAST_CONTEXT_REACH = 1.25, 1  # a predicted interval is never taken to be narrower
BETA_BOUNDS = (2e-4, 0.8)  # as far as the prior's ranges ever go
LOWEST_POWER = 0.4  # p of a taper from here to 1
IDENTITY, TAPER = "identity", "taper"  # f(x) = x, or max(x^p - theta, 0)


class Trial(Protocol):
    """The part of an Optuna trial that is used here."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...  # noqa: D102
    def suggest_int(self, name: str, low: int, high: int) -> int: ...  # noqa: D102
    def suggest_categorical(self, name: str, choices: list[str]) -> Any: ...  # noqa: D102


def first_trials(entry: RecipeEntry, max_context: int) -> list[dict[str, Any]]:
    """Give the points every study begins with: the prior, the recipe's values, the prior with f = x per cell.

    The prior comes first whatever the recipe says, since every report compares with it. The last needs the
    same conditional mean as the prior, so it costs little and tells what f does.

    Parameters
    ----------
    entry : RecipeEntry
        What is known of the pair.
    max_context : int
        Largest L that the data and the settings allow.
    """
    known = _known(entry)
    identity = known[0].model_copy(update={"conservation": Conservation(scope=Scope.CELL)})
    points: list[dict[str, Any]] = []
    for parameters in (*known, identity):
        point = _point(parameters, max_context)
        if point not in points:
            points.append(point)
    return points


def suggest(trial: Trial, entry: RecipeEntry, max_context: int) -> ScaleParameters:
    """Draw the parameters of one trial.

    Parameters
    ----------
    trial : optuna.Trial
    entry : RecipeEntry
        What is known of the pair.
    max_context : int
        Largest L that the data and the settings allow.
    """
    known = _known(entry)
    scopes = [Scope.TILE, Scope.CELL]
    scopes += [p.conservation.scope for p in known if p.conservation.scope not in scopes]
    f = Conservation(scope=Scope(trial.suggest_categorical("scope", [scope.value for scope in scopes])))
    # A choice of its own: drawn from ranges, p = 1 and theta = 0 would never come up.
    if trial.suggest_categorical("f", [IDENTITY, TAPER]) == TAPER:
        lowest = min(LOWEST_POWER, *(p.conservation.power for p in known))
        highest = max(2 * known[0].conservation.threshold, *(p.conservation.threshold for p in known))
        power = trial.suggest_float("power", lowest, 1.0)
        f = Conservation(power=power, threshold=trial.suggest_float("threshold", 0.0, highest), scope=f.scope)
    return ScaleParameters(
        beta=trial.suggest_float("beta", *beta_range(entry), log=True),
        context=trial.suggest_int("context", *context_range(entry, max_context)),
        conservation=f,
    )


def beta_range(entry: RecipeEntry) -> tuple[float, float]:
    """Give the range of beta: around the entry, and just wide enough to hold the paper's prior."""
    known = [parameters.beta for parameters in _known(entry)]
    prior, centre = known[0], known[-1]
    if entry.origin is Origin.PAPER:
        return prior / BETA_FACTOR, prior * BETA_FACTOR
    if entry.origin is Origin.TUNED:
        low, high = centre / TUNED_BETA_FACTOR, centre * TUNED_BETA_FACTOR
    else:
        low, high = centre / BETA_FACTOR, centre * BETA_FACTOR
        if entry.interval:  # never wider than with nothing known
            low = max(low, min(entry.interval.beta[0], centre / LEAST_BETA_FACTOR))
            high = min(high, max(entry.interval.beta[1], centre * LEAST_BETA_FACTOR))
    return min(max(low, BETA_BOUNDS[0]), centre, prior), max(min(high, BETA_BOUNDS[1]), centre, prior)


def context_range(entry: RecipeEntry, max_context: int) -> tuple[int, int]:
    """Give the range of L, likewise."""
    known = [min(parameters.context, max_context) for parameters in _known(entry)]
    prior, centre = known[0], known[-1]
    low, high = centre - CONTEXT_REACH, centre + CONTEXT_REACH
    if entry.origin is Origin.TUNED:
        low, high = centre - TUNED_CONTEXT_REACH, centre + TUNED_CONTEXT_REACH
    elif entry.origin is Origin.PREDICTED and entry.interval:
        low = max(low, min(entry.interval.context[0], centre - LEAST_CONTEXT_REACH))
        high = min(high, max(entry.interval.context[1], centre + LEAST_CONTEXT_REACH))
    return max(1, min(low, prior)), min(max_context, max(high, prior))


def _known(entry: RecipeEntry) -> list[ScaleParameters]:
    """Give the paper's prior, then the recipe's values if it says more than the paper."""
    return [paper_prior(entry.pair), *([] if entry.origin is Origin.PAPER else [entry.parameters])]


def _point(parameters: ScaleParameters, max_context: int) -> dict[str, Any]:
    """Write parameters as `suggest` asks for them."""
    f = parameters.conservation
    point = {
        "beta": parameters.beta,
        "context": min(parameters.context, max_context),
        "scope": f.scope.value,
    }
    if f.power == 1 and f.threshold == 0:
        return point | {"f": IDENTITY}
    return point | {"f": TAPER, "power": f.power, "threshold": f.threshold}
