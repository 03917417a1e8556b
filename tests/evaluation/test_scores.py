"""Scores against an independent library, closed forms and known violations."""

import dataclasses
import math

import numpy as np
import pytest
import scores
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.coarsen import block_mean, spread
from pipeline.evaluation.scores import (
    DeterministicAccumulator,
    EnsembleScores,
    ScoreAccumulator,
    crps_skill,
    fair_crps,
    spread_skill_ratio,
)
from pipeline.evaluation.statistics import (
    conservation_statistics,
    deterministic_statistics,
    ensemble_statistics,
    fair_crps_per_pixel,
)
from pipeline.factors import FactorPair

PAIR = FactorPair(4, 3)


def example(seed=0, batch=5, members=6, pair=PAIR, cells=3, missing=0.2):
    """Rain-like members and truth with random missing pixels, which hold NaN in the truth."""
    generator = torch.Generator().manual_seed(seed)
    side = cells * pair.space
    fields = torch.randn(batch, members + 1, pair.time, side, side, generator=generator).exp() - 0.7
    fields = fields.clamp(min=0)
    mask = torch.rand(batch, pair.time, side, side, generator=generator) >= missing
    truth = torch.where(mask, fields[:, 0], torch.nan)
    coarse, coarse_mask = block_mean(truth, mask, pair)
    return fields[:, 1:], truth, mask, coarse[:, 0], coarse_mask[:, 0]


def score(members, truth, mask, coarse, coarse_mask, pair=PAIR, chunk=None):
    accumulator = ScoreAccumulator(pair)
    chunk = chunk or len(truth)
    for at in range(0, len(truth), chunk):
        part = slice(at, at + chunk)
        accumulator.update(members[part], truth[part], mask[part], coarse[part], coarse_mask[part])
    return accumulator


def array(tensor, *dims):
    return xr.DataArray(tensor.double().numpy(), dims=dims)


@pytest.mark.parametrize("members", [2, 3, 8])
def test_scores_agree_with_the_scores_library(members):
    x, y, mask, coarse, coarse_mask = example(members=members)
    ours = score(x, y, mask, coarse, coarse_mask).result()
    forecast = array(x, "b", "m", "t", "y", "x")
    truth = array(y, "b", "t", "y", "x")  # NaN where masked, which the library leaves out
    crps = scores.probability.crps_for_ensemble(forecast, truth, "m", method="fair")
    mean = forecast.mean("m")
    assert ours.crps == pytest.approx(float(crps), rel=1e-5)
    assert ours.mae == pytest.approx(float(scores.continuous.mae(mean, truth)), rel=1e-5)
    assert ours.rmse == pytest.approx(float(scores.continuous.rmse(mean, truth)), rel=1e-5)
    assert ours.bias == pytest.approx(float(scores.continuous.mean_error(mean, truth)), rel=1e-5)
    variance = float(forecast.var("m", ddof=1).where(truth.notnull()).mean())
    ratio = math.sqrt((members + 1) / members * variance) / ours.rmse
    assert ours.spread_skill_ratio == pytest.approx(ratio, rel=1e-5)
    assert (ours.windows, ours.members) == (5, members)


def test_deterministic_scores_agree_with_the_scores_library():
    x, y, mask, *_ = example()
    accumulator = DeterministicAccumulator()
    accumulator.update(x[:2, 0], y[:2], mask[:2])
    accumulator.update(x[2:, 0], y[2:], mask[2:])
    ours = accumulator.result()
    forecast, truth = array(x[:, 0], "b", "t", "y", "x"), array(y, "b", "t", "y", "x")
    assert ours.mae == pytest.approx(float(scores.continuous.mae(forecast, truth)), rel=1e-5)
    assert ours.rmse == pytest.approx(float(scores.continuous.rmse(forecast, truth)), rel=1e-5)
    assert ours.as_metrics()["windows"] == 5
    assert fair_crps(accumulator.statistics) == ours.mae


@given(
    size=st.integers(2, 12),
    offset=st.sampled_from([0.0, 100.0]),
    ties=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50, deadline=None)
def test_fair_crps_equals_its_double_sum(size, offset, ties, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, size, 7, generator=generator) + offset
    y = torch.randn(3, 7, generator=generator) + offset
    if ties:
        x, y = x.round(), y.round()
    a, b = x.double(), y.double()
    differences = (a.unsqueeze(1) - a.unsqueeze(2)).abs().sum(dim=(1, 2))
    expected = (a - b.unsqueeze(1)).abs().mean(dim=1) - differences / (2 * size * (size - 1))
    torch.testing.assert_close(fair_crps_per_pixel(x, y).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [2, 4, 64])
def test_fair_crps_of_a_gaussian_has_the_closed_form_for_every_ensemble_size(size):
    # Gneiting & Raftery (2007), with z = (y - mu) / sigma:
    # CRPS = sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))
    mu, sigma, samples = 1.0, 2.0, 2_000_000 // size
    x = mu + sigma * torch.randn(samples, size, generator=torch.Generator().manual_seed(size))
    for y in (1.0, 3.5):
        z = (y - mu) / sigma
        cumulative = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        expected = sigma * (z * (2 * cumulative - 1) + 2 * density - 1 / math.sqrt(math.pi))
        estimate = fair_crps_per_pixel(x, torch.full((samples,), y)).double().mean().item()
        assert estimate == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("size", [2, 5, 20])
