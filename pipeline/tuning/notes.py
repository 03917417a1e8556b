"""What a person reads first on the page of a sweep, a study or a trial, in markdown.

Links are those of `pipeline.mlflow_view.markdown.linked`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.evaluation.bootstrap import Difference
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.mlflow_view.markdown import table
from pipeline.mlflow_view.views import VALUES, sweep_view, trials_view
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.results import PairResult

CRPS_LOW, CRPS_HIGH = "crps_low", "crps_high"
"""Names of the ends of the CRPS's 90 % interval among the test scores of a pair."""


def trial_note(
    study: str,
    pair: FactorPair,
    number: int | str,
    parameters: ScaleParameters,
    outcome: Outcome | None = None,
) -> str:
    """Describe a trial, or a setting that only serves to compare.

    Parameters
    ----------
    study : str
        Name of its study.
    pair : FactorPair
    number : int or str
        A word instead of a number: it is no trial.
    parameters : ScaleParameters
    outcome : Outcome, optional
        None: there is none yet.
    """
    what = f"trial {number}" if isinstance(number, int) else "compared with the tuned values"
    belongs = f"{what} of [{pair} study](run:{study}), {_of_sweep(study.rpartition('/')[0])}"
    return f"{parameters}: **{_verdict(outcome)}** ({belongs})"


def _verdict(outcome: Outcome | None) -> str:
    if outcome is None:
        return "no score yet"
    if outcome.state == "failed":
        return f"failed: {outcome.reason}"
    if outcome.state == "pruned":
        step, crps = max(outcome.rungs.items(), default=(0, math.nan))
        return f"pruned after step {step}, CRPS {crps:.4g} there"
    return f"CRPS {outcome.metrics['crps']:.4g} on validation windows"


def open_study_note(sweep: str, pair: FactorPair) -> str:
    """Describe the tuning of a pair that has no result yet."""
    return f"Tuning of **{pair}**: no score yet.\n\n{_trials(sweep, pair)} · {_of_sweep(sweep)}"


def study_note(sweep: str, result: PairResult, units: str, model: str | None) -> str:
    """Describe a tuned pair.

    Parameters
    ----------
    sweep : str
    result : PairResult
    units : str
        Of the CRPS.
    model : str or None
        Name of the registered model; none: it is not registered.
    """
    pair = result.pair
    rivals = [
        [name, str(rival.parameters), f"{rival.crps:.4g}", _loss(rival.difference)]
        for name, rival in result.rivals.items()
    ]
    parts = [
        f"Best of {result.trials} trials for **{pair}**: **{result.best.parameters}**, "
        f"test CRPS **{_crps(result)}** {units}, {result.test['crps_skill']:.1%} below bicubic.",
        f"{_trials(sweep, pair)} · [best trial](run:{sweep}/{pair}/{result.best.number}) · {_of_sweep(sweep)}"
        + (f" · [registered model](model:{model})" if model else ""),
    ]
    if rivals:
        parts.append(table(["compared with", "values", "CRPS", "more than tuned (90 %)"], rivals))
    return "\n\n".join(parts)


def _trials(sweep: str, pair: FactorPair) -> str:
    view = trials_view(sweep, pair).key
    return f"[Trials, best first](view:{view}) · [parallel coordinates](view:{view}#charts)"


def _of_sweep(sweep: str) -> str:
    return f"[sweep {sweep}](run:{sweep})"


def sweep_note(
    sweep: str, dataset: str, units: str, results: Sequence[PairResult], statuses: Mapping[FactorPair, str]
) -> str:
    """Describe a sweep: the best values per pair, with the interval of their score.

    Parameters
    ----------
    sweep, dataset, units : str
    results : sequence of PairResult
        Of the pairs with a scored trial; empty: nothing has been scored yet.
    statuses : mapping of FactorPair to str
        What is to be said of each pair's study, for those without a result.
    """
    rows = [_row(sweep, result) for result in results]
    known = {result.pair for result in results}
    rows += [
        [f"[{pair}](run:{sweep}/{pair})", said, *[""] * 5]
        for pair, said in statuses.items()
        if pair not in known
    ]
    heads = ["pair", "beta", "L", "f", f"test CRPS, {units} (90 %)", "below bicubic", "trials"]
    view = sweep_view(sweep).key
    parts = [table(heads, rows)]  # first: the page shows the first lines only
    if results:
        parts += [
            f"Best (beta, L, f) of each factor pair on `{dataset}`, scored on the test split.",
            f"[This table with all scores](view:{view}) · [as charts](view:{view}#charts) · "
            f"[all sweeps and final models](view:{VALUES.key})",
            *_compared(results),
            "Artifacts: `table.txt` (all tables), `recipe.yaml` (for jobs/train.py), `figures`.",
        ]
    return "\n\n".join(parts)


def _row(sweep: str, result: PairResult) -> list[str]:
    parameters, view = result.best.parameters, trials_view(sweep, result.pair).key
    return [
        f"[**{result.pair}**](run:{sweep}/{result.pair})",
        f"**{parameters.beta:.3g}**",
        f"**{parameters.context}**",
        f"**{parameters.conservation}**",
        _crps(result),
        f"{result.test['crps_skill']:.1%}",
        f"[{result.trials}](view:{view}) ([charts](view:{view}#charts))",
    ]


def _compared(results: Sequence[PairResult]) -> list[str]:
    """Say whether other values would have done as well."""
    names = list(dict.fromkeys(name for result in results for name in result.rivals))
    if not names:
        return []

    def loss(result: PairResult, name: str) -> str:
        rival = result.rivals.get(name)
        if rival is None:
            return ""
        return "=" if rival.parameters == result.best.parameters else _loss(rival.difference)

    lines = [[f"**{result.pair}**", *(loss(result, name) for name in names)] for result in results]
    return [
        "With other values the CRPS would be larger by (90 %; \\*: the interval leaves 0 out; =: the same "
        "values):",
        table(["pair", *names], lines),
    ]


def _crps(result: PairResult) -> str:
    low, high = result.test.get(CRPS_LOW, math.nan), result.test.get(CRPS_HIGH, math.nan)
    interval = "" if math.isnan(low) or math.isnan(high) else f" ({low:.4f} to {high:.4f})"
    return f"{result.test['crps']:.4f}{interval}"


def _loss(difference: Difference) -> str:
    value, low, high = difference.value, difference.low, difference.high
    if math.isnan(low):
        return f"{value:+.1%}"
    return f"{value:+.1%} ({low:+.1%} to {high:+.1%})" + (" \\*" if difference.decided else "")
