"""How a split is gone through; which windows are found is in test_windows.py."""

import numpy as np
import pytest
import torch

from pipeline import FactorPair
from pipeline.config import DataSettings
from pipeline.data import window_index
from pipeline.data.chunk_cache import ChunkCache, Pieces
from pipeline.data.coarsen import block_mean
from pipeline.data.splits import Segment
from pipeline.data.view import FieldView
from pipeline.data.window_index import find_windows
from pipeline.data.windows import thin
from pipeline.store.field_store import write_store

SHAPE = (100, 140, 150)  # 5 x 2 x 2 chunks, 4 x 2 x 2 in the segment
SEGMENT = Segment(3, 95)


@pytest.fixture(scope="module")
def field():
    rng = np.random.default_rng(0)
    values = np.where(rng.random((100, 14, 15)) < 0.3, rng.gamma(1, 2, (100, 14, 15)), 0).astype("f4")
    values = values.repeat(10, axis=1).repeat(10, axis=2)
    values[20:23, :60] = np.nan
    values[60:64] = 0
    return values


@pytest.fixture(scope="module")
def large(field, tmp_path_factory):
    times = np.datetime64("2020-01-01") + np.arange(SHAPE[0]) * np.timedelta64(300, "s")
    y, x = (1000.0 * np.arange(size) for size in SHAPE[1:])
    url = str(tmp_path_factory.mktemp("stores") / "large.zarr")
    return write_store(url, field, times=times, y=y, x=x, name="large")


def find(view, pair="4x2", dense=True, segment=SEGMENT, **settings):
    settings = DataSettings(patch=24, min_wet=0.2, **settings)
    return find_windows(view, segment, FactorPair.parse(pair), settings, context=1, margin=2, dense=dense)


@pytest.fixture
def whole(large):
    return FieldView.load(large, SEGMENT, 4)


@pytest.mark.parametrize("pair", ["4x2", "8x3", "1x2", "6x5"])
@pytest.mark.parametrize("dense", [True, False])
def test_bands_and_chunks_change_nothing(large, whole, pair, dense, monkeypatch):
    expected = find(whole, pair, dense)
    assert expected.places.dtype == np.int32
    assert len(expected) > 50
    monkeypatch.setattr(window_index, "_BAND_BYTES", 2_000_000)  # a few rows of corners
    found = find(FieldView.load(large, SEGMENT, 0.003, 0.003), pair, dense)
    assert isinstance(found.view.values, Pieces)
    np.testing.assert_array_equal(found.places, expected.places)
    np.testing.assert_array_equal(found.wetness, expected.wetness)
    order = np.lexsort(expected.places.T[::-1])
    np.testing.assert_array_equal(order, np.arange(len(expected)))


def test_each_chunk_is_decoded_once(large, whole):
    cache = ChunkCache(2**24)  # 10 of the 16 chunks: those of two blocks of time
    view = FieldView(Pieces(large, SEGMENT, cache), SEGMENT.start, whole.statics)
    find(view)
    assert cache.loads == 16


def test_wetness_is_that_of_the_coarse_frame(field, whole):
    found, pair = find(whole, saturation=3.0), FactorPair(4, 2)
    for n in (0, len(found) // 2, len(found) - 1):
        t, y, x = found.places[n]
        target = torch.from_numpy(field[t : t + 2, y : y + 24, x : x + 24])
        coarse, _ = block_mean(target, torch.isfinite(target), pair)
        assert found.wetness[n] == pytest.approx(float((1 - torch.exp(-coarse / 3)).mean()), rel=1e-5)
    few = thin(found, 9, seed=1)
    for place, wetness in zip(few.places, few.wetness, strict=True):
        assert wetness == found.wetness[(found.places == place).all(axis=1)]


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("share", [2, 4])
def test_too_many_places_are_looked_at_in_some_blocks_of_time(large, whole, dense, share):
    every = find(whole, dense=dense)
    down, across = ((size // 4 * 4 - 24) // (12 if dense else 24) + 1 for size in SHAPE[1:])
    candidates = (90 if dense else 45) * down * across  # a frame of context, and pairs of frames
    cache = ChunkCache(2**30)
    view = FieldView(Pieces(large, SEGMENT, cache), SEGMENT.start, whole.statics)
    found = find(view, dense=dense, most_windows=candidates // share)
    blocks = np.unique(found.places[:, 0] // 24)
    assert len(blocks) == 4 // share
    assert cache.loads == 4 * len(blocks)  # none is decoded for the sake of another
    assert blocks.tolist() == {2: [1, 3], 4: [2]}[share]  # evenly spread
    inside = every.places[np.isin(every.places[:, 0] // 24, blocks) & (every.places[:, 0] % 24 <= 22)]
    np.testing.assert_array_equal(found.places, inside)
    np.testing.assert_array_equal(find(whole, dense=dense, most_windows=candidates).places, every.places)


def test_a_coarse_frame_longer_than_a_block_is_found_too(whole):
    pair, few = "4x30", 60
    found = find(whole, pair, most_windows=few)
    assert len(found)
    assert (found.places[:, 0] + 30 <= SEGMENT.stop).all()


def test_with_min_wet_0_dry_windows_are_kept(whole):
    settings = DataSettings(patch=24, min_wet=0.0)
    found = find_windows(whole, SEGMENT, FactorPair(4, 2), settings, context=1, margin=2, dense=True)
    assert (found.wetness[found.places[:, 0] == 61] == 0).all()
    assert (found.places[:, 0] == 61).sum() == 10 * 11
    assert not (find(whole).places[:, 0] == 61).any()
