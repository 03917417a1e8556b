"""The paired block bootstrap against SciPy's, and against data whose true difference is known."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.blocks import block_of
from pipeline.evaluation.bootstrap import Difference, crps_difference
from pipeline.evaluation.statistics import Statistics


def statistics(crps, weight=None):
    crps = torch.as_tensor(np.asarray(crps), dtype=torch.float64)
    weight = torch.ones_like(crps) if weight is None else torch.as_tensor(weight, dtype=torch.float64)
    zero = torch.zeros_like(crps)
    return Statistics(weight, zero, zero, zero, crps, zero, members=8)


def compare(reference, tuned, blocks=None, *, resamples=2000, seed=0, **options):
    blocks = torch.arange(len(reference)) if blocks is None else torch.as_tensor(blocks)
    generator = torch.Generator().manual_seed(seed)
    return crps_difference(
        statistics(reference), statistics(tuned), blocks, resamples=resamples, generator=generator, **options
    )


def rival_scores(rng, shape, gain=1.25):
    """Scores of two models on windows of very different rain; the tuned one is 1 / `gain` of the other."""
    rain = rng.gamma(2.0, size=shape)
    return gain * rain * rng.uniform(0.7, 1.3, shape), rain * rng.uniform(0.7, 1.3, shape)


def test_value_and_interval_are_those_of_scipy():
    reference, tuned = rival_scores(np.random.default_rng(1), 60)
    ours = compare(reference, tuned, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (reference, tuned),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis) - 1,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(reference.sum() / tuned.sum() - 1, rel=1e-12)
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)
    assert ours.blocks == 60


def coverage(draw, truth, *, datasets=4000):
    """Share of simulated data sets whose interval holds the true difference."""
    rng, held = np.random.default_rng(3), 0
    for dataset in range(datasets):
        found = compare(*draw(rng), resamples=400, seed=dataset)
        held += found.low <= truth <= found.high
    return held / datasets


def test_interval_holds_the_truth_as_often_as_it_says():
    # Its standard error is 0.5 %. Percentile intervals of 40 blocks are a little narrow, SciPy's (88 %) too.
    assert coverage(lambda rng: rival_scores(rng, 40), 0.25) == pytest.approx(0.9, abs=0.03)


def test_windows_of_one_storm_need_blocks():
    storms = np.repeat(np.arange(40), 6)

    def storm(rng):
        pair = rival_scores(rng, 40)
        return [np.repeat(scores, 6) * rng.uniform(0.95, 1.05, 240) for scores in pair]

    assert coverage(lambda rng: (*storm(rng), storms), 0.25) == pytest.approx(0.9, abs=0.03)
    # One by one, the interval is sqrt(6) times too narrow: 1.645 / sqrt(6) standard errors either way.
    expected = math.erf(1.645 / math.sqrt(6) / math.sqrt(2))
    assert coverage(storm, 0.25, datasets=1500) == pytest.approx(expected, abs=0.04)


def test_equal_windows_of_a_block_count_as_one():
    reference, tuned = rival_scores(np.random.default_rng(4), 30)
    one = compare(reference, tuned)
    blocks = np.random.default_rng(5).permutation(np.repeat(np.arange(30), 7))
    many = compare(reference[blocks], tuned[blocks], blocks)
    assert many.blocks == one.blocks == 30
    assert (many.value, many.low, many.high) == pytest.approx((one.value, one.low, one.high), rel=1e-9)
    alone = compare(reference[blocks], tuned[blocks])
    ratio = (one.high - one.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(math.sqrt(7), rel=0.15)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(6)
    reference, tuned = rival_scores(rng, 80, gain=1.15)
    paired, unpaired = compare(reference, tuned), compare(reference, rng.permutation(tuned))
    assert unpaired.value == pytest.approx(paired.value)
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)
    assert paired.decided
    assert not unpaired.decided


@given(
    scores=st.lists(st.floats(0, 1e3), min_size=1, max_size=40),
    size=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50, deadline=None)
def test_equal_models_differ_by_exactly_nothing(scores, size, seed):
    blocks = np.arange(len(scores)) // size
    found = compare(scores, scores, blocks, resamples=100, seed=seed)
    assert found.value == 0
    assert not found.decided
    if found.blocks >= 5:
        assert (found.low, found.high) == (0, 0)


@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_units_do_not_matter_and_exchanged_models_give_the_inverse(factor, seed):
    reference, tuned = rival_scores(np.random.default_rng(seed), 20)
    found = compare(reference, tuned, resamples=500)
    scaled = compare(factor * reference, factor * tuned, resamples=500)
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx(
        (found.value, found.low, found.high), rel=1e-6
    )
    other = compare(tuned, reference, resamples=500)
    assert 1 + other.value == pytest.approx(1 / (1 + found.value))
    assert (1 + other.low, 1 + other.high) == pytest.approx((1 / (1 + found.high), 1 / (1 + found.low)))


@pytest.mark.parametrize("blocks", [1, 4, 5])
def test_fewer_than_five_blocks_have_no_interval(blocks):
    reference, tuned = rival_scores(np.random.default_rng(7), 20, gain=10.0)
    found = compare(reference, tuned, np.arange(20) % blocks)
    assert found.blocks == blocks
    assert found.value > 1
    assert math.isnan(found.low) == math.isnan(found.high) == (blocks < 5)
    assert found.decided == (blocks == 5)


def test_decided_is_an_interval_without_zero():
    for low, high, decided in [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]:
        assert Difference(0.0, low, high, blocks=9).decided == decided


def test_windows_without_rain_or_without_a_valid_pixel():
    reference, tuned = rival_scores(np.random.default_rng(8), 10)
    dry = np.zeros(10)
    found = compare(np.append(reference, dry), np.append(tuned, dry))
    assert found.value == compare(reference, tuned).value
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)
    nothing = crps_difference(
        statistics(dry, weight=dry), statistics(dry, weight=dry), torch.arange(10),
        resamples=100, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert (nothing.value, nothing.low, nothing.high, nothing.decided) == (0, 0, 0, False)


def test_a_perfect_model_is_infinitely_better_and_that_is_decided():
    found = compare(np.ones(10), np.zeros(10))
    assert found == Difference(math.inf, math.inf, math.inf, blocks=10)
    assert found.decided
    # Perfect on all windows but one: infinite in the 35 % of the resamples that leave this one out.
    mostly = compare(np.ones(10), np.eye(10)[0])
    assert mostly.value == pytest.approx(9)
    assert math.isfinite(mostly.low)
    assert mostly.high == math.inf
    assert mostly.decided


def test_nan_is_not_hidden():
    found = compare(np.append(np.ones(9), np.nan), np.ones(10))
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert not found.decided


def test_level_and_generator():
    reference, tuned = rival_scores(np.random.default_rng(9), 30)
    narrow, usual, wide = (compare(reference, tuned, level=level) for level in (0.5, 0.9, 0.99))
    assert wide.low < usual.low < narrow.low < usual.value < narrow.high < usual.high < wide.high
    assert compare(reference, tuned) == usual
    assert compare(reference, tuned, seed=1).low != usual.low


def test_other_windows_are_refused():
    one, other = statistics(np.ones(6)), statistics(np.ones(6), weight=[1, 1, 1, 1, 1, 2])
    generator = torch.Generator().manual_seed(0)
    for tuned, blocks in ((other, 6), (statistics(np.ones(5)), 5), (one, 5)):
        with pytest.raises(ValueError, match="same windows"):
            crps_difference(one, tuned, torch.arange(blocks), resamples=100, generator=generator)


def test_blocks_are_boxes_of_time_and_space():
    places = np.array([[0, 0, 0], [11, 48, 95], [12, 0, 0], [0, 96, 0], [0, 0, 96], [5, 95, 1], [23, 1, 1]])
    blocks = block_of(places, frames=12, pixels=96)
    assert blocks.dtype == torch.int64
    assert blocks[0] == blocks[1] == blocks[5]
    assert blocks[2] == blocks[6]
    assert len({int(blocks[i]) for i in (0, 2, 3, 4)}) == 4
    assert sorted(set(blocks.tolist())) == [0, 1, 2, 3]


@given(
    places=st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=1, max_size=30),
    frames=st.integers(1, 20),
    pixels=st.integers(1, 50),
)
@settings(max_examples=50, deadline=None)
def test_windows_share_a_block_if_and_only_if_they_share_a_box(places, frames, pixels):
    blocks = block_of(np.array(places), frames, pixels).tolist()
    boxes = [(t // frames, y // pixels, x // pixels) for t, y, x in places]
    assert len(set(zip(boxes, blocks, strict=True))) == len(set(boxes)) == len(set(blocks))
    assert set(blocks) == set(range(len(set(boxes))))
    moved = np.array(places) + 3 * np.array([frames, pixels, pixels])
    assert block_of(moved, frames, pixels).tolist() == blocks


def test_real_windows_fall_into_blocks(windows):
    places = windows.scored.places
    assert block_of(places, 1, 1).tolist() == list(
        range(len(places))
    )  # their order is that of time and space
    assert block_of(places, 10**6, 10**6).tolist() == [0] * len(places)
