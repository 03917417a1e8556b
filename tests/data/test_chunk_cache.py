import pickle
import threading

import numpy as np
import pytest

from pipeline.data.chunk_cache import ChunkCache, Pieces, shared_cache
from pipeline.data.splits import Segment
from pipeline.data.view import FieldView
from pipeline.store.field_store import write_store

SHAPE = (52, 150, 140)  # 3 x 2 x 2 chunks of 24 x 128 x 128, most of them cut off


@pytest.fixture(scope="module")
def field():
    values = np.random.default_rng(0).random(SHAPE, dtype="f4")
    values[5, 3:9] = np.nan
    return values


@pytest.fixture(scope="module")
def wind(field):
    return (1 - field).astype("f4")


@pytest.fixture(scope="module")
def big(field, wind, tmp_path_factory):
    times = np.datetime64("2020-01-01") + np.arange(SHAPE[0]) * np.timedelta64(300, "s")
    y, x = (np.arange(size, dtype="f8") for size in SHAPE[1:])
    url = str(tmp_path_factory.mktemp("stores") / "big.zarr")
    return write_store(url, field, times=times, y=y, x=x, name="big", dynamics={"u10": wind})


def array(megabytes=1):
    return np.zeros(megabytes * 2**18, "f4")


def test_the_oldest_go_when_it_is_full():
    cache = ChunkCache(3 * 2**20)
    for key in "abc":
        cache.get(key, array)
    cache.get("a", array)  # used again: now b is the oldest
    cache.get("d", array)
    assert (cache.loads, cache.held) == (4, 3 * 2**20)
    for key in "acd":
        cache.get(key, lambda: pytest.fail("it was there"))
    cache.get("b", array)
    assert cache.loads == 5


@pytest.mark.parametrize("capacity", [0, 2**20])
def test_what_does_not_fit_is_given_and_not_kept(capacity):
    cache = ChunkCache(capacity)
    assert cache.get("large", lambda: array(2)).nbytes == 2 * 2**20
    assert cache.held == 0
    cache.get("large", lambda: array(2))
    assert cache.loads == 2


def test_what_one_thread_loads_the_others_wait_for():
    cache, begun, go_on, found = ChunkCache(2**30), threading.Event(), threading.Event(), []

    def load():
        begun.set()
        assert go_on.wait(30)
        return array()

    def ask():
        found.append(cache.get("a", load))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    cache.get("b", array)  # another one does not have to wait
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert cache.loads == 2
    assert len(found) == 4
    assert all(one is found[0] for one in found)


def test_an_error_is_not_kept():
    cache = ChunkCache(2**30)

    def fail():
        raise OSError("the store has gone away")

    with pytest.raises(OSError, match="gone away"):
        cache.get("a", fail)
    assert cache.get("a", array).nbytes == 2**20


def test_nobody_can_write_to_what_is_shared():
    with pytest.raises(ValueError, match="read-only"):
        ChunkCache(2**30).get("a", array)[0] = 1


def test_another_process_begins_with_nothing():
    cache = ChunkCache(2**30)
    cache.get("a", array)
    other = pickle.loads(pickle.dumps(cache))
    assert (other.capacity, other.held, other.loads) == (2**30, 0, 0)


def test_a_view_goes_to_another_process(big, field):
    view = FieldView.load(big, Segment(10, 40), 0.001, 0.001)
    view.read(12, 14)
    other = pickle.loads(pickle.dumps(view))
    assert other.values.cache.loads == 0
    np.testing.assert_array_equal(other.read(12, 14), field[12:14])


@pytest.mark.parametrize("segment", [Segment(0, 52), Segment(10, 40), Segment(25, 26)], ids=str)
@pytest.mark.parametrize("variable", [None, "u10"])
def test_pieces_are_what_the_store_has(big, field, wind, segment, variable):
    pieces = Pieces(big, segment, ChunkCache(2**30))
    wanted = field if variable is None else wind
    rng = np.random.default_rng(1)
    for _ in range(30):
        t, y, x = (
            np.sort(rng.integers(a, b + 1, 2)) for a, b in ((segment.start, segment.stop), (0, 150), (0, 140))
        )
        found = pieces.read(*t, slice(*y), slice(*x), variable)
        np.testing.assert_array_equal(found, wanted[slice(*t), slice(*y), slice(*x)])
    assert pieces.cache.loads <= 12
    assert pieces.cache.held <= wanted[segment.start : segment.stop].nbytes  # cut to the split


def test_a_window_costs_the_chunks_it_lies_in(big):
    pieces = Pieces(big, Segment(0, 52), ChunkCache(2**30))
    pieces.read(2, 8, slice(0, 64), slice(10, 74))
    assert pieces.cache.loads == 1
    pieces.read(20, 26, slice(100, 140), slice(10, 74))
    assert pieces.cache.loads == 4  # 2 x 2 x 1, one of them there already


def test_many_threads_read_the_same(big, field):
    pieces, wrong = Pieces(big, Segment(0, 52), ChunkCache(3 * 2**20)), []  # of 7 MB

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            t, y, x = rng.integers(0, (46, 86, 76))
            found = pieces.read(t, t + 6, slice(y, y + 64), slice(x, x + 64))
            if not np.array_equal(found, field[t : t + 6, y : y + 64, x : x + 64], equal_nan=True):
                wrong.append((t, y, x))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert pieces.cache.held <= 3 * 2**20
    assert pieces.cache.loads > 12  # some were dropped and came again


def test_all_splits_of_a_store_share_one_cache(big):
    shared_cache.cache_clear()
    one, other = (FieldView.load(big, segment, 0.001, 0.001) for segment in (Segment(0, 30), Segment(30, 52)))
    assert one.values.cache is other.values.cache
    one.read(0, 30), other.read(30, 52)
    assert one.values.cache.held <= 0.001 * 2**30
    assert FieldView.load(big, Segment(0, 52), 0.001, 2).values.cache.capacity == 2 * 2**30


def test_dynamic_covariates_count_for_what_fits(big, wind):
    size = 52 * 150 * 140 * 4 / 2**30
    assert isinstance(FieldView.load(big, Segment(0, 52), 1.9 * size).values, Pieces)
    view = FieldView.load(big, Segment(0, 52), 2.1 * size)
    assert isinstance(view.values, np.ndarray)
    np.testing.assert_array_equal(view.read(7, 9, variable="u10"), wind[7:9])
