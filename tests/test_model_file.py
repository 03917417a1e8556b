import json
import shutil
from dataclasses import replace

import pytest
import torch

from pipeline import Conservation, Scope, UserError
from pipeline.config import SamplingSettings
from pipeline.data.covariates import Covariate
from pipeline.model_file import CARD, WEIGHTS, describe_data, load_card, load_model, save_model
from pipeline.models.families import build_model

SAMPLING = SamplingSettings(steps=2, members=3)


@pytest.fixture(scope="module")
def model(trained_like):
    model = trained_like(conservation=Conservation(power=0.6, threshold=0.02, scope=Scope.CELL))
    model.denoiser.residual_scale.fill_(0.37)
    return model


@pytest.fixture(scope="module")
def saved(model, store, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "champion"
    scores = {"crps": 0.25, "crps_skill": float("-inf")}
    data = describe_data(store, tiny)
    save_model(str(folder), model, sampling=SAMPLING, data=data, scores=scores)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(saved, tmp_path / "model")


def test_round_trip_gives_the_same_samples(model, saved, windows):
    loaded, batch = load_model(str(saved)), windows.scored.batch([0, 1])
    assert loaded.spec == model.spec
    assert not loaded.training
    assert torch.equal(loaded.sample(batch, SAMPLING, seed=4), model.sample(batch, SAMPLING, seed=4))
    assert torch.equal(loaded.predict_mean(batch), model.predict_mean(batch))


def test_round_trip_on_another_file_system(model, tmp_path):
    url = f"memory:/{tmp_path}/model"
    save_model(url, model, sampling=SAMPLING, data={}, scores={})
    assert load_model(url).spec == model.spec


def test_card(model, saved, store, tiny):
    card = load_card(str(saved))
    assert (card["pair"], card["family"], card["dynamics"]) == ("4x2", "scale_adaptive", [])
    (orography,) = card["statics"]
    values = store.static("orography").astype("f8")
    assert orography["name"] == "orography"
    assert (orography["mean"], orography["spread"]) == pytest.approx((values.mean(), values.std()))
    assert card["parameters"] == model.spec.parameters.model_dump(mode="json")
    assert SamplingSettings.model_validate(card["sampling"]) == SAMPLING
    assert card["data"]["fingerprint"] == store.info.fingerprint
    windows = {name: card["data"][name] for name in ("settings", "max_context", "seed")}
    assert windows == {"settings": tiny.data.deciding(), "max_context": 4, "seed": tiny.seed}
    assert (card["data"]["patch"], card["data"]["pixel"]) == (tiny.data.patch, pytest.approx([1000, 1000]))
    assert card["data"]["pixel_units"] == ["1", "1"]
    assert card["scores"] == {"crps": 0.25, "crps_skill": None}  # JSON has no infinity


def change(folder, **values):
    card = json.loads((folder / CARD).read_text())
    for key, value in values.items():
        if value is None:
            del card[key]
        else:
            card[key] = value
    (folder / CARD).write_text(json.dumps(card))


def flip_a_bit(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-50] ^= 1
    (folder / WEIGHTS).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, f"no {CARD} there"),
        (lambda folder: (folder / CARD).unlink(), f"no {CARD} there"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
        (flip_a_bit, f"{WEIGHTS} is damaged"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), f"{WEIGHTS} is damaged"),
        (lambda folder: (folder / CARD).write_text("{"), "not JSON"),
        (lambda folder: (folder / CARD).write_bytes(b"\xff\xfe"), "not JSON"),
        (lambda folder: (folder / CARD).write_text("[1]"), "does not describe a model"),
        (lambda folder: (folder / CARD).write_text("{}"), "does not describe a model"),
        (lambda folder: change(folder, format=3), "newer version (format 3)"),
        (lambda folder: change(folder, sha256=None), f"{WEIGHTS} is damaged"),
        (lambda folder: change(folder, pair="4"), "4"),
        (lambda folder: change(folder, pair="4x3"), f"{CARD} is damaged"),  # the weights do not fit
        (lambda folder: change(folder, scale=None), "scale"),
        (lambda folder: change(folder, statics=["orography"]), f"{CARD} is damaged"),
        (lambda folder: change(folder, statics=[]), f"{CARD} is damaged"),  # the weights do not fit
        (lambda folder: change(folder, format=1, statics=["orography"]), "spread of orography; train again"),
        (lambda folder: change(folder, transform={"kind": "cube", "unit": 1, "spread": 1}), "kind"),
    ],
)
def test_what_is_missing_damaged_or_newer(folder, damage, reason, one_line):
    damage(folder)
    with pytest.raises(UserError) as raised:
        load_model(str(folder))
    one_line(raised, *([str(folder)] if "pair" not in reason and reason != "4" else []), reason)


def test_covariates_keep_their_numbers_and_order(make_spec, tmp_path):
    dynamics = (Covariate(name="v10", mean=0.5, spread=4.0), Covariate(name="q", mean=0.01, spread=1e-7))
    model = build_model(replace(make_spec(), dynamics=dynamics), seed=0)
    save_model(str(tmp_path), model, sampling=SAMPLING, data={}, scores={})
    assert load_model(str(tmp_path)).spec == model.spec


def test_a_model_of_an_older_version_without_covariates_loads_as_before(make_spec, tmp_path):
    model = build_model(replace(make_spec(), statics=()), seed=0)
    save_model(str(tmp_path), model, sampling=SAMPLING, data={}, scores={})
    change(tmp_path, format=1, dynamics=None)
    assert load_model(str(tmp_path)).spec == model.spec
