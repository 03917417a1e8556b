import numpy as np

from pipeline.evaluation.figures import TemporalSpectra, temporal_spectra
from pipeline.factors import FactorPair

POWER = {"truth": 4.0, "ensemble": 2.0, "nearest": 0.0, "bicubic": 0.5}


def test_a_spectrum_in_time_is_relative_to_the_truth_at_its_periods():
    power = {name: np.full(3, value) for name, value in POWER.items()}
    axes = temporal_spectra([TemporalSpectra(FactorPair(1, 6), power, 5.0)]).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert "Truth" not in lines
    np.testing.assert_allclose(lines["Ensemble"].get_xdata(), [30.0, 15.0, 10.0])
    for name, value in (("Ensemble", 0.5), ("Bicubic", 0.125), ("Nearest", 0.0)):
        np.testing.assert_allclose(lines[name].get_ydata(), value)
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert axes.get_ylim()[0] < 0 < 1 < axes.get_ylim()[1]