def test_ensemble_from_the_distribution_of_the_truth_has_spread_equal_to_skill(size):
    generator = torch.Generator().manual_seed(1)
    centre = torch.randn(20, 1, 2, 40, 40, generator=generator)
    fields = centre + torch.randn(20, size + 1, 2, 40, 40, generator=generator)
    mask = torch.ones(20, 2, 40, 40, dtype=torch.bool)
    reliable = ensemble_statistics(fields[:, 1:], fields[:, 0], mask)
    assert spread_skill_ratio(reliable) == pytest.approx(1, abs=0.01)
    narrow = ensemble_statistics(centre + 0.5 * (fields[:, 1:] - centre), fields[:, 0], mask)
    assert spread_skill_ratio(narrow) < 0.75


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_streaming_over_batches_equals_one_pass(chunk):
    batch = example()
    whole, streamed = score(*batch), score(*batch, chunk=chunk)
    assert streamed.result().as_metrics() == pytest.approx(whole.result().as_metrics(), rel=1e-6)
    for name in ("weight", "crps", "squared_error"):  # windows stay apart, in order
        torch.testing.assert_close(getattr(streamed.statistics, name), getattr(whole.statistics, name))
    assert whole.statistics.crps.dtype == torch.float64


def test_pixels_count_equally_and_windows_stay_available():
    x, y, mask, *_ = example()
    mask[0] = False
    mask[0, 0, 0, 0] = True
    y = torch.where(mask, y.nan_to_num(), torch.nan)
    statistics = ensemble_statistics(x, y, mask)
    per_window = statistics.per_window("absolute_error")
    error = (x.mean(1) - y).abs()
    assert per_window[0].item() == pytest.approx(error[0, 0, 0, 0].item(), rel=1e-5)
    assert statistics.mean("absolute_error") == pytest.approx(error[mask].double().mean().item(), rel=1e-5)


def test_whatever_lies_under_the_mask_does_not_matter():
    x, y, mask, coarse, coarse_mask = example(missing=0.55)
    assert not coarse_mask.all()
    clean = score(x, y.nan_to_num(7.0), mask, coarse, coarse_mask).result()
    dirty = score(
        torch.where(mask.unsqueeze(1), x, torch.nan),
        torch.where(mask, y, torch.inf),
        mask,
        torch.where(coarse_mask, coarse, torch.nan),
        coarse_mask,
    ).result()
    assert dirty == clean
    assert all(math.isfinite(value) for value in dirty.as_metrics().values())


def test_nan_at_a_valid_pixel_is_not_hidden():
    x, y, mask, coarse, coarse_mask = example()
    x[0, 0][mask[0]] = torch.nan
    metrics = score(x, y, mask, coarse, coarse_mask).result().as_metrics()
    assert all(math.isnan(metrics[name]) for name in metrics if name not in ("windows", "members"))


def test_half_precision_is_summed_in_full():
    x, y, mask, coarse, coarse_mask = example()
    x, y, coarse = x.bfloat16(), y.bfloat16(), coarse.bfloat16()
    half = score(x, y, mask, coarse, coarse_mask).result()
    full = score(x.float(), y.float(), mask, coarse.float(), coarse_mask).result()
    assert half == full


def test_dry_fields_have_scores():
    x, y, mask, coarse, coarse_mask = example()
    dry = score(x * 0, y * 0, mask, coarse * 0, coarse_mask).result()
    metrics = dry.as_metrics()
    assert set(metrics) == {field.name for field in dataclasses.fields(EnsembleScores)}
    assert metrics.pop("spread_skill_ratio") == 1
    assert all(metrics[name] == 0 for name in metrics if name not in ("windows", "members"))
    # rain out of nothing: infinitely wrong where all is dry, else against the mean amount
    assert score(x, y * 0, mask, coarse * 0, coarse_mask).result().conservation_tile == math.inf
    coarse[0] = 0
    one_dry = score(x, y, mask, coarse, coarse_mask).result()
    assert 0 < one_dry.conservation_tile < one_dry.conservation_tile_worst < math.inf


def test_skill_over_a_reference():
    assert crps_skill(0.05, 0.2) == pytest.approx(0.75)
    assert crps_skill(0.2, 0.2) == 0
    assert crps_skill(0.0, 0.0) == 0
    assert crps_skill(0.1, 0.0) == -math.inf


