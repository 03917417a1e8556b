import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import FactorPair, UserError
from pipeline.config import TrainingSettings
from pipeline.data.windows import FieldView, Windows, _turn
from pipeline.ranks import Ranks, part
from pipeline.training.feed import Feed

VIEW = FieldView(np.arange(200 * 64, dtype="f4").reshape(200, 8, 8), 0, torch.zeros(0, 8, 8))


def make_feed(
    count=20, batch=4, rank=0, world=1, seed=0, stage="mean", windows=None, augment=False, **parallel
):
    places = np.array([[time, 0, 0] for time in range(count)])
    tree = {"batch": batch, "augment": augment, "parallel": parallel}
    return Feed(
        windows or Windows(VIEW, FactorPair(4, 1), 1, 8, places),
        TrainingSettings.model_validate(tree),
        seed,
        stage,
        Ranks(rank, world),
    )


def seen(parts):
    return [time for one in parts for time in one.batch.position[:, 0].tolist()]


@settings(max_examples=60, deadline=None)
@given(items=st.integers(0, 30), count=st.integers(1, 8), start=st.integers(0, 5))
def test_parts_are_contiguous_complete_and_even(items, count, start):
    whole = range(start, start + items)
    parts = [part(whole, number, count) for number in range(count)]
    assert [item for one in parts for item in one] == list(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 40),
    spare=st.integers(0, 5),
    world=st.integers(1, 4),
    accumulate=st.integers(1, 2),
    seed=st.integers(0, 3),
)
def test_every_window_comes_once_per_epoch_over_all_ranks_together(count, spare, world, accumulate, seed):
    batch = world * accumulate + spare
    feeds = [make_feed(count, batch, rank, world, seed, accumulate=accumulate) for rank in range(world)]
    drawn = []
    for step in range(-(-3 * count // batch)):
        read = [feed.step(step) for feed in feeds]
        assert all(len(parts) == accumulate for parts in read)
        assert all(len(one.batch) == len(one.draws.numbers) > 0 for parts in read for one in parts)
        assert [n for parts in read for one in parts for n in one.draws.numbers] == list(range(batch))
        drawn += [time for parts in read for time in seen(parts)]
    epochs = [drawn[n * count : (n + 1) * count] for n in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(count))
    if count > 8:
        assert len({tuple(epoch) for epoch in epochs}) == 3  # each in an order of its own


def test_the_order_depends_on_seed_and_stage():
    orders = {
        tuple(make_feed(seed=seed, stage=stage).indices(0))
        for seed, stage in ((0, "mean"), (1, "mean"), (0, "residual"))
    }
    assert len(orders) == 3


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5, 50])
@pytest.mark.parametrize(("first", "stop"), [(0, 12), (7, 12), (11, 12), (12, 12)])
def test_reading_ahead_changes_nothing_also_after_a_resume(prefetch, first, stop):
    feed = make_feed(rank=1, world=2, accumulate=2, prefetch=prefetch)
    read = list(feed.steps(first, stop))
    plain = [feed.step(step) for step in range(first, stop)]
    assert len(read) == stop - first
    for parts, expected in zip(read, plain, strict=True):
        assert [one.draws for one in parts] == [one.draws for one in expected]
        for one, other in zip(parts, expected, strict=True):
            assert torch.equal(one.batch.fine, other.batch.fine)
    assert readers() == []


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


class Broken:
    """Windows of a store that goes away."""

    def __init__(self, windows, fails_at):
        self.windows, self.fails_at, self.read = windows, fails_at, 0

    def __len__(self):
        return len(self.windows)

    def batch(self, indices, symmetries=None):
        self.read += 1
        if self.read == self.fails_at:
            raise OSError("the store has gone away")
        return self.windows.batch(indices, symmetries)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_what_goes_wrong_in_the_reader_comes_out_after_the_steps_before(prefetch):
    plain, steps = make_feed(), []
    reading = make_feed(windows=Broken(plain.windows, fails_at=4), prefetch=prefetch).steps(0, 10)
    with pytest.raises(OSError, match="gone away"):
        steps.extend(map(seen, reading))
    assert steps == [seen(plain.step(n)) for n in range(3)]
    assert readers() == []


def test_reading_stays_a_few_steps_ahead_and_ends_when_closed():
    windows = Broken(make_feed().windows, fails_at=None)
    steps = make_feed(windows=windows, prefetch=2).steps(0, 100)
    next(steps)
    assert len(readers()) == 1
    steps.close()
    assert readers() == []
    assert windows.read <= 3


def test_symmetries_are_those_of_the_draws():
    plain, turned = make_feed(augment=False).step(3), make_feed(augment=True).step(3)
    symmetries = turned[0].draws.symmetries()
    assert len(set(symmetries)) > 1
    for n, symmetry in enumerate(symmetries):
        assert torch.equal(_turn(plain[0].batch.fine[n], symmetry), turned[0].batch.fine[n])


def test_a_window_is_turned_the_same_on_any_ranks():
    whole = make_feed(augment=True).step(2)[0]
    parts = [make_feed(augment=True, rank=rank, world=2).step(2)[0] for rank in range(2)]
    assert torch.equal(torch.cat([one.batch.fine for one in parts]), whole.batch.fine)


@pytest.mark.parametrize(("batch", "world", "accumulate"), [(3, 4, 1), (7, 4, 2), (1, 1, 2)])
def test_a_batch_that_leaves_a_rank_without_windows_is_refused(batch, world, accumulate, one_line):
    with pytest.raises(UserError) as raised:
        make_feed(batch=batch, world=world, accumulate=accumulate)
    one_line(raised, "training.batch", str(batch), str(world * accumulate))
    replace(make_feed(batch=world * accumulate, world=world, accumulate=accumulate), ranks=Ranks(0, world))
