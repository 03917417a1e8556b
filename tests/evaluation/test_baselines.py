"""Deterministic references."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.coarsen import block_mean, spread
from pipeline.evaluation.baselines import (
    BASELINES,
    bicubic,
    bicubic_conserved,
    bicubic_time_conserved,
    fill_missing,
    nearest,
)
from pipeline.factors import FactorPair

pairs = st.builds(FactorPair, st.integers(2, 6), st.integers(1, 4)) | st.builds(
    FactorPair, st.just(1), st.integers(2, 4)
)


def context(seed=0, shape=(2, 3, 4, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).clamp(min=0) * 3


@given(pairs)
@settings(max_examples=20, deadline=None)
def test_shapes_and_constants(pair):
    constant = torch.full((2, 3, 4, 5), 1.7)
    for method in (nearest, bicubic):
        fine = method(constant, pair)
        assert fine.shape == (2, pair.time, 4 * pair.space, 5 * pair.space)
        torch.testing.assert_close(fine, torch.full_like(fine, 1.7))


@given(pairs)
@settings(max_examples=20, deadline=None)
def test_block_means_of_nearest_are_the_coarse_frame(pair):
    frames = context()
    fine = nearest(frames, pair)
    coarse, _ = block_mean(fine, torch.ones_like(fine, dtype=torch.bool), pair)
    torch.testing.assert_close(coarse[:, 0], frames[:, -1])


def test_only_the_last_frame_is_used_and_repeated_in_time():
    pair, frames = FactorPair(3, 4), context()
    altered = frames.clone()
    altered[:, :-1] = 99
    for method in (nearest, bicubic):
        fine = method(frames, pair)
        assert torch.equal(fine, method(altered, pair))
        assert torch.equal(fine, fine[:, :1].expand_as(fine))


def test_for_a_time_only_pair_both_repeat():
    pair, frames = FactorPair(1, 3), context()
    assert torch.equal(nearest(frames, pair), bicubic(frames, pair))
    assert torch.equal(nearest(frames, pair), frames[:, -1:].expand(-1, 3, -1, -1))


def test_bicubic_is_never_negative_and_follows_a_ramp():
    pair = FactorPair(4, 1)
    step = torch.zeros(1, 1, 6, 6)
    step[..., 3:] = 10  # a plain bicubic undershoots beside the step
    assert bicubic(step, pair).min() == 0
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    expected = (torch.arange(32.0) + 0.5) / 4 - 0.5  # centres of the fine pixels in coarse cells
    # torch's kernel (a = -0.75) bends a line a little; a grid shifted by half a pixel would be off by 0.125
    torch.testing.assert_close(bicubic(ramp, pair)[0, 0, 16, 8:-8], expected[8:-8], rtol=0, atol=0.05)


def test_missing_cells_take_their_surroundings():
    frame = torch.tensor([[[1.0, torch.nan, 3.0], [1.0, torch.nan, 3.0], [1.0, torch.nan, 3.0]]])
    filled = fill_missing(frame, ~torch.isnan(frame))
    assert filled.tolist() == [[[1, 2, 3]] * 3]


@given(st.integers(0, 1000), st.floats(0, 1), st.sampled_from([(1, 9), (5, 7), (8, 3)]))
@settings(max_examples=30, deadline=None)
def test_filling_keeps_valid_cells_and_stays_within_their_range(seed, missing, shape):
    generator = torch.Generator().manual_seed(seed)
    frame = torch.rand(3, *shape, generator=generator)
    valid = torch.rand(3, *shape, generator=generator) >= missing
    filled = fill_missing(torch.where(valid, frame, torch.nan), valid)
    assert torch.equal(filled[valid], frame[valid])
    for one, known, original in zip(filled, valid, frame, strict=True):
        if known.any():
            assert one.min() >= original[known].min() - 1e-6
            assert one.max() <= original[known].max() + 1e-6
        else:
            assert (one == 0).all()


def test_a_constant_with_holes_stays_constant_by_nan_or_by_mask():
    pair, frames = FactorPair(4, 2), torch.full((1, 2, 6, 6), 2.0)
    mask = torch.ones_like(frames, dtype=torch.bool)
    mask[..., :3, :4] = False
    with_nan = torch.where(mask, frames, torch.nan)
    with_zero = torch.where(mask, frames, 0.0)
    for method in (nearest, bicubic):
        for fine in (method(with_nan, pair), method(with_nan, pair, mask), method(with_zero, pair, mask)):
            torch.testing.assert_close(fine, torch.full_like(fine, 2.0))
    with pytest.raises(ValueError, match="differ in shape"):
        nearest(frames, pair, mask[:, -1])


def block_means(fine, pair):
    return block_mean(fine, torch.ones_like(fine, dtype=torch.bool), pair)[0][:, 0]


@pytest.mark.parametrize("pair", [FactorPair(4, 1), FactorPair(1, 3), FactorPair(3, 2)])
@pytest.mark.parametrize("units", [1.0, 1e-15])
def test_the_conserved_ones_keep_every_coarse_value_in_any_units(pair, units):
    generator = torch.Generator().manual_seed(3)
    coarse = units * torch.randn(2, 3, 6, 5, generator=generator).clamp(min=0)
    for method in (bicubic_conserved, bicubic_time_conserved):
        fine = method(coarse, pair)
        assert fine.shape == (2, pair.time, 6 * pair.space, 5 * pair.space)
        assert (fine >= 0).all()
        torch.testing.assert_close(block_means(fine, pair), coarse[:, -1], rtol=1e-5, atol=1e-6 * units)
        torch.testing.assert_close(method(coarse / units, pair), fine / units, rtol=1e-5, atol=1e-6)
        assert (fine[spread(coarse[:, -1:], pair) == 0] == 0).all()
        dry = method(torch.zeros_like(coarse), pair)
        assert (dry == 0).all()


def test_conservation_alters_bicubic_by_a_factor_per_cell():
    pair, coarse = FactorPair(4, 1), 0.5 + torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(4))
    factor = bicubic_conserved(coarse, pair) / bicubic(coarse, pair)
    cells = block_means(factor, pair).unsqueeze(1)
    torch.testing.assert_close(factor, spread(cells, pair))
    assert (cells - 1).abs().max() > 0.01


def test_in_time_the_first_half_comes_from_the_frame_before_and_the_second_holds():
    pair = FactorPair(1, 4)
    coarse = torch.tensor([7.0, 8.0, 4.0]).view(1, 3, 1, 1)
    fine = bicubic_time_conserved(coarse, pair).flatten()
    wanted = torch.tensor([4 + 0.375 * 4, 4 + 0.125 * 4, 4, 4])  # shares of the frame before: 3/8, 1/8, 0, 0
    torch.testing.assert_close(fine, wanted * 4 / wanted.mean())
    alone = bicubic_time_conserved(coarse[:, -1:], pair)
    torch.testing.assert_close(alone, bicubic_conserved(coarse, pair))


def test_a_frame_before_that_is_missing_is_taken_as_the_last():
    pair = FactorPair(2, 2)
    coarse = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(coarse, dtype=torch.bool)
    mask[:, 0, :, :2] = False
    filled = torch.where(mask, coarse, coarse[:, -1:])
    torch.testing.assert_close(
        bicubic_time_conserved(coarse, pair, mask), bicubic_time_conserved(filled, pair)
    )
    assert not torch.allclose(bicubic_time_conserved(filled, pair), bicubic_conserved(coarse, pair))
    mask[:, 0] = False
    torch.testing.assert_close(bicubic_time_conserved(coarse, pair, mask), bicubic_conserved(coarse, pair))


def test_every_baseline_of_the_catalogue_is_called_alike():
    pair, coarse = FactorPair(2, 3), torch.rand(2, 2, 4, 4)
    coarse[:, :, :2, :2] = torch.nan
    mask = ~torch.isnan(coarse)
    assert list(BASELINES) == ["nearest", "bicubic", "bicubic_conserved", "bicubic_time_conserved"]
    for baseline in BASELINES.values():
        fine = baseline(coarse, pair, mask)
        assert fine.shape == (2, 3, 8, 8)
        assert torch.isfinite(fine).all()
