import numpy as np
import pytest
import torch

from pipeline import FactorPair
from pipeline.data.importance import Importance
from pipeline.data.order import EpochOrder, Groups, Mixing
from pipeline.data.view import FieldView
from pipeline.data.windows import Windows
from pipeline.diffusion.noise import step_generator

BLOCKS = (4, 16, 16)


def make_windows(frames=40, side=64, context=1):
    """Give all windows of 8 x 8 pixels, 4 apart, over a field that is as wet as its block of time says."""
    view = FieldView(np.zeros((frames, side, side), "f4"), 0, torch.zeros(0, side, side), blocks=BLOCKS)
    corners = np.arange(0, side - 7, 4)
    places = np.stack(np.meshgrid(np.arange(8, frames), corners, corners, indexing="ij"), -1).reshape(-1, 3)
    rng = np.random.default_rng(0)
    wetness = rng.random(frames)[places[:, 0] // 4 * 4] + 0.1 * rng.random(len(places))
    return Windows(view, FactorPair(4, 1), context, 8, places.astype("i4"), wetness=wetness.astype("f4"))


WINDOWS = make_windows()
GROUPS = Groups.by_chunk(WINDOWS, pool_bytes=1)


def with_pool(pool):
    return Groups(GROUPS.of, GROUPS.count, pool)


def order(groups=None, seed=0, stage="mean", importance=None):
    return EpochOrder(len(WINDOWS), seed, stage, groups, importance)


def test_groups_are_the_chunks_that_targets_begin_in():
    blocks = WINDOWS.places // np.array(BLOCKS)
    for group in range(0, GROUPS.count, 7):
        assert len(np.unique(blocks[group == GROUPS.of], axis=0)) == 1
    assert len(np.unique(blocks, axis=0)) == GROUPS.count == len(np.unique(GROUPS.of))
    assert GROUPS.of.dtype == np.int32


@pytest.mark.parametrize(
    ("context", "chunks"),
    [(1, 1 * 2 * 2), (2, 2 * 2 * 2), (5, 2 * 2 * 2), (6, 3 * 2 * 2)],  # tau = 1: L - 1 frames of past
)
def test_a_pool_is_what_its_chunks_leave_room_for(context, chunks):
    chunk = 4 * np.prod(BLOCKS)
    windows = WINDOWS.with_context(context)
    assert Groups.by_chunk(windows, 5.5 * chunks * chunk).pool == 5
    assert Groups.by_chunk(windows, 1).pool == 1


def test_without_groups_it_is_the_shuffle_that_it_always_was():
    for seed, stage, epoch in ((0, "mean", 0), (3, "residual", 7)):
        generator = step_generator(seed, stage, "epoch", epoch)
        expected = torch.randperm(len(WINDOWS), generator=generator).numpy()
        for groups in (None, with_pool(GROUPS.count)):
            found = order(groups, seed, stage).epoch(epoch)
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == np.int32


@pytest.mark.parametrize("pool", [1, 3, 20])
def test_every_window_comes_once_and_a_few_groups_at_a_time(pool):
    found = order(with_pool(pool)).epoch(0)
    assert sorted(found) == list(range(len(WINDOWS)))
    groups = GROUPS.of[found]
    size = len(WINDOWS) / GROUPS.count
    stretch = int(size * pool)
    seen = [len(np.unique(groups[k : k + stretch])) for k in range(0, len(found) - stretch, stretch)]
    assert max(seen) <= 2.6 * pool + 1  # those that are there at its beginning, and those that enter
    assert np.median(seen) > pool
    changes = len(np.unique(np.stack([groups[:-1], groups[1:]]), axis=1).T)
    assert pool == 1 or changes > 2 * GROUPS.count  # they are mixed, not one after the other


def test_epochs_differ_and_are_functions_of_seed_stage_and_number():
    keys = [(seed, stage, epoch) for seed in (0, 1) for stage in ("mean", "residual") for epoch in (0, 1, 2)]
    groups = with_pool(5)
    found = [tuple(order(groups, seed, stage).epoch(epoch)) for seed, stage, epoch in keys]
    assert len(set(found)) == len(keys)
    late = order(groups, 1, "residual")  # straight to the last, as after a resume
    assert tuple(late.epoch(2)) == found[-1]


def test_positions_run_over_the_ends_of_epochs():
    one, count = order(with_pool(5)), len(WINDOWS)
    whole = np.concatenate([one.epoch(n) for n in range(4)])
    for start, stop in ((0, 5), (count - 3, count + 4), (count // 2, 3 * count + 1), (2 * count, 3 * count)):
        np.testing.assert_array_equal(one.positions(start, stop), whole[start:stop])


@pytest.mark.parametrize("groups", [None, with_pool(5)])
def test_wet_windows_come_more_often(groups):
    importance = Importance.of(WINDOWS.wetness, 0.1)
    one = order(groups, importance=importance)
    counts = np.bincount(one.epoch(0), minlength=len(WINDOWS))
    assert counts.sum() == len(WINDOWS)
    assert (np.abs(counts - importance.chances * len(WINDOWS)) < 1).all()
    assert not np.array_equal(one.epoch(0), one.epoch(1))
    assert not np.array_equal(one.epoch(0), np.sort(one.epoch(0)))


def test_mixing_tells_a_shuffle_from_a_pool_from_no_shuffle():
    found = {
        pool: Mixing.of(order(with_pool(pool)).epoch(0), WINDOWS, batch=8) for pool in (1, 8, GROUPS.count)
    }
    assert found[GROUPS.count].variance == pytest.approx(1, abs=0.15)
    assert 1.15 < found[8].variance < 0.6 * found[1].variance
    in_order = Mixing.of(np.arange(len(WINDOWS)), WINDOWS, batch=8)
    assert in_order.variance > 5
    assert max(in_order.blocks, found[1].blocks) < 1.2
    assert 3 < found[8].blocks < found[8].blocks_shuffled
    assert found[8].blocks_shuffled == pytest.approx(found[GROUPS.count].blocks, rel=0.05)


def test_the_pool_mixes_as_well_at_the_beginning_and_the_end_as_between():
    blocks = (WINDOWS.places[:, 0] // 4)[order(with_pool(20)).epoch(0)]
    parts = [len(np.unique(blocks[k : k + 60])) for k in (0, len(blocks) // 2, len(blocks) - 60)]
    assert min(parts) >= 6  # of 8
