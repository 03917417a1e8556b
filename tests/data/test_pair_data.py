from types import SimpleNamespace

import numpy as np
import pytest

from pipeline import FactorPair, UserError
from pipeline.config import DataSettings, SplitSettings
from pipeline.data import pair_data
from pipeline.data.pair_data import PairData
from pipeline.store.field_store import write_store


def store_of(field, folder):
    T, H, W = field.shape
    times = np.datetime64("2020-01-01") + np.arange(T) * np.timedelta64(300, "s")
    y, x = np.arange(H, dtype="f8"), np.arange(W, dtype="f8")
    return write_store(str(folder / "field.zarr"), field.astype("f4"), times=times, y=y, x=x, name="test")


def test_statistics_come_from_valid_training_values_only(tmp_path):
    rng = np.random.default_rng(0)
    field = rng.gamma(0.5, 3, (40, 16, 16))
    field[:24, :8, :8] = np.nan  # half of the training period's ...
    field[24:] = 1e4  # and all later values must not be seen
    settings = DataSettings(patch=8, min_valid=0.5)
    data = PairData.prepare(store_of(field, tmp_path), FactorPair(2, 1), settings, wanted_context=2)
    seen = field[:24][np.isfinite(field[:24])]
    assert data.transform.unit == pytest.approx(seen[seen > settings.wet_threshold].mean(), rel=1e-4)
    bent = np.log1p(seen / data.transform.unit)
    assert data.transform.spread == pytest.approx(bent.std(ddof=1), rel=1e-4)
    blocks = field[:24].reshape(24, 8, 2, 8, 2).mean(axis=(2, 4))
    assert data.scale == pytest.approx(np.nanmax(blocks), rel=1e-5)


def test_scored_windows_are_thinned_and_the_same_for_every_context(data):
    scoring = SimpleNamespace(windows=3, test_windows=2)
    for split, count in (("validation", 3), ("test", 2)):
        one, other = (data.scored_windows(split, context, scoring, seed=0) for context in (1, 3))
        assert len(one) == count
        np.testing.assert_array_equal(one.places, other.places)
        assert (one.context, other.context) == (1, 3)


def test_a_dry_training_period(tmp_path, one_line):
    field = np.zeros((40, 16, 16))
    field[30:] = 5
    with pytest.raises(UserError) as raised:
        PairData.prepare(store_of(field, tmp_path), FactorPair(2, 1), DataSettings(patch=8), 2)
    one_line(raised, "give a longer period")


def test_a_training_period_without_values(tmp_path, one_line):
    field = np.ones((40, 16, 16))
    field[:24] = np.nan
    with pytest.raises(UserError) as raised:
        PairData.prepare(store_of(field, tmp_path), FactorPair(2, 1), DataSettings(patch=8), 2)
    one_line(raised, "training")


def test_a_pair_longer_than_a_split(tmp_path, one_line):
    store = store_of(np.ones((20, 16, 16)), tmp_path)
    settings = DataSettings(patch=8, split=SplitSettings(train=0.8, validation=0.1, test=0.1))
    with pytest.raises(UserError) as raised:
        PairData.prepare(store, FactorPair(2, 3), settings, 2)
    one_line(raised, "2x3", "data.split")


def test_a_short_store_shortens_the_context(tmp_path):
    rng = np.random.default_rng(0)
    store = store_of(rng.gamma(0.5, 3, (20, 16, 16)), tmp_path)  # validation and test of 4 frames
    assert PairData.prepare(store, FactorPair(2, 2), DataSettings(patch=8), wanted_context=9).max_context == 2


def test_frames_too_large_for_memory_are_fitted_to_in_bands(store, pair, tiny, data, monkeypatch):
    monkeypatch.setattr(pair_data, "_BAND_VALUES", 2 * 48 * 9)  # 9 rows: bands of 8 and a smaller last one
    banded = PairData.prepare(store, pair, tiny.data, wanted_context=3)
    assert banded.scale == data.scale
    assert banded.transform.unit == pytest.approx(data.transform.unit)
    assert banded.transform.spread == pytest.approx(data.transform.spread)
    assert banded.covariates == data.covariates


def test_very_many_values_are_thinned_evenly(store, pair, tiny, data, monkeypatch):
    monkeypatch.setattr(pair_data, "_FIT_VALUES", 10_000)
    thinned = PairData.prepare(store, pair, tiny.data, wanted_context=3)
    assert thinned.scale == data.scale
    assert thinned.transform != data.transform
    assert thinned.transform.unit == pytest.approx(data.transform.unit, rel=0.1)
    assert thinned.transform.spread == pytest.approx(data.transform.spread, rel=0.1)
