import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import FactorPair, UserError
from pipeline.config import TrainingSettings
from pipeline.data.chunk_cache import ChunkCache, Pieces
from pipeline.data.covariates import Covariate, Covariates
from pipeline.data.splits import Segment
from pipeline.data.symmetries import turn
from pipeline.data.view import FieldView
from pipeline.data.windows import Windows
from pipeline.ranks import Ranks, part
from pipeline.settings.training import ParallelSettings
from pipeline.store.field_store import write_store
from pipeline.training.feed import Feed, notes

VIEW = FieldView(np.arange(200 * 64, dtype="f4").reshape(200, 8, 8), 0, torch.zeros(0, 8, 8))


def make_feed(
    count=20, batch=4, rank=0, world=1, seed=0, stage="mean", windows=None, augment=False, **others
):
    places = np.array([[time, 0, 0] for time in range(count)])
    parallel = {name: others.pop(name) for name in list(others) if name in ParallelSettings.model_fields}
    tree = {"batch": batch, "augment": augment, "parallel": parallel, **others}
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


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 1), (1, 1), (2, 2), (5, 3), (50, 4)])
@pytest.mark.parametrize(("first", "stop"), [(0, 12), (7, 12), (11, 12), (12, 12)])
def test_reading_ahead_changes_nothing_also_after_a_resume(prefetch, readers, first, stop):
    feed = make_feed(rank=1, world=2, accumulate=2, prefetch=prefetch, readers=readers)
    read = list(feed.steps(first, stop))
    plain = [feed.step(step) for step in range(first, stop)]
    assert len(read) == stop - first
    for parts, expected in zip(read, plain, strict=True):
        assert [one.draws for one in parts] == [one.draws for one in expected]
        for one, other in zip(parts, expected, strict=True):
            assert torch.equal(one.batch.fine, other.batch.fine)
    assert threads() == []


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


class Broken:
    """Windows of a store that goes away."""

    def __init__(self, windows, fails_on=()):
        self.windows, self.fails_on, self.read = windows, list(fails_on), 0
        self.view, self.covariates = windows.view, windows.covariates

    def __len__(self):
        return len(self.windows)

    def batch(self, indices, symmetries=None):
        self.read += 1
        if list(indices) == self.fails_on:
            raise OSError("the store has gone away")
        return self.windows.batch(indices, symmetries)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_what_goes_wrong_in_the_reader_comes_out_after_the_steps_before(prefetch):
    plain, steps = make_feed(), []
    broken = Broken(plain.windows, fails_on=plain.indices(3))
    reading = make_feed(windows=broken, prefetch=prefetch).steps(0, 10)
    with pytest.raises(OSError, match="gone away"):
        steps.extend(map(seen, reading))
    assert steps == [seen(plain.step(n)) for n in range(3)]
    assert threads() == []


def test_reading_stays_a_few_steps_ahead_and_ends_when_closed():
    windows = Broken(make_feed().windows)
    steps = make_feed(windows=windows, prefetch=2).steps(0, 100)
    next(steps)
    assert 1 <= len(threads()) <= 2
    steps.close()
    assert threads() == []
    assert windows.read <= 3


def test_symmetries_are_those_of_the_draws():
    plain, turned = make_feed(augment=False).step(3), make_feed(augment=True).step(3)
    symmetries = turned[0].draws.symmetries()
    assert len(set(symmetries)) > 1
    for n, symmetry in enumerate(symmetries):
        assert torch.equal(turn(plain[0].batch.fine[n], symmetry), turned[0].batch.fine[n])


def test_a_window_is_turned_the_same_on_any_ranks():
    whole = make_feed(augment=True).step(2)[0]
    parts = [make_feed(augment=True, rank=rank, world=2).step(2)[0] for rank in range(2)]
    assert torch.equal(torch.cat([one.batch.fine for one in parts]), whole.batch.fine)


