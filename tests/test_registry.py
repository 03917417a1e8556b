import logging
from dataclasses import replace

import mlflow
import numpy as np
import pytest
import torch

from pipeline.data.batch import Batch
from pipeline.data.covariates import Covariate
from pipeline.mlflow_view.views import page_of_run
from pipeline.model_file import load_model, save_model
from pipeline.models.families import build_model
from pipeline.registry import _load_pyfunc, register
from pipeline.tracking import SWEEP, Tracker

logging.getLogger("mlflow").setLevel(logging.WARNING)
NAME = "finescale-rain-4x2"


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    output = tmp_path_factory.mktemp("registry")
    return Tracker(f"sqlite:///{output}/mlflow.db", "registry", str(output), {SWEEP: "s"})


@pytest.fixture(scope="module")
def model_url(trained_like, tiny, tmp_path_factory):
    url = str(tmp_path_factory.mktemp("models") / "one")
    save_model(url, trained_like(), sampling=tiny.sampling, data={"fingerprint": "f"}, scores={"crps": 0.5})
    return url


@pytest.fixture
def put(tracker, model_url, request):
    """Register the model under a name of the test's own; gives the URI without the name."""
    name = f"{NAME}-{request.node.name}"

    def put_(crps, fingerprint="f", key=None, test_crps=0.5):
        run = tracker.start(key or f"{name}/{crps}", "study")
        assert tracker.flush(20)
        validation = None if crps is None else (crps, fingerprint)
        uri = register(
            tracker.client, tracker.run_id(run), model_url, name, crps=test_crps, scored_on="s",
            validation=validation,
        )  # fmt: skip
        tracker.end(run, "FINISHED")
        return uri.removeprefix(f"models:/{name}")

    put_.name = name
    return put_


def version(tracker, put, alias):
    return int(tracker.client.get_model_version_by_alias(put.name, alias).version)


def test_champion_and_challenger(put, tracker):
    assert put(0.5) == "@champion"
    assert put(0.6) == "@challenger"
    assert (version(tracker, put, "champion"), version(tracker, put, "challenger")) == (1, 2)
    assert put(0.4) == "@champion"
    assert version(tracker, put, "champion") == 3
    assert put(0.4, key="equal") == "@challenger"  # as good is not better


def test_other_data_never_takes_the_place(put, tracker):
    put(0.5)
    assert put(0.1, fingerprint="g") == "@challenger"
    assert version(tracker, put, "champion") == 1


def test_the_test_split_chooses_nothing(put, tracker):
    assert put(0.5, test_crps=0.5) == "@champion"
    assert put(0.6, test_crps=0.1) == "@challenger"
    assert put(0.4, test_crps=0.9) == "@champion"
    assert put(None, test_crps=0.01) == "@challenger"
    tags = tracker.client.get_model_version_by_alias(put.name, "champion").tags
    assert (tags["test_crps"], tags["validation_crps"], tags["validated_on"]) == ("0.9", "0.4", "f")


def test_a_champion_without_a_validation_score_stays(put, tracker):
    assert put(None, test_crps=0.9) == "@champion"
    assert put(0.1, test_crps=0.1) == "@challenger"


def test_the_same_result_again_makes_no_version(put, tracker):
    put(0.5, key="k")
    assert put(0.5, key="k") == "@champion"
    assert len(tracker.client.search_model_versions(f"name = '{put.name}'")) == 1


def test_the_same_result_again_moves_no_alias(put, tracker):
    assert put(0.5, key="old") == "@champion"
    assert put(0.6, key="worse") == "@challenger"
    assert put(0.4, key="better") == "@champion"
    assert put(0.7, key="worst") == "@challenger"
    assert [put(0.5, key="old"), put(0.6, key="worse")] == ["/1", "/2"]
    assert (version(tracker, put, "champion"), version(tracker, put, "challenger")) == (3, 4)


