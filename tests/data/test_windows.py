import numpy as np
import pytest
import torch

from pipeline import FactorPair, UserError
from pipeline.config import DataSettings
from pipeline.data.covariates import Covariate, Covariates
from pipeline.data.pair_data import PairData
from pipeline.data.splits import Segment
from pipeline.data.symmetries import turn
from pipeline.data.view import FieldView
from pipeline.data.window_index import find_windows
from pipeline.data.windows import Windows, check_divides, thin
from pipeline.store.field_store import write_store

PAIRS = [FactorPair(4, 2), FactorPair(1, 3), FactorPair(8, 1), FactorPair(3, 4)]
SPLITS = ["train", "validation", "test"]


def all_windows(data, split, context):
    return data._windows(split, context, dense=split == "train")


def numpy_coarse(field, pair):
    """Valid means of blocks, NaN where fewer than half of the values are valid."""
    s, tau = pair.space, pair.time
    T, H, W = field.shape
    blocks = field.reshape(T // tau, tau, H // s, s, W // s, s).transpose(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(T // tau, H // s, W // s, -1).astype("f8")
    valid = np.isfinite(blocks).mean(axis=-1)
    mean = np.nansum(blocks, axis=-1) / np.maximum(np.isfinite(blocks).sum(axis=-1), 1)
    return np.where(valid >= 0.5, mean, np.nan)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_no_window_crosses_a_split_and_targets_are_the_same_for_every_context(store, tiny, pair, memory_gib):
    settings = tiny.data.model_copy(update={"memory_gib": memory_gib})
    data = PairData.prepare(store, pair, settings, wanted_context=4)
    assert data.max_context > 1
    for split in SPLITS:
        segment, targets = data.segments[split], all_windows(data, split, 1).places
        for context in range(1, data.max_context + 1):
            windows = all_windows(data, split, context)
            np.testing.assert_array_equal(windows.places, targets)
            first = windows.places[:, 0] - (context - 1) * pair.time
            assert first.min() >= segment.start
            assert windows.places[:, 0].max() + pair.time <= segment.stop
        # The longest context begins where the split does: nothing is wasted.
        assert targets[:, 0].min() - (data.max_context - 1) * pair.time < segment.start + pair.time + 1


def test_a_context_above_the_margin_is_refused(data):
    # It would quietly read frames of the split before.
    with pytest.raises(ValueError, match="above 3"):
        data.training_windows(4)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_windows_have_enough_valid_and_wet_values_and_none_is_left_out(store, rain, tiny, pair, split):
    data, s, tau, side = PairData.prepare(store, pair, tiny.data, 2), pair.space, pair.time, tiny.data.patch
    segment, dense = data.segments[split], split == "train"
    step = max(s, side // 2 // s * s) if dense else side
    wanted = []
    for t in range(segment.start + (data.max_context - 1) * tau, segment.stop - tau + 1, 1 if dense else tau):
        for row in range(0, 48 - side + 1, step):
            for column in range(0, 48 - side + 1, step):
                field = rain[t : t + tau, row : row + side, column : column + side]
                coarse = numpy_coarse(field, pair)
                wet = (np.nan_to_num(coarse) > tiny.data.wet_threshold).mean()
                if np.isfinite(field).mean() >= tiny.data.min_valid and wet >= tiny.data.min_wet:
                    wanted.append((t, row, column))
    assert all_windows(data, split, 1).places.tolist() == [list(place) for place in wanted]


def test_the_missing_corner_and_dry_windows_matter(store, data, tiny, pair):
    # Otherwise the test above could not fail.
    places = all_windows(data, "train", 1).places
    assert not ((places[:, 1] == 0) & (places[:, 2] == 0)).any()
    free = tiny.data.model_copy(update={"min_valid": 0.01, "min_wet": 0.0})
    assert len(all_windows(PairData.prepare(store, pair, free, 3), "train", 1)) > len(places)


def test_scored_targets_are_disjoint(data, pair, tiny):
    seen = np.zeros((64, 48, 48), int)
    for t, row, column in all_windows(data, "validation", 1).places:
        seen[t : t + pair.time, row : row + tiny.data.patch, column : column + tiny.data.patch] += 1
    assert seen.max() == 1


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("context", [1, 3])
def test_batch_against_numpy(store, rain, tiny, pair, context):
    data = PairData.prepare(store, pair, tiny.data, 3)
    context = min(context, data.max_context)
    windows = data.training_windows(context)
    indices = [0, len(windows) // 2, len(windows) - 1]
    batch = windows.batch(indices)
    orography = store.static("orography")
    orography = (orography - orography.mean()) / orography.std()
    assert len(batch) == 3
    for n, (t, row, column) in enumerate(windows.places[indices]):
        assert batch.position[n].tolist() == [t, row, column]
        area = np.s_[row : row + tiny.data.patch, column : column + tiny.data.patch]
        field = rain[t - (context - 1) * pair.time : t + pair.time, *area]
        coarse = numpy_coarse(field, pair)
        np.testing.assert_array_equal(batch.fine[n], np.nan_to_num(field[-pair.time :]))
        np.testing.assert_array_equal(batch.mask[n], np.isfinite(field[-pair.time :]))
        np.testing.assert_array_equal(batch.coarse_mask[n], np.isfinite(coarse))
        np.testing.assert_allclose(batch.coarse[n], np.nan_to_num(coarse), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(batch.statics[n, 0], orography[area], rtol=1e-4, atol=1e-5)
    assert torch.equal(batch.last, batch.coarse[:, -1:])
    assert torch.equal(batch.last_mask, batch.coarse_mask[:, -1:])


def test_with_context_keeps_the_targets(data):
    long, short = data.training_windows(3), data.training_windows(3).with_context(1)
    a, b = long.batch([5]), short.batch([5])
    assert torch.equal(a.fine, b.fine)
    assert torch.equal(a.coarse[:, -1:], b.coarse)


def test_from_memory_and_from_the_store_are_the_same(store, data, pair, tiny):
    lazy = PairData.prepare(store, pair, tiny.data.model_copy(update={"memory_gib": 0.0}), 3)
    assert (lazy.transform, lazy.scale) == (data.transform, data.scale)
    for split in ("train", "test"):
        a, b = all_windows(data, split, 3), all_windows(lazy, split, 3)
        assert isinstance(a.view.values, np.ndarray)
        assert not isinstance(b.view.values, np.ndarray)
        np.testing.assert_array_equal(a.places, b.places)
        one, other = (w.batch([0, len(w) - 1]) for w in (a, b))
        for name in ("fine", "mask", "coarse", "coarse_mask", "statics", "position"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_a_view_refuses_frames_it_does_not_hold(store):
    view = FieldView.load(store, Segment(10, 20), memory_gib=4)
    assert view.read(10, 20).shape == (10, 48, 48)
    for start, stop in ((9, 12), (18, 21), (-2, 3)):
        with pytest.raises(IndexError):
            view.read(start, stop)
    with pytest.raises(IndexError):  # a negative index counts from the end without complaint
        FieldView.load(store, Segment(10, 20), memory_gib=0).read(-4, -2)


def test_augmentation_turns_fine_coarse_and_statics_together(windows, pair):
    plain = windows.train.batch([3] * 24)
    turned = windows.train.batch([3] * 24, [n % 8 for n in range(24)])
    for n in range(24):
        fits = [k for k in range(8) if torch.equal(turn(plain.statics[n], k), turned.statics[n])]
        assert fits == [n % 8]
        for name in ("fine", "mask", "coarse_mask"):
            assert torch.equal(turn(getattr(plain, name)[n], fits[0]), getattr(turned, name)[n]), name
        torch.testing.assert_close(turn(plain.coarse[n], fits[0]), turned.coarse[n])


def test_dynamic_covariates_are_coarsened_and_turned_as_the_field_is(rain, pair, store, tmp_path):
    times, names = store.times, ("cape", "rain")
    fields = {"cape": np.random.default_rng(0).random(rain.shape, dtype="f4"), "rain": rain}
    grid = {"times": times, "y": store.y, "x": store.x, "name": "moist"}
    moist = write_store(str(tmp_path / "moist.zarr"), rain, dynamics=fields, **grid)
    covariates = Covariates(dynamics=tuple(Covariate(name=name, mean=0.5, spread=2.0) for name in names))
    places = np.array([[20, 24, 24], [31, 0, 16], [6, 12, 0]])
    batches = [
        Windows(FieldView.load(moist, Segment(2, 60), gib), pair, 3, 24, places, covariates=covariates).batch(
            [0, 1, 2], [0, 5, 6]
        )
        for gib in (4, 0.0)
    ]
    for batch in batches:
        assert batch.dynamics.shape == (3, 3, 2, 6, 6)
        values = torch.where(batch.coarse_mask, (batch.coarse - 0.5) / 2, 0.0)
        torch.testing.assert_close(batch.dynamics[:, :, 1], values)  # the field itself, in its place
        assert torch.equal(batch.dynamics, batches[0].dynamics)
    t, y, x = places[1]
    cape = (
        fields["cape"][t - 4 : t + 2, y : y + 24, x : x + 24].reshape(3, 2, 6, 4, 6, 4).mean(axis=(1, 3, 5))
    )
    expected = turn(torch.from_numpy((cape - 0.5) / 2), 5)
    torch.testing.assert_close(batches[0].dynamics[1, :, 0], expected)


def test_chessboard_tiles_are_disjoint(store, tiny):
    split = tiny.data.split.model_copy(update={"tiles": True})
    settings = tiny.data.model_copy(update={"patch": 8, "split": split})
    data = PairData.prepare(store, FactorPair(2, 2), settings, 2)
    covered = {}
    for name in SPLITS:
        covered[name] = np.zeros((48, 48), bool)
        for _, row, column in all_windows(data, name, 1).places:
            covered[name][row : row + 8, column : column + 8] = True
    assert covered["train"].any()
    assert not (covered["train"] & (covered["validation"] | covered["test"])).any()


def test_thin(data):
    windows = data.training_windows(2)
    few = thin(windows, 7, seed=3)
    np.testing.assert_array_equal(few.places, thin(windows, 7, seed=3).places)
    assert not np.array_equal(few.places, thin(windows, 7, seed=4).places)
    every = windows.places.tolist()
    numbers = [every.index(place) for place in few.places.tolist()]
    assert numbers == sorted(set(numbers))  # in order, without replacement
    assert len(numbers) == 7
    assert thin(windows, len(windows), seed=3) is windows


@pytest.mark.parametrize(
    ("pair", "settings", "grid", "parts"),
    [
        ("5x1", {"patch": 24}, (48, 48), ["5x1", "24 pixels", "--patch 20 or 25"]),
        ("5x1", {"patch": 9}, (48, 48), ["--patch 10"]),
        ("30x1", {"patch": 24}, (48, 48), ["--patch 30"]),
        ("5x1", {"patch": 50}, (48, 60), ["48 x 60", "--patch of at most 45"]),
        (
            "5x1",
            {"patch": 20, "trim": False},
            (48, 45),
            ["48 x 45", "data.trim=true", "last 3 rows and 0 columns"],
        ),
    ],
)
def test_pairs_that_do_not_fit(pair, settings, grid, parts, one_line):
    with pytest.raises(UserError) as raised:
        check_divides(FactorPair.parse(pair), DataSettings(**settings), *grid)
    one_line(raised, *parts)
    if "patch of 9" in str(raised.value):
        assert "5 or" not in str(raised.value)  # a patch below 8 is not allowed


def test_a_grid_that_is_not_a_multiple_is_trimmed(tmp_path):
    field = torch.ones(4, 25, 27).numpy()
    view = FieldView(field, 0, torch.zeros(0, 25, 27))
    settings = DataSettings(patch=12)
    check_divides(FactorPair(4, 2), settings, 25, 27)
    windows = find_windows(view, Segment(0, 4), FactorPair(4, 2), settings, context=1, margin=1, dense=False)
    assert {tuple(place[1:]) for place in windows.places} == {(0, 0), (0, 12), (12, 0), (12, 12)}


def test_no_window(one_line):
    view = FieldView(np.zeros((8, 24, 24), "f4"), 0, torch.zeros(0, 24, 24))
    with pytest.raises(UserError) as raised:
        find_windows(
            view, Segment(0, 8), FactorPair(4, 2), DataSettings(patch=24), context=1, margin=1, dense=False
        )
    one_line(raised, "4x2", "24 x 24", "data.min_wet")


def test_windows_without_statics(rain):
    view = FieldView(rain, 0, torch.zeros(0, 48, 48))
    batch = Windows(view, FactorPair(4, 2), 1, 24, np.array([[0, 24, 24]])).batch([0])
    assert batch.statics.shape == (1, 0, 24, 24)
