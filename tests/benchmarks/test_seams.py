"""Seams: a statistic that is known for known fields, the wettest square, and the whole measurement."""

import math

import numpy as np
import pytest

from pipeline import UserError
from pipeline.benchmarks.borders import seam, steps, tile_borders
from pipeline.benchmarks.finished import wettest, wettest_square
from pipeline.benchmarks.seams import seams_benchmark
from pipeline.config import SamplingSettings
from pipeline.config_layers import load_config
from pipeline.downscaling.lattice import Lattice
from pipeline.downscaling.opening import InputRequest
from pipeline.downscaling.run import defaults_of, prepare
from pipeline.downscaling.scratch import Scratch
from pipeline.downscaling.task import FrameOf
from pipeline.evaluation.held_out import SavedModel
from pipeline.factors import FactorPair
from pipeline.ingest.inputs import Request
from pipeline.model_file import describe_data, save_model
from pipeline.sources.readers import Selection
from pipeline.store.field_store import write_store

PAIR = FactorPair(4, 2)


def stairs(length, high):
    """(2, length, length): rises by 1 at every cell border, by `high` at every multiple of 16, both ways."""
    rise = np.zeros(length)
    rise[4::4], rise[16::16] = 1.0, high
    one = np.cumsum(rise)
    return np.stack([one[:, None] + one[None, :]] * 2)


@pytest.mark.parametrize("high", [1.0, 5.0, 0.5])
def test_a_known_step_at_tile_borders_gives_the_known_ratio(high):
    found = seam(stairs(64, high), Lattice.over(64, 64, 16, 0.0, PAIR), 4)
    assert found.ratio == pytest.approx(high)
    assert found.error == pytest.approx(0, abs=1e-12)


def test_what_is_missing_is_left_out():
    field = stairs(64, 3.0)
    field[:, 17:20, 5:9] = np.nan
    field[1] = np.nan
    assert seam(field, Lattice.over(64, 64, 16, 0.0, PAIR), 4).ratio == pytest.approx(3)


def test_noise_without_seams_gives_about_one_and_its_error_is_true():
    lattice = Lattice.over(96, 96, 32, 0.5, PAIR)
    generator = np.random.default_rng(0)
    found = [seam(generator.normal(size=(1, 96, 96)), lattice, 4) for _ in range(100)]
    ratios, errors = np.array([(one.ratio, one.error) for one in found]).T
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / 10
    assert 0.8 < np.sqrt((errors**2).mean()) / ratios.std() < 1.25


def test_without_anything_to_compare_there_is_no_ratio():
    field = stairs(64, 2.0)
    for lattice in (Lattice.over(64, 64, 64, 0.0, PAIR), Lattice.over(64, 64, 8, 0.5, PAIR)):
        assert math.isnan(seam(field, lattice, 4).ratio)  # no tile borders; no others
    assert math.isnan(seam(np.zeros_like(field), Lattice.over(64, 64, 16, 0.0, PAIR), 4).ratio)
    assert str(seam(field * np.nan, Lattice.over(64, 64, 16, 0.0, PAIR), 4)) == "-"


def test_tile_borders_are_where_tiles_begin_and_end():
    assert tile_borders(Lattice.over(40, 32, 16, 0.5, PAIR)) == ([8, 16, 24, 32], [8, 16, 24])
    assert tile_borders(Lattice.over(40, 16, 16, 0.0, PAIR)) == ([16, 24, 32], [])


def test_steps_are_summed_along_the_other_axes():
    field = np.zeros((2, 3, 4))
    field[:, 2] = 1.5
    field[0, 0, 0] = np.nan
    total, pairs = steps(field, 1)
    np.testing.assert_array_equal(total, [0, 0, 12])
    np.testing.assert_array_equal(pairs, [0, 7, 8])


def test_the_wettest_square_is_found_and_the_middle_one_of_several():
    values = np.random.default_rng(0).random((9, 12))
    sums = {(y, x): values[y : y + 4, x : x + 4].sum() for y in range(6) for x in range(9)}
    amount, corner = wettest_square(values, 4)
    assert corner == max(sums, key=sums.get)
    assert amount == pytest.approx(sums[corner])
    alone = np.zeros((11, 11))
    alone[5, 5] = 1
    assert wettest_square(alone, 5) == (1.0, (3, 3))
    assert wettest_square(np.ones((5, 5)), 5)[1] == (0, 0)


@pytest.fixture(scope="module")
def saved(trained_like, store, tmp_path_factory):
    config = load_config([("preset", "tiny"), ("tuning.max_context", 3)], environment={})
    url, sampling = str(tmp_path_factory.mktemp("seams") / "model"), SamplingSettings(steps=2, members=3)
    save_model(url, trained_like(), sampling=sampling, data=describe_data(store, config), scores={})
    return SavedModel.open(url)


