"""What a person reads first on a run's page, in markdown; links are those of `mlflow_pages.linked`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.evaluation.bootstrap import Difference
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.mlflow_pages import VALUES, sweep_view, table, trials_view
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
        None: it has not ended.
    """
    sweep = study.rpartition("/")[0]
    what = f"trial {number}" if isinstance(number, int) else "compared with the tuned values"
    belongs = f"{what} of [{pair} study](run:{study})" + (f", [sweep {sweep}](run:{sweep})" if sweep else "")
    return f"{parameters}: **{_verdict(outcome)}** ({belongs})"


def _verdict(outcome: Outcome | None) -> str:
    if outcome is None:
        return "under way"
    if outcome.state == "failed":
        return f"failed: {outcome.reason}"
    if outcome.state == "pruned":
        step, crps = max(outcome.rungs.items(), default=(0, math.nan))
        return f"pruned after step {step}, CRPS {crps:.4g} there"
    return f"CRPS {outcome.metrics['crps']:.4g} on validation windows"


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
    pair, view = result.pair, trials_view(sweep, result.pair).key
    rivals = [
        [name, str(rival.parameters), f"{rival.crps:.4g}", _loss(rival.difference)]
        for name, rival in result.rivals.items()
    ]
    parts = [
        f"Best of {result.trials} trials for **{pair}**: **{result.best.parameters}**, "
        f"test CRPS **{_crps(result)}** {units}, {result.test['crps_skill']:.1%} below bicubic.",
        f"[Trials, best first](view:{view}) · [parallel coordinates](view:{view}#charts) · "
        f"[best trial](run:{sweep}/{pair}/{result.best.number}) · [sweep {sweep}](run:{sweep})"
        + (f" · [registered model](model:{model})" if model else ""),
    ]
    if rivals:
        parts.append(table(["compared with", "values", "CRPS", "more than tuned (90 %)"], rivals))
    return "\n\n".join(parts)


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
        [f"[{pair}](run:{sweep}/{pair})", said, *[""] * 6]
        for pair, said in statuses.items()
        if pair not in known
    ]
    heads = [
        "pair",
        "beta",
        "L",
        "f",
        f"test CRPS, {units} (90 %)",
        "below bicubic",
        "paper's prior",
        "trials",
    ]
    view = sweep_view(sweep).key
    parts = [table(heads, rows)]  # first: the page shows the first lines only
    if results:
        parts += [
            f"Best (beta, L, f) of each factor pair on `{dataset}`, scored on the test split. paper's prior: "
            "by how much its CRPS is larger, with the 90 % interval; \\*: it leaves 0 out.",
            f"[This table with all scores](view:{view}) · [as charts](view:{view}#charts) · "
            f"[all sweeps and final models](view:{VALUES.key})",
            "Artifacts: `table.txt` (all tables), `recipe.yaml` (for jobs/train.py), `figures`.",
        ]
    return "\n\n".join(parts)


def _row(sweep: str, result: PairResult) -> list[str]:
    parameters, view = result.best.parameters, trials_view(sweep, result.pair).key
    prior = result.rivals.get("paper's prior")
    if prior is None:
        loss = ""
    else:
        loss = "is the tuned one" if prior.parameters == parameters else _loss(prior.difference)
    return [
        f"[**{result.pair}**](run:{sweep}/{result.pair})",
        f"**{parameters.beta:.4f}**",
        f"**{parameters.context}**",
        f"**{parameters.conservation}**",
        _crps(result),
        f"{result.test['crps_skill']:.1%}",
        loss,
        f"[{result.trials}](view:{view}) ([charts](view:{view}#charts))",
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