@pytest.mark.parametrize("alias_set", [False, True])
def test_killed_while_registering(put, tracker, monkeypatch, alias_set):
    """Between the version and its alias, or between the alias and the note of it."""

    def die(*arguments):
        raise KeyboardInterrupt

    put(0.5, key="other")
    with monkeypatch.context() as patch:
        patch.setattr(
            tracker.client, "set_model_version_tag" if alias_set else "set_registered_model_alias", die
        )
        with pytest.raises(KeyboardInterrupt):
            put(0.4, key="k")
    assert version(tracker, put, "champion") == (2 if alias_set else 1)
    assert put(0.4, key="k") == "@champion"
    assert tracker.client.get_registered_model(put.name).aliases == {"champion": 2}
    assert len(tracker.client.search_model_versions(f"name = '{put.name}'")) == 2


def test_registered_by_the_tracker(put, tracker, model_url):
    run = tracker.start("by the tracker", "study")
    tracker.register(
        run, model_url, put.name, crps=0.5, scored_on="f", interval=(0.4, 0.75), validation=(0.6, "v")
    )
    assert tracker.flush(60)
    assert tracker.registered(run) == f"models:/{put.name}@champion"
    found = tracker.client.get_model_version_by_alias(put.name, "champion")
    assert (found.run_id, found.tags["test_crps"]) == (tracker.run_id(run), "0.5")
    spec = load_model(model_url).spec
    assert found.tags.items() >= {
        "pair": str(spec.pair), "beta": repr(spec.parameters.beta), "context": str(spec.parameters.context),
        "test_crps_low": "0.4", "test_crps_high": "0.75", "validation_crps": "0.6", "validated_on": "v",
    }.items()  # fmt: skip
    assert found.description.startswith(f"{spec.parameters}; test CRPS 0.5 (90 %: 0.4 to 0.75) ")
    assert f"[study]({page_of_run(tracker.experiment_id, tracker.run_id(run))})" in found.description


def test_a_registered_model_is_described_by_its_champion(put, tracker):
    put(0.5)
    put(0.6)
    text = tracker.client.get_registered_model(put.name).description
    assert text.startswith("Champion is version 1: ")
    assert "test CRPS 0.5 " in text
    assert "validation CRPS 0.5." in text
    assert "by its CRPS on the validation split" in text
    assert f'load_model("models:/{put.name}@champion")' in text
    put(0.4)
    text = tracker.client.get_registered_model(put.name).description
    assert text.startswith("Champion is version 3: ")
    assert "validation CRPS 0.4." in text
    assert "test_crps_low" not in tracker.client.get_model_version(put.name, "3").tags


def test_what_a_person_says_of_a_model_stays(put, tracker):
    put(0.5)
    tracker.client.update_registered_model(put.name, "mine")
    put(0.4)
    assert tracker.client.get_registered_model(put.name).description == "mine"


def test_an_interval_that_cannot_be_had_is_left_out(put, tracker, model_url):
    run = tracker.start(f"{put.name} few blocks", "study")
    tracker.register(run, model_url, put.name, crps=0.5, scored_on="f", interval=(0.4, float("nan")))
    assert tracker.flush(60)
    found = tracker.client.get_model_version_by_alias(put.name, "champion")
    assert "test_crps_high" not in found.tags
    assert "90 %" not in found.description


def test_a_server_in_trouble_promotes_nothing(put, tracker, monkeypatch):
    put(0.5)

    def fail(*arguments):
        raise mlflow.exceptions.MlflowException("database is locked")

    monkeypatch.setattr(tracker.client, "get_model_version_by_alias", fail)
    with pytest.raises(mlflow.exceptions.MlflowException, match="locked"):
        put(0.9)
    monkeypatch.undo()
    assert version(tracker, put, "champion") == 1


def orography_of(store, batch):
    """The orography of a batch's windows in the store's units, (B, H, W)."""
    side = batch.fine.shape[-1]
    places = batch.position.tolist()
    return np.stack([store.static("orography")[y : y + side, x : x + side] for _, y, x in places])