def test_the_wettest_frame_of_all_is_chosen(saved, store, rain):
    tau, s, side = 2, 4, 24
    whole = np.isfinite(rain).reshape(32, tau, 12, s, 12, s).mean(axis=(1, 3, 5)) >= 0.5
    with np.errstate(invalid="ignore"):
        sums = np.nansum(rain.reshape(32, tau, 12, s, 12, s), axis=(1, 3, 5))
    counts = np.isfinite(rain).reshape(32, tau, 12, s, 12, s).sum(axis=(1, 3, 5))
    coarse = np.where(whole, sums / np.maximum(counts, 1), 0)
    best = max(
        ((k, y, x) for k in range(2, 32) for y in range(7) for x in range(7)),
        key=lambda at: coarse[at[0], at[1] : at[1] + 6, at[2] : at[2] + 6].sum(),
    )
    found = wettest(saved, store, side + 3)
    assert found.grid == (6, 6)
    assert (*found.frames, found.rows.start, found.columns.start) == best


def test_a_frame_without_its_context_is_not_chosen(saved, store, tmp_path):
    values = np.zeros((20, 48, 48), "f4")
    values[2:4], values[8:10, 30:40, 30:40] = 9, 1
    statics = {"orography": store.static("orography")}
    made = write_store(
        str(tmp_path / "early"), values, times=store.times[:20], y=store.y, x=store.x, name="early",
        statics=statics,
    )  # fmt: skip
    assert [*wettest(saved, made, 48).frames] == [4]  # L = 3, so coarse frame 1 lacks one


@pytest.fixture
def measure(saved, store, tmp_path):
    def measure(*settings, data=store.url, **options):
        given = [("data.store", data), ("output", str(tmp_path)), *settings]
        config = load_config(given, defaults=saved.defaults(), environment={})
        return seams_benchmark(config, saved, **({"side": 512, "tiles": (16, 64), "apart": 16} | options))

    return measure


def downscaled(saved, store, table):
    """Refine the same frame as jobs/downscale.py does."""
    config = load_config([("downscaling.members", 1)], defaults=defaults_of(saved.url), environment={})
    at = np.datetime64(table.place.split(",")[0])
    wanted = InputRequest(Request((store.url,), selection=Selection(at, at)), "unused", coarsen=True)
    found = prepare(config, saved.url, wanted).downscaler
    raw = found.sampler.draw(FrameOf(found.source, 0), [0], Scratch())[0]
    return np.concatenate([values for _, values in found._conserving(0, raw, 16)], axis=1)


def test_one_member_is_drawn_in_every_way(measure, saved, store, tmp_path):
    table = measure()
    one, default, half, beside = table.rows
    titles = ["one piece", "24, the default", "16, overlap 0.5", "16, side by side"]
    assert [row.title for row in table.rows] == titles
    assert [len(row.lattice) for row in table.rows] == [1, 9, 25, 9]
    assert one.difference == 0
    assert math.isnan(one.seam.ratio)
    for row in table.rows:
        assert row.field.shape == (2, 48, 48)
        assert np.isnan(row.field[:, :8, :8]).all()  # the corner that no frame has
        assert np.isfinite(row.field[:, 12:28]).all()
        assert row.kept[0] < 1e-6  # of the tile's total, which this model keeps
        assert row.kept[1] > 1e-3  # not of every cell
    for row in (default, half, beside):
        assert row.difference == pytest.approx(np.nanmean(np.abs(row.field - one.field)))
        assert row.difference > 1e-4
        assert row.seam == seam(row.field - one.field, row.lattice, 4)
    assert beside.seam.ratio > 1.2 > half.seam.ratio
    np.testing.assert_allclose(default.field, downscaled(saved, store, table), rtol=1e-4, atol=1e-5)
    assert (tmp_path / "benchmark" / "seams.png").read_bytes().startswith(b"\x89PNG")
    text = str(table)
    for part in ("seams: 4x2 of rain", "48 x 48 pixels", *titles, str(beside.seam), "mm/h"):
        assert part in text


def test_what_does_not_fit_is_refused_in_one_line(measure, store, rain, tmp_path, one_line):
    def write(name, values, minutes=5):
        times = store.times[0] + np.timedelta64(minutes, "m") * np.arange(len(values))
        _, height, width = values.shape
        statics = {"orography": np.zeros((height, width), "f4")}
        where = {"y": store.y[:height], "x": store.x[:width]}
        return write_store(
            str(tmp_path / name), values, times=times, **where, name="rain", statics=statics
        ).url

    cases = [
        ({"data": write("slow", rain, 10)}, ["a frame every 10 min", "give a store of that cadence"]),
        ({"data": write("small", rain[:, :24, :24])}, ["24 x 24 pixels", "give a larger grid"]),
        ({"data": write("dry", np.zeros_like(rain))}, ["no rain in it"]),
        ({"data": write("flat", rain[:, :4])}, ["1 x 12 cells", "give a larger grid"]),
        ({"apart": 64}, ["48 x 48 pixels", "one tile of 64"]),
    ]
    for options, parts in cases:
        with pytest.raises(UserError) as raised:
            measure(**options)
        one_line(raised, *parts)
    assert not (tmp_path / "benchmark").exists()
