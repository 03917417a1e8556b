import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import UserError
from pipeline.config_layers import load_config
from pipeline.data.covariates import Covariate, Covariates
from pipeline.evaluation.bootstrap import crps_interval
from pipeline.evaluation.candidates import Candidate
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.held_out import SavedModel, check_store, held_out_data, seen_by
from pipeline.evaluation.run import prepare
from pipeline.evaluation.seen import in_words, seen
from pipeline.evaluation.showcase import wettest_panel
from pipeline.evaluation.summary import Summary, scores_json
from pipeline.models.families import build_model
from pipeline.store.field_store import write_store

CPU = torch.device("cpu")


def card(store, config, **data):
    known = {"settings": config.data.deciding(), "max_context": 3, "seed": 0}
    info = store.info
    kept = ("name", "variable", "units", "cadence_seconds", "start", "end", "crs")
    source = {name: getattr(info, name) for name in kept}
    return {
        "sha256": "c0ffee",
        "sampling": {"sampler": "ddim", "steps": 2, "members": 3},
        "data": {**source, "fingerprint": info.fingerprint, **known, **data},
        "scores": {"validation_windows": 5.0},
    }


@pytest.fixture
def saved(trained_like, store, tiny):
    return SavedModel("model", card(store, tiny), trained_like())


@pytest.fixture
def config(saved):
    return load_config(defaults=saved.defaults(), environment={})


def held_out_windows(saved, store, config, split):
    data = held_out_data(saved, store, config)
    return seen_by(saved.model.spec, data.scored_windows(split, 1, config.scoring, config.seed))


def told(saved, **data):
    return replace(saved, card={**saved.card, "data": {**saved.data, **data}})


def test_the_card_decides_windows_and_ensemble(saved, config, tiny, data, store):
    assert config.preset == "small"  # and yet:
    assert config.data.deciding() == tiny.data.deciding()
    assert config.model == tiny.model
    assert (config.sampling.sampler, config.sampling.members) == ("ddim", 3)
    assert (config.tuning.max_context, config.scoring.windows, config.seed) == (3, 5, 0)
    for split in ("validation", "test"):
        wanted = data.scored_windows(split, 3, config.scoring, seed=0)
        found = held_out_windows(saved, store, config, split)
        assert found.places.tolist() == wanted.places.tolist()
        assert torch.equal(found.view.statics, wanted.view.statics)


def test_a_card_says_how_many_windows_were_asked_for(saved):
    scoring = {"windows": 7, "test_windows": 9, "block_hours": 2.0, "block_patches": 3}
    config = load_config([], defaults=told(saved, scoring=scoring).defaults(), environment={})
    assert config.scoring.model_dump(include=set(scoring)) == scoring


def test_an_older_card_leaves_the_choice_to_the_configuration(saved, store):
    data = {key: saved.data[key] for key in ("name", "units", "cadence_seconds", "fingerprint")}
    older = replace(saved, card={**saved.card, "data": data})
    config = load_config([("data.patch", 16), ("data.split.tiles", True)], defaults=older.defaults())
    assert (config.data.patch, config.seed) == (16, 0)
    starts = [note[:26] for note in check_store(older, store.info, config, "test")]
    assert starts == ["the model's card is from a", "the model's card does not t"[:26]]


def test_notes_say_that_data_are_other_ones(saved, store, config):
    assert check_store(saved, store.info, config, "test") == []
    other = told(saved, fingerprint="f" * 64, name="elsewhere", cadence_seconds=600.0)
    changed = config.model_copy(update={"data": config.data.model_copy(update={"patch": 16})})
    data, frames = check_store(other, store.info, changed, "test")
    assert "elsewhere (ffffffff); its days overlap those of the training" in data
    assert "5 min" in frames
    assert "10 min" in frames


def test_another_split_is_refused_on_the_models_own_data_alone(saved, store, one_line):
    split = ("data.split", {"train": 0.4, "validation": 0.4})
    config = load_config([split], defaults=saved.defaults(), environment={})
    with pytest.raises(UserError) as raised:
        check_store(saved, store.info, config, "test")
    one_line(raised, "0.4/0.4/0.2", "0.6/0.2/0.2", "leave data.split out")
    assert check_store(told(saved, fingerprint="f" * 64), store.info, config, "test")


