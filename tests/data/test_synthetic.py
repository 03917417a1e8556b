"""Synthetic rain: reproducible, rain-like in value, space and time."""

import itertools

import numpy as np
import pytest

from pipeline.config import SyntheticSettings
from pipeline.data import synthetic
from pipeline.data.synthetic import (
    DETECTION_MM_H,
    FLOW_SPEED,
    synthetic_coordinates,
    synthetic_rain,
    synthetic_times,
)


def rain_of(**settings):
    return np.concatenate(list(synthetic_rain(SyntheticSettings(**settings))))


@pytest.fixture(scope="module")
def rain():
    return rain_of(frames=144, height=128, width=128, wet_fraction=0.4, seed=3)


SMALL = {"frames": 12, "height": 32, "width": 40, "wet_fraction": 0.4}


def test_same_seed_same_rain_and_other_seed_other_rain():
    first = rain_of(**SMALL, seed=5)
    np.testing.assert_array_equal(first, rain_of(**SMALL, seed=5))
    assert np.corrcoef(first.ravel(), rain_of(**SMALL, seed=6).ravel())[0, 1] < 0.6


def test_first_frames_do_not_depend_on_how_many_follow_nor_on_blocks(monkeypatch):
    long = rain_of(**SMALL | {"frames": 30})
    np.testing.assert_array_equal(long[:12], rain_of(**SMALL))
    monkeypatch.setattr(synthetic, "BLOCK_BYTES", 7 * 4 * 32 * 40)
    blocks = list(synthetic_rain(SyntheticSettings(**SMALL | {"frames": 30})))
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 2]
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(blocks, 2))
    np.testing.assert_array_equal(np.concatenate(blocks), long)


def test_frames_come_as_asked_before_the_rest_is_made(monkeypatch):
    monkeypatch.setattr(synthetic, "BLOCK_BYTES", 2**20)
    block = next(synthetic_rain(SyntheticSettings(frames=10**9, height=96, width=128)))
    assert block.shape[1:] == (96, 128)
    assert block.dtype == np.float32
    assert block.nbytes <= 2**20


def test_coordinates_and_times():
    settings = SyntheticSettings(frames=8, height=16, width=20, pixel_km=0.5, cadence_minutes=2.5)
    y, x = synthetic_coordinates(settings)
    assert (y.shape, x.shape) == ((16,), (20,))
    np.testing.assert_allclose(np.diff(y), 500.0)
    np.testing.assert_allclose(x[:2], [250.0, 750.0])
    times = synthetic_times(settings)
    assert times.shape == (8,)
    assert set(np.diff(times)) == {np.timedelta64(150, "s")}


def test_rain_is_finite_and_either_zero_or_detectable(rain):
    assert np.isfinite(rain).all()
    assert rain[rain != 0].min() >= np.float32(DETECTION_MM_H)
    assert 0.3 < (rain == 0).mean() < 0.9


@pytest.mark.parametrize("wanted", [0.1, 0.25, 0.7])
def test_wet_fraction_is_met_on_average(wanted):
    seeds = range(4)
    wet = [(rain_of(frames=160, height=64, width=64, wet_fraction=wanted, seed=s) > 0).mean() for s in seeds]
    assert np.mean(wet) == pytest.approx(wanted, abs=0.15 * wanted)


def test_some_frames_are_much_wetter_and_neighbours_are_alike(rain):
    wet = (rain > 0).mean(axis=(1, 2))
    low, high = np.percentile(wet, [10, 90])
    assert high > 1.7 * low
    assert np.abs(np.diff(wet)).mean() < 0.25 * (high - low)


def test_intensities_have_the_heavy_tail_of_radar_rain(rain):
    wet = rain[rain > 0]
    median, p99 = np.percentile(wet, [50, 99])
    # The radar sample: mean 0.77, P99 4.6 mm/h, P99 / median 9.5, maximum 29; a factor 1.5 either way.
    assert 0.77 / 1.5 < wet.mean() < 0.77 * 1.5
    assert 4.56 / 1.5 < p99 < 4.56 * 1.5
    assert 9.5 / 1.5 < p99 / median < 9.5 * 1.5
    assert 10 < wet.max() < synthetic.CEILING_MM_H


def wavenumbers(side):
    return np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])


def transform(rain):
    side = rain.shape[-1]
    window = np.hanning(side)[:, None] * np.hanning(side)
    return np.fft.fft2((rain - rain.mean(axis=(1, 2), keepdims=True)) * window)


def spectral_slope(rain, shortest, longest):
    power = (np.abs(transform(rain)) ** 2).mean(axis=0)
    rings = np.geomspace(1 / longest, 1 / shortest, 9)
    k = wavenumbers(rain.shape[-1])
    ring = np.digitize(k.ravel(), rings)
    means = [power.ravel()[ring == i].mean() for i in range(1, 9)]
    return np.polyfit(np.log(np.sqrt(rings[1:] * rings[:-1])), np.log(means), 1)[0]


def test_spectrum_falls_like_that_of_radar_rain(rain):
    # Six radar windows: -2.9 to -3.3 over 4 to 64 km, and steeper below 16 km than above.
    assert -3.7 < spectral_slope(rain, 4, 64) < -2.6
    assert spectral_slope(rain, 4, 12) < spectral_slope(rain, 16, 64) - 0.5


