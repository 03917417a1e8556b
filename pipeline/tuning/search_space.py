"""Search spaces: modules that a scientist writes, checked before anything is started."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import warnings
from typing import Any

import optuna

from pipeline.errors import UserError, one_line
from pipeline.factors import ScaleParameters
from pipeline.recipe import RecipeEntry


def load_search_space(module: str) -> Any:
    """Import a search space.

    Raises
    ------
    UserError
        If there is no such module, it cannot be imported, or it lacks a function.
    """
    try:
        space = importlib.import_module(module)
    except Exception as error:  # a module being edited may hold any mistake
        raise refuse(module, f"cannot be imported ({one_line(error)})") from error
    for name in ("first_trials", "suggest"):
        if not callable(getattr(space, name, None)):
            raise refuse(module, f"it has no function {name}(); see search_spaces/")
    return space


def source_digest(module: str) -> str:
    """Tell one text of a search space from another: an edited one makes new studies."""
    return hashlib.sha256(inspect.getsource(load_search_space(module)).encode()).hexdigest()[:8]


def first_points(module: str, entry: RecipeEntry, max_context: int) -> tuple[dict[str, Any], ...]:
    """Give the points that a pair's study begins with, each tried on the search space.

    Parameters
    ----------
    module : str
    entry : RecipeEntry
        The pair, and the values that its search is centred on.
    max_context : int
        Largest L that can be tried.

    Raises
    ------
    UserError
        If there is none, or `suggest` does not take one of them.
    """
    space, pair = load_search_space(module), entry.pair
    try:
        points = tuple(dict(point) for point in space.first_trials(entry, max_context))
    except Exception as error:
        raise refuse(module, f"first_trials() failed for {pair} ({one_line(error)})") from error
    if not points:
        raise refuse(
            module, f"first_trials() gives no point for {pair}; the paper's prior is a good first one"
        )
    for point in points:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "The value .* is out of the range")  # Optuna would only warn
                parameters = space.suggest(optuna.trial.FixedTrial(point), entry, max_context)
        except Exception as error:
            raise refuse(
                module, f"suggest() does not take the first point {point} of {pair} ({one_line(error)})"
            ) from error
        if not isinstance(parameters, ScaleParameters) or parameters.context > max_context:
            raise refuse(
                module, f"suggest() must give ScaleParameters with L up to {max_context}, not {parameters!r}"
            )
    return points


def refuse(module: str, reason: str) -> UserError:
    """Say what is wrong with a search space."""
    return UserError(f"tuning.search_space {module!r}: {reason}")
