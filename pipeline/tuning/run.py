"""A whole sweep, from its configuration to its report."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.tuning.opening import open_sweep
from pipeline.tuning.report import report
from pipeline.tuning.tune_run import run_trials


def run_sweep(config: Config, report_on: str | None = None) -> bool:
    """Tune all pairs, evaluate the best of each on the test split, register, report.

    Parameters
    ----------
    config : Config
    report_on : str, optional
        Name of a sweep that has been run: its report is made again, nothing is trained.

    Returns
    -------
    bool
        Whether every pair has a scored trial.

    Raises
    ------
    UserError
        For anything the user can put right, before anything is written.
    """
    with open_sweep(config, report_on) as sweep:
        job = sweep.trial_job()
        if report_on is None:
            run_trials(sweep, job)
        return report(sweep, job, train=report_on is None)