def days(info, first, frames):
    """A store of the same place and name with other frames: 0 is the first that the model was trained on."""
    start = np.datetime64(info.start) + np.timedelta64(int(first * info.cadence_seconds), "s")
    stop = start + np.timedelta64(int((frames - 1) * info.cadence_seconds), "s")
    return replace(
        info, start=str(start), end=str(stop), shape=(frames, *info.shape[1:]), fingerprint="f" * 64
    )


@pytest.mark.parametrize(
    ("first", "frames", "split", "was"),  # the model: 38 frames for training, 13 for tuning, 13 for its test
    [
        (0, 40, "test", "trained on"),  # a shorter ingest: its last fifth is 32 to 40
        (20, 44, "validation", None),  # 46 to 55: tuning's and later
        (10, 40, "validation", "trained on"),  # 34 to 42
        (0, 60, "test", "chosen by"),  # 48 to 60
        (0, 64, "test", None),
        (0, 90, "test", None),  # grown since
        (64, 64, "validation", None),
    ],
)
def test_frames_that_training_has_seen_are_not_scored_as_new(
    first, frames, split, was, saved, store, config, one_line
):
    info = days(store.info, first, frames)
    if was is None:
        assert check_store(saved, info, config, split)
        return
    with pytest.raises(UserError) as raised:
        check_store(saved, info, config, split)
    one_line(raised, f"its {split} split", was, "score days from")
    for name in ("name", "variable", "crs"):
        (note,) = check_store(told(saved, **{name: "another"}), info, config, split)
        assert "its days overlap" in note


@pytest.mark.parametrize(
    ("first", "split", "known", "words"),
    [
        (0, "test", "unseen", "which training and tuning have not seen"),
        (0, "validation", "chosen", "by which tuning chose"),
        (64, "validation", "unseen", "which training and tuning have not seen"),
    ],
)
def test_what_a_model_has_seen(first, split, known, words, saved, store, config):
    found = seen(saved.data, days(store.info, first, 64), split, config.data.split)
    assert found == known
    assert words in in_words([found, "unseen"])
    undated = {key: value for key, value in saved.data.items() if key != "start"}
    assert seen(undated, store.info, split, config.data.split) == "unknown"
    assert "do not tell" in in_words([found, "unknown"])


def test_tuning_chose_on_the_validation_split(saved, store, config):
    assert check_store(saved, store.info, config, "test") == []
    (note,) = check_store(saved, store.info, config, "validation")
    assert "tuning chose" in note
    assert "--split test" in note


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (("model.heads", 1), ["model.heads = 1", "built with 2"]),
        (("data.transform", "sqrt"), ["data.transform = sqrt", "log1p"]),
        (("data.patch", 26), ["4x2", "patch of 26"]),
        (("data.statics", []), ["data.statics = []", "[orography]", "leave it out"]),
        (("data.dynamics", ["u10"]), ["data.dynamics = [u10]", "[]", "leave it out"]),
        (("data.patch", 96), ["48 x 48", "patch of 96"]),
        (("tuning.max_context", 2), ["tuning.max_context = 2", "L = 3"]),
    ],
)
def test_settings_that_do_not_fit_the_model(overrides, parts, saved, store, tmp_path, one_line):
    config = load_config([overrides], defaults=saved.defaults(), environment={})
    candidates, output = [Candidate("model", saved, config)], str(tmp_path / "out")
    with pytest.raises(UserError) as raised:
        prepare(candidates, store, split="test", device=CPU, output=output)
    one_line(raised, *parts)
    assert not list(tmp_path.iterdir())


def test_data_that_do_not_fit_the_model(saved, store, config, one_line):
    with pytest.raises(UserError) as raised:
        check_store(told(saved, units="K"), store.info, config, "test")
    one_line(raised, "mm/h", "K")
    with pytest.raises(UserError) as raised:
        check_store(saved, replace(store.info, statics=()), config, "test")
    one_line(raised, "orography", "--static")
    windy = replace(saved.model.spec, dynamics=(Covariate(name="u10", mean=0.0, spread=1.0),))
    with pytest.raises(UserError) as raised:
        check_store(replace(saved, model=build_model(windy, seed=0)), store.info, config, "test")
    one_line(raised, "dynamic covariate u10", "--dynamic")
    short = replace(store.info, shape=(16, 48, 48))
    with pytest.raises(UserError) as raised:
        check_store(saved, short, config, "test")
    one_line(raised, "16 frames", "L up to 1", "L = 3")


