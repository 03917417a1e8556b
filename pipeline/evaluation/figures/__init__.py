"""Figures of an evaluation, as matplotlib figures that the caller saves; drawn from plain data.

Figures are made as objects, without pyplot: nothing global stays behind in a worker, no display is needed.
"""

from pipeline.evaluation.figures.across_pairs import Skill, skill_intervals, skill_map
from pipeline.evaluation.figures.calibration import (
    RankHistogram,
    ReliabilityCurve,
    rank_histograms,
    reliability,
)
from pipeline.evaluation.figures.film import Event, animation
from pipeline.evaluation.figures.in_time import TemporalSpectra, temporal_spectra
from pipeline.evaluation.figures.neighbourhood import FractionsSkill, fractions_skill
from pipeline.evaluation.figures.parameters import parameters_over_pairs
from pipeline.evaluation.figures.power import Spectra, spectra
from pipeline.evaluation.figures.quantiles import Quantiles, quantile_quantile
from pipeline.evaluation.figures.style import field_style, to_png
from pipeline.evaluation.figures.window import panel

__all__ = [
    "Event",
    "FractionsSkill",
    "Quantiles",
    "RankHistogram",
    "ReliabilityCurve",
    "Skill",
    "Spectra",
    "TemporalSpectra",
    "animation",
    "field_style",
    "fractions_skill",
    "panel",
    "parameters_over_pairs",
    "quantile_quantile",
    "rank_histograms",
    "reliability",
    "skill_intervals",
    "skill_map",
    "spectra",
    "temporal_spectra",
    "to_png",
]
