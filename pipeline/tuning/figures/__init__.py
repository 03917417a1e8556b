"""Figures of a sweep, as matplotlib figures that the caller saves; drawn from plain data.

As in `pipeline.evaluation.figures`, figures are made as objects, without pyplot: nothing global stays behind.
"""

from pipeline.tuning.figures.comparison import Reference, RetuningRow, retuning
from pipeline.tuning.figures.importances import importance
from pipeline.tuning.figures.law_panels import LawPanel, laws
from pipeline.tuning.figures.over_beta import beta_slice
from pipeline.tuning.figures.over_trials import history
from pipeline.tuning.figures.parallel import parallel_coordinates
from pipeline.tuning.figures.points import TrialPoint
from pipeline.tuning.figures.trade_off import pareto, pareto_front

__all__ = [
    "LawPanel",
    "Reference",
    "RetuningRow",
    "TrialPoint",
    "beta_slice",
    "history",
    "importance",
    "laws",
    "parallel_coordinates",
    "pareto",
    "pareto_front",
    "retuning",
]