@given(space=st.integers(1, 5), time=st.integers(1, 4), missing=st.sampled_from([0.0, 0.3, 0.6]))
@settings(max_examples=25, deadline=None)
def test_the_truth_and_its_spread_coarse_frame_conserve(space, time, missing):
    pair = FactorPair(space, time if space > 1 else time + 1)
    _, y, mask, coarse, coarse_mask = example(pair=pair, missing=missing, seed=space)
    flat = spread(coarse.unsqueeze(1), pair)
    errors = score(torch.stack([y, flat], dim=1), y, mask, coarse, coarse_mask, pair=pair).result()
    assert errors.conservation_tile < 1e-6
    assert errors.conservation_tile_worst < 1e-6
    assert errors.conservation_cell < 1e-6


def test_an_ensemble_that_fills_cells_is_judged_on_whole_ones():
    pair = FactorPair(2, 1)
    truth = torch.tensor([[[[4.0, 0.0], [0.0, float("nan")]]]])
    mask = truth.isfinite()
    coarse, known = torch.tensor([[[4 / 3]]]), torch.ones(1, 1, 1, dtype=torch.bool)  # mean of the valid ones
    member = torch.tensor([[[[4.0, 0.0], [0.0, 4 / 3]]]])  # keeps the cell's mean over all four pixels
    errors = {}
    for whole_cells in (True, False):
        accumulator = ScoreAccumulator(pair, whole_cells=whole_cells)
        accumulator.update(torch.stack([member, member], dim=1), truth, mask, coarse, known)
        errors[whole_cells] = accumulator.result().conservation_cell
    assert errors[True] == pytest.approx(0, abs=1e-6)
    assert errors[False] == pytest.approx(0, abs=1e-6)
    uneven = torch.tensor([[[[2.0, 0.0], [0.0, 10 / 3]]]])  # the same mean, more of it under the gap
    accumulator = ScoreAccumulator(pair, whole_cells=True)
    accumulator.update(torch.stack([uneven, uneven], dim=1), truth, mask, coarse, known)
    assert accumulator.result().conservation_cell == pytest.approx(0, abs=1e-6)
    accumulator = ScoreAccumulator(pair)
    accumulator.update(torch.stack([uneven, uneven], dim=1), truth, mask, coarse, known)
    assert accumulator.result().conservation_cell == pytest.approx(0.5)


def test_conservation_errors_of_known_violations():
    pair = FactorPair(2, 1)
    coarse = torch.tensor([[[4.0, 0.0], [2.0, 2.0]]])
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    keeps = spread(coarse.unsqueeze(1), pair)  # (1, 1, 4, 4)
    wetter = 1.1 * keeps  # every amount 10 % too large
    moved = keeps.flip(-1)  # right total; 4 of the 8 mm/h of the top row and nothing of the bottom row moved
    whole = torch.ones(1, 2, 2, dtype=torch.bool)

    def errors(*members):
        return score(torch.stack(members, dim=1), keeps, mask, coarse, whole, pair=pair).result()

    both = errors(wetter, wetter)
    assert both.conservation_tile == pytest.approx(0.1)
    assert both.conservation_cell == pytest.approx(0.1)
    displaced = errors(moved, moved)
    assert displaced.conservation_tile == 0
    assert displaced.conservation_cell == pytest.approx((4 + 4) / 8)  # leaves one cell and arrives in another
    mixed = errors(keeps, wetter)
    assert mixed.conservation_tile == pytest.approx(0.05)
    assert mixed.conservation_tile_worst == pytest.approx(0.1)


def test_conservation_looks_only_at_valid_cells():
    pair = FactorPair(2, 1)
    coarse = torch.tensor([[[1.0, torch.nan]]])
    coarse_mask = torch.tensor([[[True, False]]])
    members = torch.ones(1, 2, 1, 2, 4)
    members[..., 2:] = 50.0
    mask = torch.ones(1, 1, 2, 4, dtype=torch.bool)
    statistics = conservation_statistics(members, mask, coarse, coarse_mask, pair)
    assert statistics.amount.tolist() == [4.0]
    assert statistics.tile.tolist() == statistics.cell.tolist() == [0.0]


def test_what_cannot_be_scored_is_refused():
    x, y, mask, coarse, coarse_mask = example()
    with pytest.raises(ValueError, match="nothing to score"):
        ScoreAccumulator(PAIR).result()
    with pytest.raises(ValueError, match="nothing to score"):
        score(x, y, mask & False, coarse, coarse_mask).result()
    with pytest.raises(ValueError, match="at least 2 members"):
        ensemble_statistics(x[:, :1], y, mask)
    with pytest.raises(ValueError, match="agree in shape"):
        deterministic_statistics(x[:, 0, :1], y, mask)
    with pytest.raises(ValueError, match="bool"):
        deterministic_statistics(x[:, 0], y, mask.float())
    with pytest.raises(ValueError, match="pair 2x3"):
        score(x, y, mask, coarse, coarse_mask, pair=FactorPair(2, 3))
    with pytest.raises(ValueError, match="different members"):
        ensemble_statistics(x, y, mask).merge(ensemble_statistics(x[:, :3], y, mask))


def test_metrics_are_plain_floats():
    metrics = score(*example()).result().as_metrics()
    assert all(type(value) is float for value in metrics.values())
    assert np.isfinite(list(metrics.values())).all()
