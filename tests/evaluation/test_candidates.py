import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline import FactorPair, UserError, paper_prior
from pipeline.config import SamplingSettings
from pipeline.config_layers import load_config
from pipeline.evaluation.candidates import check_candidates, labels, open_candidates, rivals
from pipeline.evaluation.model_folders import find_models, is_published
from pipeline.evaluation.seen import longest_trained
from pipeline.model_file import describe_data, load_card, save_model

WINDOWS = 5


@pytest.fixture
def model(trained_like, store, tmp_path):
    """Save a model as a training does."""
    config = load_config(
        [("preset", "tiny"), ("tuning.max_context", 3), ("scoring.windows", WINDOWS)], environment={}
    )

    def model(where, crps=1.0, pair=None, parameters=None, **facts):
        url, scores = str(tmp_path / where), {"validation_crps": crps}
        sampling, data = SamplingSettings(steps=2, members=3), describe_data(store, config) | facts
        changes = parameters.model_dump(include={"beta", "context", "conservation"}) if parameters else {}
        save_model(url, trained_like(**changes), sampling=sampling, data=data, scores=scores)
        if pair is not None:
            card = json.loads((tmp_path / where / "model.json").read_text())
            (tmp_path / where / "model.json").write_text(json.dumps(card | {"pair": pair}))
        return url

    return model


def opened(urls, *settings):
    return open_candidates(urls, lambda known: load_config(list(settings), defaults=known, environment={}))


def test_a_folder_a_pair_or_a_sweep_may_be_meant(model, tmp_path, one_line):
    model("sweep/8x1/trial-000", 0.5, "8x1")
    best = model("sweep/4x2/trial-001", 0.2)
    worse = model("sweep/4x2/trial-000", 0.3)
    model("sweep/4x2/rival-0123456789", 0.1)  # trained to compare with, not tuned
    (tmp_path / "sweep" / "notes.txt").write_text("no model")
    eight = str(tmp_path / "sweep" / "8x1" / "trial-000")
    assert find_models(worse) == [worse]
    assert find_models(f"{worse}/model.json") == find_models(f"{worse}/model.safetensors") == [worse]
    assert find_models(str(tmp_path / "sweep" / "4x2")) == [best]
    assert find_models(str(tmp_path / "sweep")) == [best, eight]
    with pytest.raises(UserError) as raised:
        find_models(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no model\.json there"):
        find_models(str(tmp_path / "sweep" / "notes.txt"))
    one_line(raised, "nowhere", "model.json", "runs/models/SWEEP")


def test_the_paper_s_settings_come_along_with_a_sweep(model, tmp_path):
    sweep, prior = str(tmp_path / "sweep"), paper_prior(FactorPair(4, 2))
    best = model("sweep/4x2/trial-002", 0.2)
    published = model("sweep/4x2/trial-000", 0.3, parameters=prior.model_copy(update={"context": 3}))
    model("sweep/4x2/trial-001", 0.25)
    assert find_models(sweep, prior=True) == find_models(f"{sweep}/4x2", prior=True) == [best, published]
    assert find_models(best, prior=True) == find_models(sweep) == [best]
    one, other = opened(find_models(sweep, prior=True))
    assert (one.published, one.label) == (False, "trial-002")
    assert (other.published, other.label) == (True, "trial-000 (the paper's settings)")
    for number in (1, 2):
        (tmp_path / "sweep" / "4x2" / f"trial-00{number}" / "model.json").unlink()
    assert find_models(sweep, prior=True) == [published]  # the best itself


@pytest.mark.parametrize(("frames", "asked", "room"), [(92, 16, 5), (92, 4, 4), (64, 16, 4), (48, 16, 3)])
def test_the_paper_s_settings_are_known_where_there_was_no_room_for_them(model, store, frames, asked, room):
    """The prior's L is 5. A card has the L that was asked for, and its dates tell how much there was."""
    cadence = np.timedelta64(round(store.info.cadence_seconds), "s")
    facts = {"max_context": asked, "end": str(store.times[0] + (frames - 1) * cadence)}
    for context in (room, room - 1):
        parameters = paper_prior(FactorPair(4, 2)).model_copy(update={"context": context})
        card = load_card(model("one", parameters=parameters, **facts))
        assert longest_trained(card["data"], FactorPair(4, 2)) == room
        assert is_published(card) == (context == room)


def test_labels_tell_models_apart_in_few_words(one_line):
    assert labels(["runs/a/4x2/final"]) == ["final"]
    assert labels(["runs/a/4x2/final/", "runs/a/8x1/final"]) == ["4x2/final", "8x1/final"]
    assert labels(["a/4x2/final", "b/4x2/final"]) == ["a/4x2/final", "b/4x2/final"]
    assert labels(["runs/bicubic"]) == ["runs/bicubic"]  # a reference has that name
    with pytest.raises(UserError) as raised:
        labels(["a", "b", "a"])
    one_line(raised, "--model a", "twice")


def test_models_of_one_pair_see_the_same_windows(model, store, one_line):
    one, other = model("one"), model("other")
    (found,) = rivals(opened([one, other]), store, "validation")
    assert [candidate.label for candidate in found.models] == ["one", "other"]
    assert len(found.windows) == 5
    assert found.blocks.rows.shape == (5,)

    def differing(*settings):
        return [*opened([one]), *opened([other], *settings)]

    check_candidates(opened([one, other]), store.info, "test")
    for settings, parts in (
        (("data.min_wet", 0.2), ["data.min_wet is 0.1 and 0.2", "--set data.min_wet=..."]),
        (("seed", 3), ["seed is 0 and 3"]),
    ):
        with pytest.raises(UserError) as raised:
            check_candidates(differing(settings), store.info, "test")
        one_line(raised, "one and other of pair 4x2", *parts)
    with pytest.raises(UserError) as raised:
        rivals(differing(("scoring.windows", 3)), store, "validation")
    one_line(raised, "one and other of pair 4x2", "5 and 3 windows", "--windows")


def test_what_holds_for_all_models_is_noted_once(model, store):
    one, other = opened([model("one"), model("other")])

    def elsewhere(candidate):
        card = candidate.saved.card
        data = card["data"] | {"fingerprint": "f" * 64, "name": "hills"}
        return replace(candidate, saved=replace(candidate.saved, card=card | {"data": data}))

    assert check_candidates([one, other], store.info, "test") == []
    (note,) = check_candidates([one, elsewhere(other)], store.info, "test")
    assert note.startswith("other: rain (")
    (note,) = check_candidates([elsewhere(one), elsewhere(other)], store.info, "test")
    assert note.startswith("rain (")
    assert "hills (ffffffff)" in note
