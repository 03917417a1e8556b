"""Quantile mapping: a monotone map that leaves dry dry, fitted on training windows only."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.evaluation.baselines import bicubic
from pipeline.evaluation.quantile_mapping import QuantileMapping
from pipeline.factors import FactorPair

PAIR = FactorPair(4, 2)


def rain(seed, size=20_000, wet=0.5, power=1.0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(size) < wet, rng.gamma(0.7, 2.0, size) ** power, 0.0)


def fitted(modelled, observed):
    return QuantileMapping.from_values(PAIR, modelled, observed)


def mapped(mapping, values):
    return mapping.apply(torch.as_tensor(np.asarray(values))).numpy()


def test_a_known_stretching_is_found():
    x = rain(0)
    mapping = fitted(x, x**1.5)
    inside = np.linspace(0.05, mapping.modelled[-1], 200)
    np.testing.assert_allclose(mapped(mapping, inside), inside**1.5, rtol=0.05, atol=0.01)


def test_the_training_distribution_becomes_that_of_the_truth():
    modelled, observed = rain(1, wet=0.7, power=0.8), rain(2, wet=0.4, power=1.2)
    after = mapped(fitted(modelled, observed), modelled)
    for level in (0.5, 0.7, 0.9, 0.99, 0.999):
        assert np.quantile(after, level) == pytest.approx(np.quantile(observed, level), rel=0.03, abs=0.01)
    assert (after > 0.1).mean() == pytest.approx((observed > 0.1).mean(), abs=0.01)  # drizzle is dried


@given(st.integers(0, 50), st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.floats(0.3, 2.0))
@settings(max_examples=15, deadline=None)
def test_monotone_not_negative_and_dry_stays_dry(seed, wet, other_wet, power):
    modelled, observed = rain(seed, 3000, wet), rain(seed + 1, 3000, other_wet, power)
    mapping = fitted(modelled, observed)
    values = np.sort(np.concatenate([modelled, [0, 1e-12, 1e3, 1e4], mapping.modelled]))
    after = mapped(mapping, values)
    assert (np.diff(after) >= -1e-12).all()
    assert (after >= 0).all()
    assert (after[values == 0] == 0).all()


def test_beyond_the_last_quantile_its_correction_is_added():
    x = rain(3)
    mapping = fitted(x, 2 * x)
    last = mapping.modelled[-1]
    assert last < x.max()  # the largest values alone are noise
    correction = mapping.observed[-1] - last
    np.testing.assert_allclose(mapped(mapping, [last + 1, last + 50]) - [last + 1, last + 50], correction)
    assert mapping.levels[-1] == pytest.approx(1 - 10 / len(x))


def test_where_the_truth_is_wet_more_often_the_least_rain_becomes_what_it_has_at_that_rank():
    observed = np.linspace(0, 2, 10_000)
    mapping = fitted(np.where(observed > 1, observed, 0.0), observed)
    np.testing.assert_allclose(mapped(mapping, [0.0, 1e-6, 1.5]), [0.0, 1.0, 1.5], atol=0.03)
    assert np.isnan(mapped(mapping, [np.nan])).all()


def test_all_dry_and_all_wet():
    dry = np.zeros(1000)
    assert (mapped(fitted(dry, dry), [0.0, 1.0]) == [0.0, 1.0]).all()
    wet = 1 + rain(4, 1000)
    assert mapped(fitted(wet, wet), [0.0])[0] == 0
    np.testing.assert_allclose(mapped(fitted(wet, wet), [0.5, 2.0]), [0.5, 2.0])


def test_it_is_called_as_the_other_baselines(windows):
    mapping = QuantileMapping.fit(windows.train)
    batch = windows.scored.batch([0, 1])
    fine = mapping(batch.coarse, PAIR, batch.coarse_mask)
    smooth = bicubic(batch.coarse, PAIR, batch.coarse_mask)
    assert fine.shape == batch.fine.shape
    assert fine.dtype == batch.fine.dtype
    torch.testing.assert_close(fine, mapping.apply(smooth))
    assert not torch.allclose(fine, smooth)
    with pytest.raises(ValueError, match="fitted for 4x2, not for 2x1"):
        mapping(batch.coarse, FactorPair(2, 1), batch.coarse_mask)


def test_fitting_to_windows_sees_valid_pixels_only(windows):
    train = windows.train
    mapping = QuantileMapping.fit(train)
    chosen = np.unique(np.linspace(0, len(train) - 1, min(len(train), 1000)).round()).astype(int)
    batch = train.with_context(1).batch(chosen)
    smooth = bicubic(batch.coarse, PAIR, batch.coarse_mask)
    assert not batch.mask.all()
    by_hand = fitted(smooth[batch.mask].numpy(), batch.fine[batch.mask].numpy())
    assert mapping.values == by_hand.values == int(batch.mask.sum())
    np.testing.assert_allclose(mapping.modelled, by_hand.modelled, rtol=1e-6, atol=1e-9)
    assert QuantileMapping.fit(train, batch=3).to_json() == mapping.to_json()
    few = QuantileMapping.fit(train, most_values=20 * len(chosen))
    assert few.values <= 20 * len(chosen)
    assert few.to_json() == QuantileMapping.fit(train, most_values=20 * len(chosen), batch=5).to_json()


def test_written_and_read_again(one_line):
    mapping = fitted(rain(5), rain(6))
    again = QuantileMapping.from_json(mapping.to_json(), "map.json")
    assert again.pair == mapping.pair
    assert again.values == mapping.values
    for name in ("levels", "modelled", "observed"):
        assert (getattr(again, name) == getattr(mapping, name)).all()
    content = json.loads(mapping.to_json())
    broken = [
        "", "[]", "{}", json.dumps(content | {"version": 2}), json.dumps(content | {"modelled": [1.0]}),
        json.dumps(content | {"observed": content["observed"][::-1]}), json.dumps(content | {"pair": "4"}),
    ]  # fmt: skip
    for text in broken:
        with pytest.raises(UserError) as raised:
            QuantileMapping.from_json(text, "map.json")
        one_line(raised, "map.json", "remove it")


def test_too_few_pixels(one_line):
    with pytest.raises(UserError) as raised:
        fitted(np.ones(99), np.ones(99))
    one_line(raised, "4x2", "99 valid training pixels")