def test_a_field_is_turned_only_as_its_covariates_and_grid_allow():
    wind = Covariates(dynamics=(Covariate(name="u10", mean=0.5, spread=1),))
    views = {
        "square": replace(VIEW, vectors=("u10",)),
        "oblong": replace(VIEW, symmetries=(0, 1, 2, 3)),
        "wind": replace(VIEW, vectors=("u10",), dynamics={"u10": VIEW.values}),
    }
    plain, found, said = make_feed().windows, {}, {}
    for name, view in views.items():
        windows = replace(plain, view=view, covariates=wind if name == "wind" else Covariates())
        feed = make_feed(batch=20, windows=windows, augment=True)
        one = feed.step(0)[0]
        fields = plain.batch(feed.indices(0)).fine
        found[name] = {
            next(k for k in range(8) if torch.equal(turn(fields[n], k), one.batch.fine[n])) for n in range(20)
        }
        said[name] = notes(windows, feed.settings)
    assert max(found["square"]) > 3
    assert found["oblong"] == {0, 1, 2, 3}
    assert found["wind"] == {0}
    assert said["square"] == []
    assert "not square" in said["oblong"][0]
    assert "vector" in said["wind"][0]


def test_wet_windows_come_more_often_and_count_the_less():
    wetness = np.linspace(0, 1, 20, dtype="f4")
    windows = replace(make_feed().windows, wetness=wetness)
    feeds = [
        make_feed(batch=10, rank=rank, world=2, windows=windows, sampling="wet", sampling_floor=0.2)
        for rank in range(2)
    ]
    read = [feed.step(step)[0].batch for step in range(2) for feed in feeds]  # an epoch
    times = torch.cat([batch.position[:, 0] for batch in read]).numpy()
    chances = (wetness + 0.2) / (wetness + 0.2).sum()
    assert (np.abs(np.bincount(times, minlength=20) - 20 * chances) < 1).all()
    weights = torch.cat([batch.weights for batch in read])
    np.testing.assert_allclose(weights, 1 / (20 * chances[times]), rtol=1e-5)
    assert len(set(times)) < 20
    assert (make_feed().step(0)[0].batch.weights == 1).all()


def test_windows_of_a_large_split_come_from_a_pool_whatever_the_memory(tmp_path):
    view = replace(VIEW, blocks=(4, 8, 8))
    windows = replace(make_feed(count=160).windows, view=view)
    whole, pooled = make_feed(windows=windows), make_feed(windows=windows, shuffle_gib=0, pool_gib=5e-6)
    assert whole.order.groups is None
    assert pooled.order.groups.pool == 5
    assert sorted(pooled.order.epoch(0)) == list(range(160))
    assert not np.array_equal(whole.indices(0), pooled.indices(0))
    times = np.datetime64("2020-01-01") + np.arange(200) * np.timedelta64(300, "s")
    axis = np.arange(8.0)
    store = write_store(str(tmp_path / "a.zarr"), VIEW.values, times=times, y=axis, x=axis, name="a")
    stored = replace(view, values=Pieces(store, Segment(0, 200), ChunkCache(1000)))
    lazy = make_feed(windows=replace(windows, view=stored), shuffle_gib=0, pool_gib=5e-6, readers=3)
    for one, other in zip(lazy.steps(3, 9), pooled.steps(3, 9), strict=True):
        assert torch.equal(one[0].batch.fine, other[0].batch.fine)
    assert "data.cache_gib" in notes(lazy.windows, lazy.settings)[0]
    assert notes(pooled.windows, pooled.settings) == []
    wind = Covariates(dynamics=tuple(Covariate(name=name, mean=0, spread=1) for name in "uvw"))
    gib = 1.5 * VIEW.values.nbytes / 2**30  # room for the field, not for three covariates beside it
    assert make_feed(windows=windows, shuffle_gib=gib, pool_gib=5e-6).order.groups is None
    moist = replace(windows, covariates=wind)
    assert make_feed(windows=moist, shuffle_gib=gib, pool_gib=5e-6).order.groups is not None


@pytest.mark.parametrize(("batch", "world", "accumulate"), [(3, 4, 1), (7, 4, 2), (1, 1, 2)])
def test_a_batch_that_leaves_a_rank_without_windows_is_refused(batch, world, accumulate, one_line):
    with pytest.raises(UserError) as raised:
        make_feed(batch=batch, world=world, accumulate=accumulate)
    one_line(raised, "training.batch", str(batch), str(world * accumulate))
    replace(make_feed(batch=world * accumulate, world=world, accumulate=accumulate), ranks=Ranks(0, world))