def displacement(before, after):
    """Pixels by which `after` is `before` moved on, along (y, x), at the peak of their cross-correlation."""
    product = (np.conj(transform(before)) * transform(after)).mean(axis=0)
    correlation = np.fft.ifft2(product).real
    peak = np.unravel_index(correlation.argmax(), correlation.shape)
    side = correlation.shape[0]
    return np.array([(p + side // 2) % side - side // 2 for p in peak])


def test_rain_moves_the_same_way_all_the_time(rain):
    thirds = [displacement(part[:-1], part[1:]) for part in np.array_split(rain, 3)]
    one_frame = FLOW_SPEED * 300 / 1000  # km, thus pixels, in 5 minutes
    for moved in thirds:
        assert np.hypot(*moved) == pytest.approx(one_frame, abs=2.5)
        np.testing.assert_allclose(moved, thirds[0], atol=2)
    np.testing.assert_allclose(displacement(rain[:-2], rain[2:]), 2 * np.mean(thirds, axis=0), atol=3)


BANDS = [(4, 8), (8, 16), (16, 32), (32, 64)]  # pixels, thus km


def coherences(rain, lag, moved=(0, 0)):
    """Correlation of each band with itself `lag` frames later, when it has been moved by `moved`."""
    side = rain.shape[-1]
    k, spectrum = wavenumbers(side), transform(rain)
    back = np.exp(2j * np.pi * (np.fft.fftfreq(side)[:, None] * moved[0] + np.fft.fftfreq(side) * moved[1]))
    found = []
    for shortest, longest in BANDS:
        band = (k > 1 / longest) & (k <= 1 / shortest)
        before, after = spectrum[:-lag, band], spectrum[lag:, band] * back[band]
        norm = np.sqrt((np.abs(before) ** 2).sum() * (np.abs(after) ** 2).sum())
        found.append((np.conj(before) * after).sum().real / norm)
    return np.array(found)


def test_moving_with_it_rain_changes_as_fast_as_in_the_radar(rain):
    # The radar after 5 minutes, from 8 km up: 0.7 to 0.8, 0.86 to 0.93, 0.95. Below, it is the flow's
    # departures from its mean that decide.
    found = coherences(rain, 1, displacement(rain[:-1], rain[1:]))
    np.testing.assert_allclose(found[1:], [0.75, 0.89, 0.95], atol=0.08)


def test_structure_is_forgotten_with_time_and_small_scales_first(monkeypatch):
    # In still air: motion alone would also blur small scales first.
    monkeypatch.setattr(synthetic, "FLOW_SPEED", 0.0)
    monkeypatch.setattr(synthetic, "FLOW_SPREAD", 0.0)
    still = rain_of(frames=96, height=96, width=96, wet_fraction=0.5, seed=2)
    by_lag = np.array([coherences(still, lag) for lag in (1, 2, 4)])
    assert np.all(np.diff(by_lag[:2], axis=1) > 0.03)
    assert np.all(np.diff(by_lag, axis=0) < -0.03)


def test_flow_moves_a_field_along_both_axes():
    settings = SyntheticSettings(pixel_km=2.0)
    field = synthetic._Field(synthetic.SHEET, (64, 80), settings, (0.6, 0.8), np.random.default_rng(0))
    here, there = field.values(np.zeros(2)), field.values(np.array([6.0, -10.0]))
    np.testing.assert_allclose(there, np.roll(here, (3, -5), axis=(0, 1)), atol=1e-4)


def test_gaussian_fields_have_unit_variance_and_no_preferred_axis(monkeypatch):
    monkeypatch.setattr(synthetic, "ELONGATION", 1.0)
    settings, rng = SyntheticSettings(), np.random.default_rng(0)
    made = (synthetic._Field(synthetic.CELLS, (64, 64), settings, (0.0, 1.0), rng) for _ in range(80))
    fields = np.stack([field.values(np.zeros(2)) for field in made])
    assert np.abs(fields.mean(axis=(1, 2))).max() < 1e-4
    assert fields.var() == pytest.approx(1, abs=0.1)
    power = (np.abs(np.fft.fft2(fields)) ** 2).mean(axis=0)
    along_y, along_x = power[1:21, 0], power[0, 1:21]
    assert np.mean(np.log(along_y / along_x)) == pytest.approx(0, abs=0.2)


def test_lag_correlation_is_that_of_radar_rain(rain):
    correlation = [np.corrcoef(rain[:-lag].ravel(), rain[lag:].ravel())[0, 1] for lag in (1, 2, 4, 8)]
    assert np.all(np.diff(correlation) < 0)
    assert 0.70 < correlation[0] < 0.95  # 0.75 to 0.90 in five of six radar windows


def test_opposite_edges_are_not_continued(rain):
    inside = np.abs(rain[:, :, 1:] - rain[:, :, :-1]).mean()
    assert np.abs(rain[:, :, 0] - rain[:, :, -1]).mean() > 4 * inside
    inside = np.abs(rain[:, 1:] - rain[:, :-1]).mean()
    assert np.abs(rain[:, 0] - rain[:, -1]).mean() > 4 * inside


def test_a_finer_cadence_shows_the_same_weather_more_smoothly():
    settings = {"frames": 48, "height": 64, "width": 64, "wet_fraction": 0.5, "seed": 1}
    lag_one = [
        np.corrcoef(rain[:-1].ravel(), rain[1:].ravel())[0, 1]
        for rain in (rain_of(**settings, cadence_minutes=minutes) for minutes in (1, 5, 30))
    ]
    assert lag_one[0] > 0.95 > lag_one[1] > 0.6 > lag_one[2]
