"""Spectra against closed forms, Parseval's theorem and a sum written out in NumPy."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.scores import ScoreAccumulator
from pipeline.evaluation.spectra import (
    SpectralStatistics,
    log_spectral_distance,
    radial_spectrum,
    spectral_statistics,
)
from pipeline.factors import FactorPair


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rain(*shape, seed=0):
    return (noise(*shape, seed=seed).exp() - 0.7).clamp(min=0).float()


def wave(down, across, side=32, amplitude=1.0):
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    return amplitude * torch.cos(2 * math.pi * (down * y + across * x) / side + 0.3)


def distance(members, truth, mask=None):
    mask = torch.ones_like(truth, dtype=torch.bool) if mask is None else mask
    return log_spectral_distance(spectral_statistics(members, truth, mask))


def by_hand(field):
    """Sum every wavenumber into its ring, one after the other; also the power beyond the last ring."""
    side = len(field)
    hann = scipy.signal.windows.hann(side, sym=False)
    window = np.outer(hann, hann)
    anomaly = (field - np.average(field, weights=window)) * window / np.sqrt((window**2).mean())
    rows = np.exp(-2j * np.pi * np.outer(np.arange(side), np.arange(side)) / side)
    power = np.abs(rows @ anomaly @ rows.T) ** 2 / side**4
    rings = np.zeros(side + 1)
    for i in range(side):
        for j in range(side):
            length = math.hypot(min(i, side - i), min(j, side - j))
            rings[math.floor(length + 0.5)] += power[i, j]
    return rings[1 : side // 2 + 1], rings[side // 2 + 1 :].sum()


@given(side=st.integers(2, 13), offset=st.sampled_from([0.0, 50.0]), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_spectrum_is_the_sum_by_hand_and_keeps_the_variance(side, offset, seed):
    field = noise(side, side, seed=seed) + offset
    expected, corners = by_hand(field.numpy())
    found = radial_spectrum(field)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    hann = scipy.signal.windows.hann(side, sym=False)
    weights = np.outer(hann, hann)
    centred = field.numpy() - np.average(field, weights=weights)
    assert found.sum().item() + corners == pytest.approx(np.average(centred**2, weights=weights**2), abs=1e-9)


def test_white_noise_is_flat():
    side, fields = 16, 1.5 * noise(40_000, 16, 16)
    length = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side, 1 / side)] * 2))
    modes = np.array([((length >= k - 0.5) & (length < k + 0.5)).sum() for k in range(1, side // 2 + 1)])
    per_mode = radial_spectrum(fields).mean(dim=0).numpy() / modes * side**2
    np.testing.assert_allclose(per_mode[1:], 1.5**2, rtol=0.01)
    # In ring 1, taking the mean away takes noise too: with c the leakage of wavenumber 0, and r the
    # correlation with it that the window makes, 1 - 2 c r + c^2 is left; on the axes c = 1/2 and r = 2/3,
    # between them the squares of these.
    left = [1 - 2 * c * r + c * c for c, r in ((1 / 2, 2 / 3), (1 / 4, 4 / 9))]
    assert per_mode[0] == pytest.approx(1.5**2 * sum(left) / 2, rel=0.01)


@pytest.mark.parametrize(
    ("down", "across", "ring"), [(0, 3, 3), (7, 0, 7), (3, 4, 5), (-6, 8, 10), (2, 2, 3), (5, 5, 7)]
)
def test_a_wave_is_in_the_ring_of_its_length(down, across, ring):
    spectrum = radial_spectrum(wave(down, across, amplitude=3.0))
    assert spectrum.argmax().item() + 1 == ring
    assert spectrum.sum().item() == pytest.approx(3.0**2 / 2)  # the variance of a wave
    far = [k for k in range(1, 17) if abs(k - ring) > 2]  # a Hann window spreads a wave by one wavenumber
    assert spectrum[[k - 1 for k in far]].max() < 1e-20


def test_the_mean_does_not_leak_into_the_largest_scale():
    field = rain(24, 24).double()
    torch.testing.assert_close(radial_spectrum(field + 100), radial_spectrum(field))
    assert radial_spectrum(torch.full((24, 24), 5.0)).max() < 1e-25


@given(factor=st.floats(1e-2, 1e2), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_a_scaled_field_is_as_many_decibels_away(factor, seed):
    truth = noise(2, 3, 12, 12, seed=seed)
    members = (factor * truth).unsqueeze(1).expand(-1, 4, -1, -1, -1)
    assert distance(members, truth) == pytest.approx(20 * abs(math.log10(factor)), rel=1e-6, abs=1e-9)
    assert distance(truth.unsqueeze(1), truth) == 0


def test_decibels_are_averaged_over_wavenumbers_as_root_mean_square():
    truth = torch.tensor([[4.0, 1.0, 0.5, 1.0]], dtype=torch.float64)
    members = truth * torch.tensor([10.0, 0.1, 1.0, 100.0], dtype=torch.float64)
    found = log_spectral_distance(SpectralStatistics(truth=truth, members=members))
    assert found == pytest.approx(math.sqrt((10**2 + 10**2 + 0 + 20**2) / 4))


def test_members_are_judged_one_by_one_not_by_their_mean():
    truth = noise(1, 1, 16, 16)
    opposite = torch.stack([truth, -truth], dim=1)  # their mean has no power at all
    assert distance(opposite, truth) == pytest.approx(0, abs=1e-9)
    both = spectral_statistics(torch.stack([truth, 3 * truth], dim=1), truth, torch.ones_like(truth).bool())
    torch.testing.assert_close(both.members, (1 + 9) / 2 * both.truth)


def test_the_smoother_the_members_the_farther():
    truth = rain(2, 2, 24, 24).numpy()
    blurred = [scipy.ndimage.gaussian_filter(truth, (0, 0, sigma, sigma)) for sigma in (0.4, 0.7, 1.0)]
    found = [distance(torch.from_numpy(field).unsqueeze(1), torch.from_numpy(truth)) for field in blurred]
    assert 0 < found[0] < found[1] < found[2]


def test_masked_pixels_are_zero_in_truth_and_members():
    fields = rain(3, 5, 2, 12, 12)
    truth, members = fields[:, 0], fields[:, 1:]
    mask = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    found = spectral_statistics(
        torch.where(mask.unsqueeze(1), members, torch.inf), torch.where(mask, truth, torch.nan), mask
    )
    torch.testing.assert_close(found.truth, radial_spectrum(truth * mask).sum(dim=1))
    torch.testing.assert_close(
        found.members, radial_spectrum(members * mask.unsqueeze(1)).sum(dim=2).mean(dim=1)
    )
    assert distance(truth.unsqueeze(1), truth, mask) == 0
    assert log_spectral_distance(spectral_statistics(members, truth, mask & False)) == 0


def test_dry_fields_have_a_finite_distance():
    wet = rain(2, 3, 1, 16, 16)
    dry = torch.zeros(2, 1, 16, 16)
    assert distance(wet * 0, dry) == 0
    assert 40 < distance(wet, dry) <= 60  # rain out of nothing
    assert 40 < distance(wet * 0, wet[:, 0]) <= 60  # no rain where there is some
    assert distance(1e-6 * wet, wet[:, 0]) == distance(wet * 0, wet[:, 0])  # -120 dB is none


def test_scales_that_only_one_side_lacks_count_60_decibels_below_the_largest():
    truth = torch.tensor([[1e3, 1e3, 0.0, 0.0]], dtype=torch.float64)
    members = torch.tensor([[1e3, 0.0, 1e3, 0.0]], dtype=torch.float64)
    found = log_spectral_distance(SpectralStatistics(truth=truth, members=members))
    assert found == pytest.approx(math.sqrt((0 + 60**2 + 60**2 + 0) / 4))


@pytest.mark.parametrize("wet", [True, False])
def test_nan_at_a_valid_pixel_is_not_hidden(wet):
    fields = rain(2, 3, 1, 8, 8) * wet
    fields[0, 1, 0, 2, 2] = torch.nan
    assert math.isnan(distance(fields[:, 1:], fields[:, 0]))
    assert math.isnan(distance(fields[:, :1] * 0, fields[:, 1]))


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_merging_parts_equals_one_pass(chunk):
    fields = rain(5, 4, 2, 12, 12)
    mask = torch.rand(5, 2, 12, 12, generator=torch.Generator().manual_seed(2)) > 0.1
    whole = spectral_statistics(fields[:, 1:], fields[:, 0], mask)
    first, *others = [
        spectral_statistics(fields[part, 1:], fields[part, 0], mask[part])
        for part in (slice(at, at + chunk) for at in range(0, 5, chunk))
    ]
    merged = first.merge(*others)
    for name in ("truth", "members"):
        assert getattr(merged, name).shape == (5, 6)
        assert getattr(merged, name).dtype == torch.float64
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name))
    assert log_spectral_distance(merged) == pytest.approx(log_spectral_distance(whole))


@pytest.mark.parametrize("factor", [1, 3])
def test_an_ensemble_is_scored_by_the_spectra_of_all_windows_together(factor):
    truth = rain(5, 1, 12, 12)
    mask, coarse = torch.ones_like(truth, dtype=torch.bool), torch.nn.functional.avg_pool2d(truth, 4)[:, 0]
    # Each window's members are another window's truth: only sums over all windows agree.
    members = factor * truth.roll(1, dims=0).unsqueeze(1).expand(-1, 3, -1, -1, -1)
    accumulator = ScoreAccumulator(FactorPair(4, 1))
    for part in (slice(0, 2), slice(2, 5)):
        accumulator.update(members[part], truth[part], mask[part], coarse[part], coarse[part].isfinite())
    metrics = accumulator.result().as_metrics()
    assert metrics["log_spectral_distance"] == pytest.approx(20 * math.log10(factor), abs=1e-6)
    assert metrics["crps"] > 0
