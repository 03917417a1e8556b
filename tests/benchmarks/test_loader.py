import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline import UserError
from pipeline.benchmarks.loader import _crops, _settings, _ways, loader_benchmark, loader_speed
from pipeline.benchmarks.loader_memory import (
    large_store,
    loader_memory,
    loader_memory_benchmark,
    train_on,
)
from pipeline.config import Config
from pipeline.store.field_store import FieldStore


@pytest.fixture
def config(tiny, store, tmp_path):
    tree = tiny.model_dump() | {"output": str(tmp_path)}
    tree["data"] |= {"store": store.url}
    tree["training"] |= {"mean_steps": 2, "residual_steps": 2}
    return Config.model_validate(tree)


def test_all_ways_are_compared(config, pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "xbatcher", None)
    found = loader_benchmark(config, pair, windows=24, rounds=1)
    assert found.rates.pop("xbatcher") == []
    assert list(found.rates)[:2] == ["finescale", "xarray"]
    assert all(len(rates) == 1 and rates[0] > 0 for rates in found.rates.values())
    assert found.windows == 24
    assert found.cache <= found.split // 2
    assert len(found.busy) == 1
    text = str(replace(found, rates={**found.rates, "xbatcher": []}))
    assert text.startswith("loader: 24 windows of 6 x ")
    for part in ("times xarray", "a full shuffle's", "blocks of time per batch", "device busy", "4 steps"):
        assert part in text
    (line,) = (line for line in text.splitlines() if "xbatcher" in line)
    assert "not installed: pip install xbatcher" in line


def test_all_ways_read_the_same_windows(config, pair, store, rain):
    windows = _crops(config, store, pair)
    names = []
    settings, capacity = _settings(config, windows)
    ways = _ways(windows, store, config, settings, capacity)
    chosen = np.array([0, 7, len(windows) - 1])
    expected = []
    for t, y, x in windows.places[chosen]:
        past = (windows.context - 1) * pair.time
        expected.append(rain[t - past : t + pair.time, y : y + windows.patch, x : x + windows.patch])
    for name in ("finescale", "xarray", "xbatcher"):
        if name in ways:
            names.append(name)
            for found, wanted in zip(ways[name]()(chosen), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)
    assert names[:2] == ["finescale", "xarray"]


def test_a_large_store_is_a_few_chunks_many_times(tmp_path):
    large_store(str(tmp_path / "large.zarr"), frames=24 * 6 + 5, side=150)
    store = FieldStore.open(str(tmp_path / "large.zarr"))
    assert store.shape == (24 * 6, 150, 150)
    assert len(store.times) == 24 * 6
    first, later = store.read(0, 24), store.read(24 * 4, 24 * 5)
    assert (first > 0.1).any()
    np.testing.assert_array_equal(first, later)


@pytest.mark.parametrize("alone", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_a_training_on_it_holds_is_measured(config, pair, tmp_path, alone):
    path = str(tmp_path / "large.zarr")
    if alone:
        found = loader_memory_benchmark(config, pair, path, frames=96, side=64)
    else:
        large_store(path, frames=96, side=64)
        found = train_on(config, pair, path)
    assert 0 < found.before <= found.peak
    assert found.windows > 0
    assert found.steps == 4
    assert "loader-memory: a field of 0.0 GB" in str(found)


@pytest.mark.parametrize("measure", [loader_speed, loader_memory])
def test_they_measure_one_pair(config, measure, one_line):
    with pytest.raises(UserError) as raised:
        measure(config)
    one_line(raised, "tuning.pairs: give one pair to measure, not 0")