def test_covariates_are_the_models_and_standardised_by_its_numbers(
    trained_like, make_spec, store, config, tiny, tmp_path, rain
):
    humidity = np.random.default_rng(3).normal(0.01, 0.002, rain.shape).astype("f4")
    orography = store.static("orography")
    richer = write_store(
        str(tmp_path / "richer.zarr"), rain, times=store.times, y=store.y, x=store.x, name="r",
        statics={"a": -orography, "orography": 2 * orography}, dynamics={"humidity": humidity, "wind": rain},
    )  # fmt: skip
    spec = replace(make_spec(), dynamics=(Covariate(name="humidity", mean=0.01, spread=0.001),))
    saved = SavedModel("model", card(richer, tiny), build_model(spec, seed=0))
    check_store(saved, richer.info, config, "test")
    windows = held_out_windows(saved, richer, config, "test")
    assert windows.covariates == Covariates(spec.statics, spec.dynamics)
    batch, (height,) = windows.batch([0]), spec.statics
    time, row, column = batch.position[0].tolist()
    area = slice(row, row + 24), slice(column, column + 24)
    wanted = (2 * orography[area] - height.mean) / height.spread
    np.testing.assert_allclose(batch.statics[0, 0], wanted, rtol=1e-4, atol=1e-4)
    blocks = humidity[time - 4 : time + 2, *area].reshape(3, 2, 6, 4, 6, 4).mean((1, 3, 5))
    np.testing.assert_allclose(batch.dynamics[0, :, 0], (blocks - 0.01) / 0.001, rtol=1e-3, atol=1e-3)


def test_the_interval_is_that_of_the_crps(saved, store, config):
    windows = held_out_windows(saved, store, config, "validation")
    found = evaluate(saved.model, windows, config.sampling, batch=4, seed=0, device=CPU)
    single = config.scoring.model_copy(update={"block_hours": 0.08, "block_patches": 1})
    interval = crps_interval(found, windows, single, seed=0, cadence_seconds=300.0)
    each = found.statistics.per_window("crps")
    assert interval.blocks == 5
    assert each.min() <= interval.low < found.ensemble.crps < interval.high <= each.max()
    # The same windows with all errors twice as large.
    doubled = replace(found.statistics, crps=2 * found.statistics.crps)
    twice = crps_interval(replace(found, statistics=doubled), windows, single, seed=0, cadence_seconds=300.0)
    assert (twice.low, twice.high) == pytest.approx((2 * interval.low, 2 * interval.high))
    few = crps_interval(found, windows, config.scoring, seed=0, cadence_seconds=300.0)
    assert few.blocks < 5
    assert math.isnan(few.low)


def test_what_has_no_number_is_null_in_the_file(saved, store, config):
    windows = held_out_windows(saved, store, config, "validation")
    found = evaluate(saved.model, windows, config.sampling, batch=4, seed=0, device=CPU)
    endless = replace(found, ensemble=replace(found.ensemble, conservation_tile=math.inf))
    few = crps_interval(found, windows, config.scoring, seed=0, cadence_seconds=300.0)
    scores = Summary(Candidate("model", saved, config), store.info, "validation", endless, few)
    content = json.loads(scores_json([scores]))
    assert content["scores"]["conservation_tile"] is None
    assert content["crps_interval"] == {"low": None, "high": None, "level": 0.9, "blocks": few.blocks}
    assert "cannot be had" in scores.table()
    assert f"{found.ensemble.crps:.4f}" in scores.table()


def test_the_panel_shows_the_wettest_window(saved, store, config):
    windows = held_out_windows(saved, store, config, "validation")
    wettest = max(range(len(windows)), key=lambda i: float(windows.batch([i]).last.sum()))

    def picture(which):
        names = {"name": "rain", "units": "mm/h"}
        return wettest_panel(saved.model, which, config.sampling, seed=0, device=CPU, **names)

    drawn = picture(windows)
    assert drawn.startswith(b"\x89PNG")
    assert drawn == picture(replace(windows, places=windows.places[[wettest]]))
    others = [i for i in range(len(windows)) if i != wettest]
    assert drawn != picture(replace(windows, places=windows.places[others]))
