"""Measures that look at pixels one by one, against independent libraries and closed forms."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import scores
import torch
import xarray as xr
import xskillscore
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.measures import energy, exceedance, pixel, ranks, values
from pipeline.evaluation.measures.histogram import LogBins
from pipeline.evaluation.sorting import sort_members
from pipeline.evaluation.sums import Scored
from pipeline.factors import FactorPair

THRESHOLDS = (0.1, 1.0, 5.0)
BINS = LogBins(0.01, 1000.0)


def arrays(scored):
    """Give members and truth for xarray, NaN where masked; the dimensions after the members are stacked."""
    stacked = scored.members.double().permute(1, 0, 2, 3, 4).flatten(1).numpy()
    truth = scored.truth.double().flatten().numpy()
    return xr.DataArray(stacked, dims=("member", "pixel")), xr.DataArray(truth, dims=("pixel",))


def valid(scored):
    forecast, truth = arrays(scored)
    there = ~np.isnan(truth.values)
    return forecast.isel(pixel=there), truth.isel(pixel=there)


@pytest.mark.parametrize("members", [2, 6])
def test_errors_agree_with_the_scores_library(scored_rain, measured, members):
    scored = scored_rain(members=members)
    found = measured(scored, pixel.Pixel(), pixel.metrics())
    forecast, truth = arrays(scored)
    mean = forecast.mean("member")
    expected = {
        "fair_crps": scores.probability.crps_for_ensemble(forecast, truth, "member", method="fair"),
        "mae": scores.continuous.mae(mean, truth),
        "rmse": scores.continuous.rmse(mean, truth),
        "bias": scores.continuous.mean_error(mean, truth),
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(float(value), rel=1e-5), name
    variance = float(forecast.var("member", ddof=1).mean())
    ratio = math.sqrt((members + 1) / members * variance) / found["rmse"].item()
    assert found["spread_skill_ratio"].item() == pytest.approx(ratio, rel=1e-5)


def test_the_crps_of_a_field_without_uncertainty_is_its_mae(scored_rain, measured):
    found = measured(scored_rain(members=1), pixel.Pixel(), pixel.metrics())
    assert found["fair_crps"] == found["mae"] > 0
    assert found["spread_skill_ratio"] == 0


def test_the_crps_of_a_gaussian_ensemble_is_the_analytic_one(measured):
    # Gneiting & Raftery (2007): sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (y - mu) / sigma
    pair, generator = FactorPair(1, 2), torch.Generator().manual_seed(0)
    members = 2 * torch.randn(4, 8, 2, 150, 150, generator=generator)
    truth = torch.linspace(-4, 4, 150).expand(4, 2, 150, 150)
    mask = torch.ones_like(truth, dtype=torch.bool)
    scored = Scored(members, truth, mask, truth[:, 0], mask[:, 0], pair)
    z = truth.numpy() / 2
    normal = scipy.stats.norm
    expected = 2 * (z * (2 * normal.cdf(z) - 1) + 2 * normal.pdf(z) - 1 / math.sqrt(math.pi))
    found = measured(scored, pixel.Pixel(), pixel.metrics())
    assert found["fair_crps"].item() == pytest.approx(expected.mean(), rel=0.005)


@given(size=st.integers(1, 70), ties=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_members_are_sorted(size, ties, seed):
    members = torch.randn(2, size, 3, generator=torch.Generator().manual_seed(seed))
    members = members.round() if ties else members
    assert torch.equal(sort_members(members), members.sort(dim=1).values)


@given(shift=st.floats(-5, 5), members=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_a_shift_is_the_bias_and_a_perfect_ensemble_is_perfect(shift, members, seed):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64)
    truth = (truth * 256).round() / 64  # so that the mean of copies is exact
    mask = torch.rand(2, 1, 8, 8, generator=generator) < 0.8
    copies = truth.unsqueeze(1).expand(-1, members, -1, -1, -1)

    def of(field):
        scored = Scored(field, truth, mask, truth[:, 0, ::2, ::2], mask[:, 0, ::2, ::2], FactorPair(2, 1))
        found = {}
        for statistic, metrics in (
            (pixel.Pixel(), pixel.metrics()),
            (energy.Energy(), energy.metrics()),
            (exceedance.Exceedance(THRESHOLDS, 10), exceedance.metrics(THRESHOLDS, 10)),
        ):
            sums = {f"{statistic.name}.{k}": v.sum(dim=0) for k, v in statistic.sums(scored).items()}
            ready = (metric for metric in metrics if all(key in sums for key in metric.needs))
            found |= {metric.name: metric.compute(sums) for metric in ready}
        return found

    perfect = of(copies)
    for name in ("fair_crps", "mae", "rmse", "bias", "energy_score"):
        assert perfect[name].item() == pytest.approx(0, abs=1e-12), name
    assert perfect["spread_skill_ratio"] == 1
    for name in ("brier", "fair_brier", "brier_reliability"):
        assert perfect[name].tolist() == pytest.approx([0] * 3, abs=1e-12), name
    torch.testing.assert_close(perfect["brier_resolution"], perfect["brier_uncertainty"])
    assert perfect["frequency_bias"].tolist() == [1] * 3
    moved = of(copies + shift)
    assert moved["bias"].item() == pytest.approx(shift, abs=1e-9)
    assert moved["energy_score"].item() == pytest.approx(abs(shift), abs=1e-9)


@pytest.mark.parametrize("members", [1, 2, 5])
def test_the_energy_score_is_its_double_sum(scored_rain, measured, members):
    scored = scored_rain(members=members, windows=3)
    expected = []
    for window in range(3):
        mask = scored.mask[window]
        x = scored.members[window][:, mask].double().numpy()
        y = scored.truth[window][mask].double().numpy()
        error = np.mean([np.linalg.norm(x[i] - y) for i in range(members)])
        pairs = [np.linalg.norm(x[i] - x[j]) for i in range(members) for j in range(members)]
        spread = np.sum(pairs) / (2 * members * max(members - 1, 1))
        expected.append((error - spread) / math.sqrt(len(y)))
    found = measured(scored, energy.Energy(), energy.metrics())
    assert found["energy_score"].item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_energy_score_of_one_pixel_is_scipys_energy_distance():
    x, y = torch.randn(6, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0.3]).double()
    # Its square is 2 E|x - y| - E|x - x'|, the second with equal weights of all pairs, the M own ones too.
    plain = scipy.stats.energy_distance(x, y) ** 2 / 2
    pairs = (x[:, None] - x).abs().sum().item()
    fair = plain + pairs / (2 * 6**2) - pairs / (2 * 6 * 5)
    found = energy.fair_energy_score(x.reshape(1, 6, 1), y.reshape(1, 1))
    assert found.item() == pytest.approx(fair, rel=1e-9)


def test_the_rank_histogram_agrees_with_xskillscore(scored_rain, measured):
    scored = scored_rain()
    wet = dataclasses.replace(scored, mask=scored.mask & (scored.truth > 0))  # its ranks are of no ties
    wet = dataclasses.replace(wet, members=torch.where(wet.members == 0, -wet.members.exp(), wet.members))
    forecast, truth = arrays(wet)
    there = wet.mask.flatten().numpy()
    expected = xskillscore.rank_histogram(
        truth.isel(pixel=there), forecast.isel(pixel=there), member_dim="member"
    )
    found = measured(wet, ranks.Ranks(), ranks.metrics())
    np.testing.assert_allclose(found["rank_histogram"], expected / there.sum(), rtol=1e-5)
    frequencies = expected.values / there.sum()
    assert found["rank_deviation"].item() == pytest.approx(np.abs(frequencies - 1 / 7).sum(), rel=1e-5)


def test_ties_share_ranks_as_a_random_tie_break_would_on_average(scored_rain, measured):
    scored = scored_rain(members=4, windows=2)
    rounded = dataclasses.replace(scored, members=scored.members.round(), truth=scored.truth.round())
    found = measured(rounded, ranks.Ranks(), ranks.metrics())["rank_histogram"]
    forecast, truth = valid(rounded)
    rng, counts = np.random.default_rng(0), np.zeros(5)
    for _ in range(200):
        below = (forecast.values < truth.values).sum(axis=0)
        ties = (forecast.values == truth.values).sum(axis=0)
        counts += np.bincount(below + rng.integers(0, ties + 1), minlength=5)
    np.testing.assert_allclose(found, counts / counts.sum(), atol=0.002)
    all_dry = dataclasses.replace(scored, members=scored.members * 0, truth=scored.truth * 0)
    assert measured(all_dry, ranks.Ranks(), ranks.metrics())["rank_deviation"].item() == pytest.approx(0)


def test_brier_scores_agree_with_two_libraries(scored_rain, measured):
    scored = scored_rain(members=8)
    metrics = exceedance.metrics(THRESHOLDS, 10)
    found = measured(scored, exceedance.Exceedance(THRESHOLDS, 10), metrics)
    forecast, truth = arrays(scored)
    for name, fair in (("brier", False), ("fair_brier", True)):
        expected = scores.probability.brier_score_for_ensemble(
            forecast, truth, "member", list(THRESHOLDS), fair_correction=fair
        )
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    forecast, truth = valid(scored)
    for index, threshold in enumerate(THRESHOLDS):
        event, chance = truth >= threshold, (forecast >= threshold).mean("member")
        brier = float(xskillscore.brier_score(event, chance))
        assert found["brier"][index].item() == pytest.approx(brier, rel=1e-5)
        edges = np.linspace(0, 1, 11)
        rates = xskillscore.reliability(event, chance, probability_bin_edges=edges)
        there = found["reliability_share"][index] > 0
        np.testing.assert_allclose(found["reliability_observed"][index], rates.values, rtol=1e-5)
        samples = found["reliability_share"][index] * len(truth)
        np.testing.assert_allclose(samples, rates.samples.values, rtol=1e-9)
        assert there.sum() > 5
        bias = float((forecast >= threshold).mean() / event.mean())
        assert found["frequency_bias"][index].item() == pytest.approx(bias, rel=1e-5)
    # With M + 1 = 9 probabilities in 10 bins, each in one of its own, the parts make the whole.
    parts = found["brier_reliability"] - found["brier_resolution"] + found["brier_uncertainty"]
    torch.testing.assert_close(parts, found["brier"])


def test_quantiles_are_those_of_numpy_to_the_width_of_a_bin(scored_rain, measured):
    scored = scored_rain(windows=8, missing=0.3)
    levels, forecast = (0.2, 0.9, 0.99, 0.999), valid(scored)
    found = measured(scored, values.Values(BINS), values.metrics(BINS, levels, (2, 4)))
    for name, data in (("quantile", forecast[0]), ("quantile_truth", forecast[1])):
        expected = np.quantile(data.values, levels, method="inverted_cdf")
        assert expected[0] == 0 < expected[1]  # a dry one
        np.testing.assert_allclose(found[name], expected, rtol=0.025)
    error = found["quantile"] - found["quantile_truth"]
    torch.testing.assert_close(found["quantile_error"], error)


def test_quantiles_out_of_range_and_with_leading_dimensions():
    counts = torch.zeros(2, 3, BINS.size, dtype=torch.float64)
    counts[0, 0, 0] = 5  # all dry
    counts[0, 1, -1] = 5  # all beyond the last edge
    counts[1, 2] = BINS.count(torch.full((1, 10), 2.0), torch.ones(1, 10, dtype=torch.bool))
    found = BINS.quantiles(counts, torch.tensor([0.5, 0.9]))
    assert found.shape == (2, 3, 2)
    assert found[0, 0].tolist() == [0, 0]
    assert found[0, 1].tolist() == [1000, 1000]
    assert found[1, 2].tolist() == pytest.approx([2, 2], rel=0.025)
    assert found[1, 0].isnan().all()


def test_a_bin_begins_at_its_edge():
    edges = BINS.edges().reshape(1, -1)
    found = BINS.count(edges, torch.ones_like(edges, dtype=torch.bool))
    assert found.tolist() == [[0] + [1] * (BINS.size - 1)]


def test_largest_values_and_return_levels(scored_rain, measured):
    scored = scored_rain(windows=40, cells=2)
    found = measured(scored, values.Maxima(BINS), values.metrics(BINS, (0.9,), (4, 50)))
    largest = np.nanmax(scored.truth.numpy(), axis=(1, 2, 3))
    drawn = np.nanmax(scored.members.numpy(), axis=(2, 3, 4))
    error = drawn.mean() - largest.mean()
    assert found["window_maximum_error"].item() == pytest.approx(error, rel=1e-5)
    level = np.quantile(largest, 0.75, method="inverted_cdf")
    assert found["return_level_truth"][0].item() == pytest.approx(level, rel=0.025)
    assert found["return_level_truth"][1].isnan()  # 40 windows do not tell what happens once in 50


def test_the_wet_fraction_counts_valid_pixels_only(scored_rain, measured):
    scored = scored_rain()
    found = measured(scored, values.Wet(0.5), values.metrics(BINS, (0.9,), (2,)))
    forecast, truth = valid(scored)
    wet, error = float((forecast >= 0.5).mean()), float((forecast >= 0.5).mean() - (truth >= 0.5).mean())
    assert found["wet_fraction"].item() == pytest.approx(wet, rel=1e-9)
    whole = measured(scored, values.Wet(0.0), values.metrics(BINS, (0.9,), (2,)))
    assert whole["wet_fraction"] == 1
    assert found["wet_fraction_error"].item() == pytest.approx(error, rel=1e-9)
