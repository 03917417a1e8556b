import numpy as np
import pytest
import torch

from pipeline import FactorPair, UserError
from pipeline.config import DataSettings
from pipeline.config_layers import load_config, parse_assignment
from pipeline.data.covariates import Covariate, Covariates, standardised
from pipeline.data.pair_data import PairData
from pipeline.store.field_store import write_store

PAIR = FactorPair(2, 2)
TRAINING = 24  # of 40 frames
SETTINGS = DataSettings(patch=8, min_wet=0.0)


@pytest.fixture(scope="module")
def fields():
    rng = np.random.default_rng(0)
    wind = rng.normal(7, 3, (40, 16, 16)).astype("f4")
    wind[2, :4, :4] = np.nan  # half of four coarse cells: still valid
    wind[4:6, 8:, 8:] = np.nan  # all of some
    wind[TRAINING:] = 1e4  # must not be seen
    humidity = rng.gamma(2, 1e-7, (40, 16, 16)).astype("f4")
    return {"wind": wind, "humidity": humidity}


@pytest.fixture(scope="module")
def orography():
    return np.random.default_rng(1).normal(300, 80, (16, 16)).astype("f4")


@pytest.fixture(scope="module")
def store(fields, orography, tmp_path_factory):
    rain = np.random.default_rng(2).gamma(0.5, 3, (40, 16, 16)).astype("f4")
    return write_store(
        str(tmp_path_factory.mktemp("covariates") / "rain.zarr"),
        rain,
        times=np.datetime64("2020-01-01") + np.arange(40) * np.timedelta64(300, "s"),
        y=np.arange(16.0),
        x=np.arange(16.0),
        name="windy",
        statics={"orography": orography, "flat": np.full((16, 16), 12.0, "f4")},
        dynamics=fields,
    )


def coarse(field):
    """Mean of blocks of 2 x 2 x 2, NaN where less than half of a block is there."""
    blocks = field.reshape(-1, 2, 8, 2, 8, 2).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 8, 8, 8)
    known = np.isfinite(blocks)
    mean = np.where(known, blocks, 0).sum(-1) / np.maximum(known.sum(-1), 1)
    return np.where(known.mean(-1) >= 0.5, mean, np.nan)


def test_statics_are_fitted_to_the_grid_and_dynamics_to_coarse_training_values(store, fields, orography):
    found = PairData.prepare(store, PAIR, SETTINGS, 2).covariates
    assert [one.name for one in found.statics] == ["flat", "orography"]
    assert [one.name for one in found.dynamics] == ["humidity", "wind"]
    numbers = {one.name: (one.mean, one.spread) for one in (*found.statics, *found.dynamics)}
    assert numbers["orography"] == pytest.approx((orography.mean(), orography.std()), rel=1e-4)
    # Every start time is looked at, here also the odd ones: frames 0-1, 1-2, ..., 22-23.
    for name, field in fields.items():
        seen = np.concatenate([coarse(field[start : start + 2]) for start in range(TRAINING - 1)])
        assert numbers[name] == pytest.approx((np.nanmean(seen), np.nanstd(seen)), rel=1e-4)
    assert numbers["wind"][0] < 10