def test_loaded_through_mlflow(put, tracker, model_url, windows, tiny, store):
    put(0.5)
    mlflow.set_tracking_uri(tracker.uri)
    model = mlflow.pyfunc.load_model(f"models:/{put.name}@champion")
    batch = windows.scored.batch([0, 1])
    coarse = batch.coarse.numpy().copy()
    coarse[~batch.coarse_mask.numpy()] = np.nan
    orography = orography_of(store, batch)
    inputs = {"coarse": coarse, "statics": {"orography": orography}, "seed": 3}
    members = model.predict(inputs)
    spec = load_model(model_url).spec
    side = coarse.shape[-1] * spec.pair.space
    assert members.shape == (2, tiny.sampling.members, spec.pair.time, side, side)
    assert np.isfinite(members).all()
    assert (members >= 0).all()
    assert np.array_equal(members, model.predict(inputs))
    assert not np.array_equal(members, model.predict(inputs | {"seed": 4}))
    assert not np.array_equal(members[0], members[1])
    fewer = model.predict(inputs | {"members": 2})
    assert np.allclose(fewer, members[:, :2], atol=1e-5)
    # The caller's metres become what the model was trained on.
    places = torch.tensor([[0, 0, 0], [2, 0, 0]])
    sampling = tiny.sampling
    wanted = load_model(model_url).sample(Batch(**(vars(batch) | {"position": places})), sampling, seed=3)
    assert np.allclose(members, wanted, rtol=1e-3, atol=1e-3)


@pytest.fixture
def predictor(make_spec, perturb, tiny, tmp_path):
    """A model with one static and two dynamic covariates."""
    dynamics = (Covariate(name="u", mean=5.0, spread=2.0), Covariate(name="q", mean=0.01, spread=0.002))
    model = perturb(build_model(replace(make_spec(), dynamics=dynamics), seed=0))
    save_model(str(tmp_path), model, sampling=tiny.sampling, data={}, scores={})
    return _load_pyfunc(str(tmp_path))


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    u, q = rng.normal(5, 2, (2, 3, 6, 6)), rng.normal(0.01, 0.002, (2, 3, 6, 6))
    q[0, 1, 2, 3] = np.nan
    orography = rng.normal(300, 80, (24, 24))
    return {
        "coarse": rng.gamma(0.5, 3, (2, 3, 6, 6)), "statics": {"orography": orography},
        "dynamics": {"q": q, "u": u},
    }  # fmt: skip


def test_covariates_come_by_name_or_in_channel_order(predictor, inputs):
    members = predictor.predict(inputs)
    assert np.isfinite(members).all()
    u, q = inputs["dynamics"]["u"], inputs["dynamics"]["q"]
    orography = inputs["statics"]["orography"]
    in_order = {"statics": orography[None], "dynamics": np.stack([u, q], axis=2)}
    per_window = {"statics": np.stack([orography, orography])[:, None]}
    assert np.array_equal(predictor.predict(inputs | in_order), members)
    assert np.array_equal(predictor.predict(inputs | in_order | per_window), members)
    mean = np.where(np.isnan(q), 0.01, q)  # what is missing counts as the training's mean
    assert np.allclose(predictor.predict(inputs | {"dynamics": {"u": u, "q": mean}}), members, atol=1e-4)
    assert not np.allclose(predictor.predict(inputs | {"dynamics": {"u": u + 4, "q": q}}), members, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"dynamics": None}, ["u is missing", "in channel order: u, q"]),
        ({"statics": None}, ["orography is missing"]),
        ({"dynamics": {"u": np.zeros((2, 3, 6, 6))}}, ["dynamics: q is missing", "u, q"]),
        ({"statics": {"orography": np.zeros((24, 24)), "soil": 0}}, ["knows no soil", "orography"]),
        ({"dynamics": np.zeros((2, 3, 1, 6, 6))}, ["(2, 3, 1, 6, 6)", "2 channels", "u, q"]),
        ({"statics": np.zeros((24, 24))}, ["(24, 24)", "1 channels"]),
        ({"statics": {"orography": np.zeros((6, 6))}}, ["orography", "(6, 6)", "(2, 24, 24)"]),
        ({"dynamics": {"u": np.zeros((6, 6)), "q": np.zeros((6, 6))}}, ["u", "(6, 6)", "(2, 3, 6, 6)"]),
    ],
)
def test_covariates_that_do_not_fit_the_model(predictor, inputs, changes, parts, one_line):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the parts say which)
        predictor.predict(inputs | changes)
    one_line(raised, *parts)