def test_windows_have_the_standardised_covariates_of_their_frames(store, fields, orography):
    data = PairData.prepare(store, PAIR, SETTINGS, 2)
    windows = data.training_windows(2)
    batch = windows.batch([0, len(windows) // 2])
    assert batch.statics.shape == (2, 2, 8, 8)
    assert batch.dynamics.shape == (2, 2, 2, 4, 4)
    _, height = data.covariates.statics
    for n, (time, row, column) in enumerate(batch.position.tolist()):
        area = (slice(row, row + 8), slice(column, column + 8))
        wanted = (orography[area] - height.mean) / height.spread
        np.testing.assert_allclose(batch.statics[n, 1], wanted, rtol=1e-4, atol=1e-4)
        assert (batch.statics[n, 0] == 0).all()  # the flat one
        for k, one in enumerate(data.covariates.dynamics):
            values = fields[one.name][time - 2 : time + 2, *area].reshape(2, 2, 4, 2, 4, 2)
            if np.isfinite(values).all():
                wanted = (values.mean((1, 3, 5)) - one.mean) / one.spread
                np.testing.assert_allclose(batch.dynamics[n, :, k], wanted, rtol=1e-3, atol=1e-4)


def test_missing_dynamics_are_their_mean(store):
    windows = PairData.prepare(store, PAIR, SETTINGS, 1).training_windows(1)
    places = windows.places.tolist()
    batch = windows.batch([places.index([4, 8, 8])])  # no wind there
    humidity, wind = batch.dynamics[0, 0]
    assert (wind == 0).all()
    assert humidity.std() > 0.3


def test_settings_choose_covariates_and_their_order(store):
    chosen = SETTINGS.model_copy(update={"statics": (), "dynamics": ("wind", "humidity")})
    data = PairData.prepare(store, PAIR, chosen, 2)
    assert data.covariates.statics == ()
    assert [one.name for one in data.covariates.dynamics] == ["wind", "humidity"]
    every = PairData.prepare(store, PAIR, SETTINGS, 2).training_windows(2).batch([0])
    batch = data.training_windows(2).batch([0])
    assert batch.statics.shape[1] == 0
    torch.testing.assert_close(batch.dynamics, every.dynamics.flip(2))
    assert chosen.deciding() != SETTINGS.deciding()  # other models: other stages, other sweeps


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("data.dynamics=[u10]", ["data.dynamics", "windy", "u10", "humidity, wind"]),
        ("data.statics=orography, wind", ["data.statics", "wind", "flat, orography"]),
        ("data.dynamics=[wind, wind]", ["data.dynamics", "wind", "twice"]),
    ],
)
def test_a_covariate_that_cannot_be_chosen(store, setting, parts, one_line):
    settings = load_config([("data.patch", 8), parse_assignment(setting)], environment={}).data
    with pytest.raises(UserError) as raised:
        PairData.prepare(store, PAIR, settings, 2)
    one_line(raised, *parts)


def fitted(*values):
    return Covariate.fit("q", [torch.tensor(values, dtype=torch.float32)])


def test_a_fit_leaves_out_what_is_missing_and_comes_in_pieces():
    found = Covariate.fit("q", [torch.tensor([1.0, torch.nan]), torch.tensor([[3.0], [torch.inf]])])
    assert (found.mean, found.spread) == (2.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-8, 101_325.0, 0.1])
def test_a_constant_is_0_and_neither_huge_nor_missing_elsewhere(value):
    found = fitted(*[value] * 1000)
    assert found.standardise(torch.tensor([value])).abs() < 1e-6
    elsewhere = found.standardise(torch.tensor([2 * value, value + abs(value or 1)]))
    assert (elsewhere.abs() <= 1.001).all()


@pytest.mark.parametrize(("mean", "spread"), [(1e-6, 1e-7), (0.0, 1e-9), (101_325.0, 5.0)])
def test_what_is_small_but_varies_is_not_a_constant(mean, spread):
    found = fitted(mean - spread, mean + spread)
    assert (found.mean, found.spread) == pytest.approx((mean, spread), rel=1e-2)


def test_a_covariate_without_values(one_line):
    with pytest.raises(UserError) as raised:
        fitted(float("nan"))
    one_line(raised, "q", "data.statics")


def test_what_is_missing_is_standardised_to_the_mean():
    channels = (Covariate(name="a", mean=2.0, spread=4.0), Covariate(name="b", mean=1.0, spread=0.5))
    values = torch.full((3, 2, 1, 2), 4.0)
    values[0, 0, 0, 1], values[1, 1, 0, 0] = torch.nan, torch.inf
    found = standardised(values, None, channels)
    assert found[2].tolist() == [[[0.5, 0.5]], [[6.0, 6.0]]]
    assert (found[0, 0, 0, 1], found[1, 1, 0, 0]) == (0, 0)
    known = torch.ones(values.shape, dtype=torch.bool)
    known[2] = False
    assert (standardised(values, known, channels)[2] == 0).all()
    with pytest.raises(ValueError, match="1 channels for 2"):
        standardised(values[:, :1], None, channels)


def test_covariates_name_a_result():
    assert hash(Covariates((fitted(1.0, 2.0),))) == hash(Covariates((fitted(2.0, 1.0),)))
