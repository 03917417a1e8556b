import json
import threading
from dataclasses import replace

import pytest
import torch

from pipeline import Conservation, FactorPair
from pipeline.config import CheckpointSettings, PruningSettings
from pipeline.models.families import build_model
from pipeline.models.family import Stage
from pipeline.tuning import stage_cache
from pipeline.tuning.claims import LeasedClaims
from pipeline.tuning.stage_cache import SharedStages

MEAN = Stage("mean", ("mean",), frozenset({"context"}), steps=12)
RESIDUAL = Stage("residual", ("denoiser",), frozenset({"beta", "context", "conservation"}), steps=12)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def claims(clock):
    return LeasedClaims(seconds=10, clock=clock)


@pytest.fixture
def shared(tmp_path, tiny, claims):
    def make(owner="a", fingerprint="f", url=None, config=tiny):
        return SharedStages(url or str(tmp_path / "stages"), config, fingerprint, claims, owner)

    return make


def changed(config, part, **values):
    return config.model_copy(update={part: getattr(config, part).model_copy(update=values)})


def state():
    return {"mean.weight": torch.arange(6.0).reshape(2, 3), "mean.bias": torch.tensor([0.5])}


def test_the_key_holds_what_the_weights_depend_on(shared, make_spec, tiny):
    key = shared().key(MEAN, make_spec())
    same = [
        shared().key(MEAN, make_spec(beta=0.05)),
        shared().key(MEAN, make_spec(conservation=Conservation(power=0.5))),
        shared(owner="b").key(MEAN, make_spec()),
        shared(url="elsewhere").key(MEAN, make_spec()),
        shared(config=changed(tiny, "training", report_every=1)).key(MEAN, make_spec()),
        shared(config=changed(tiny, "training", checkpoints=CheckpointSettings(every=1))).key(
            MEAN, make_spec()
        ),
        shared(config=changed(tiny, "training", residual_steps=99)).key(MEAN, make_spec()),  # a later stage
        shared(config=changed(tiny, "tuning", trials=99)).key(MEAN, make_spec()),
        shared(config=changed(tiny, "tuning", pruning=PruningSettings(rungs=0))).key(MEAN, make_spec()),
        shared(config=changed(tiny, "tuning", objectives=("spectral",))).key(MEAN, make_spec()),
        shared(config=changed(tiny, "scoring", windows=99)).key(MEAN, make_spec()),
        shared(config=changed(tiny, "sampling", steps=3)).key(MEAN, make_spec()),
        shared(config=changed(tiny, "data", store="elsewhere")).key(MEAN, make_spec()),
    ]
    assert set(same) == {key}
    other = [
        shared().key(MEAN, make_spec(context=2)),
        shared().key(MEAN, make_spec(heads=1)),
        shared(fingerprint="g").key(MEAN, make_spec()),
        shared(config=tiny.model_copy(update={"seed": 1})).key(MEAN, make_spec()),
        shared(config=changed(tiny, "training", learning_rate=1e-5)).key(MEAN, make_spec()),
        shared(config=changed(tiny, "training", mean_steps=13)).key(MEAN, make_spec()),
        shared(config=changed(tiny, "data", min_wet=0.3)).key(MEAN, make_spec()),
        shared(config=changed(tiny, "tuning", max_context=3)).key(MEAN, make_spec()),
        shared().key(MEAN, replace(make_spec(), pair=FactorPair(2, 2))),
        shared().key(Stage("other", ("mean",), MEAN.depends_on, 12), make_spec()),
    ]
    assert len({key, *other}) == len(other) + 1


def test_a_stage_depends_on_the_steps_of_those_before_it(shared, make_spec, tiny):
    key = shared().key(RESIDUAL, make_spec())
    assert shared(config=changed(tiny, "training", mean_steps=13)).key(RESIDUAL, make_spec()) != key
    assert shared(config=changed(tiny, "training", residual_steps=13)).key(RESIDUAL, make_spec()) != key
    for change in ({"beta": 0.05}, {"context": 2}, {"conservation": Conservation(power=0.5)}):
        assert shared().key(RESIDUAL, make_spec(**change)) != key


def test_only_what_a_stage_depends_on_counts(shared, make_spec):
    """A mean that is trained through f is another for each f, and still the same for each beta."""
    through = Stage("mean", ("mean",), frozenset({"context", "conservation"}), steps=12)
    key = shared().key(through, make_spec())
    assert shared().key(through, make_spec(beta=0.05)) == key
    assert shared().key(through, make_spec(conservation=Conservation(power=0.5))) != key
    assert shared().key(MEAN, make_spec()) != key


def test_the_key_holds_the_code(shared, make_spec, monkeypatch):
    key = shared().key(MEAN, make_spec())
    monkeypatch.setattr(stage_cache, "code_version", lambda: "another")
    assert shared().key(MEAN, make_spec()) != key


def test_a_stage_that_serves_one_trial_only_is_not_shared(shared, make_spec, tmp_path, claims):
    one = shared()
    assert one.fetch_or_claim(RESIDUAL, make_spec()) is None
    one.renew(RESIDUAL, make_spec())
    one.publish(RESIDUAL, make_spec(), state())
    assert not (tmp_path / "stages").exists()
    assert claims._held == {}
    assert shared(owner="b").fetch_or_claim(RESIDUAL, make_spec()) is None


def test_round_trip(shared, make_spec):
    one, two = shared("a"), shared("b")  # of any sweeps: a stage is found by what it depends on
    assert one.fetch_or_claim(MEAN, make_spec(beta=0.01)) is None
    one.publish(MEAN, make_spec(beta=0.01), state())
    got = two.fetch_or_claim(MEAN, make_spec(beta=0.05))
    assert got.keys() == state().keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in state().items())
    assert shared("c").fetch_or_claim(MEAN, make_spec(context=2)) is None


def test_a_whole_model_stage_survives(shared, make_spec, perturb):
    model = perturb(build_model(make_spec(), seed=0))
    stage = next(
        s for s in type(model).stages(make_spec().settings, shared().config.training) if s.name == "mean"
    )
    shared("a").publish(stage, make_spec(), model.stage_state(stage))
    other = build_model(make_spec(beta=0.04), seed=1)
    other.load_stage(stage, shared("b").fetch_or_claim(stage, make_spec(beta=0.04)))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.stage_state(stage).items())


@pytest.mark.parametrize(
    "damage",
    [
        lambda weights, manifest: weights.write_bytes(weights.read_bytes()[:-1] + b"x"),
        lambda weights, manifest: weights.write_bytes(b""),
        lambda weights, manifest: weights.unlink(),
        lambda weights, manifest: manifest.write_text(manifest.read_text()[:40]),
        lambda weights, manifest: manifest.write_text(json.dumps({"stage": "mean"})),
        lambda weights, manifest: manifest.write_text("[]"),
        lambda weights, manifest: manifest.write_bytes(b"\xff"),
        lambda weights, manifest: manifest.unlink(),
    ],
    ids=["a byte", "empty", "no weights", "half a manifest", "no sum", "a list", "no text", "no manifest"],
)
def test_damage_is_not_used_and_is_mended(damage, shared, make_spec, tmp_path):
    shared("a").publish(MEAN, make_spec(), state())
    key = shared().key(MEAN, make_spec())
    damage(tmp_path / "stages" / f"{key}.safetensors", tmp_path / "stages" / f"{key}.json")
    assert shared("b").fetch_or_claim(MEAN, make_spec()) is None
    shared("b").publish(MEAN, make_spec(), state())
    assert shared("c").fetch_or_claim(MEAN, make_spec()) is not None


def test_leases(claims, clock):
    assert claims.claim("k", "a")
    assert not claims.claim("k", "b")
    assert claims.claim("other", "b")
    clock.now = 9
    assert claims.claim("k", "a")  # renewed
    clock.now = 18
    assert not claims.claim("k", "b")
    clock.now = 19
    assert claims.claim("k", "b")  # a fell silent
    assert not claims.claim("k", "a")


def test_release_is_for_the_holder(claims, clock):
    claims.claim("k", "a")
    claims.release("k", "b")
    claims.release("never", "b")
    assert not claims.claim("k", "b")
    claims.release("k", "a")
    assert claims.claim("k", "b")


def test_forgetting_an_owner(claims):
    claims.claim("k", "a")
    claims.claim("l", "a")
    claims.claim("m", "b")
    claims.forget("a")
    assert claims.claim("k", "c")
    assert claims.claim("l", "c")
    assert not claims.claim("m", "c")


class Waiting(LeasedClaims):
    """Tells when somebody was refused."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.refused = threading.Event()
        self._one_at_a_time = threading.Lock()  # an actor answers so

    def claim(self, key, owner):
        with self._one_at_a_time:
            got = super().claim(key, owner)
        if not got:
            self.refused.set()
        return got


@pytest.fixture
def quick_poll(monkeypatch):
    monkeypatch.setattr(stage_cache, "_POLL_SECONDS", 0.01)


def in_threads(*functions):
    results = [None] * len(functions)

    def keep(i, function):
        results[i] = function()

    threads = [threading.Thread(target=keep, args=item, daemon=True) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return results


@pytest.mark.usefixtures("quick_poll")
def test_single_flight(tmp_path, tiny, make_spec):
    claims = Waiting()
    trained = []

    def trial(owner):
        stages = SharedStages(str(tmp_path), tiny, "f", claims, owner)
        got = stages.fetch_or_claim(MEAN, make_spec())
        if got is None:
            trained.append(owner)
            assert claims.refused.wait(30)  # the other has come and must wait
            stages.publish(MEAN, make_spec(), state())
            got = state()
        return got

    one, two = in_threads(lambda: trial("a"), lambda: trial("b"))
    assert len(trained) == 1
    assert all(torch.equal(one[name], two[name]) for name in state())
    assert claims._held == {}


@pytest.mark.usefixtures("quick_poll")
def test_a_dead_owners_lease_runs_out(tmp_path, tiny, make_spec, clock):
    claims = Waiting(seconds=10, clock=clock)
    dead = SharedStages(str(tmp_path), tiny, "f", claims, "dead")
    assert dead.fetch_or_claim(MEAN, make_spec()) is None

    def next_one():
        return SharedStages(str(tmp_path), tiny, "f", claims, "next").fetch_or_claim(MEAN, make_spec())

    def later():
        assert claims.refused.wait(30)
        dead.renew(MEAN, make_spec())
        clock.now = 11

    assert in_threads(next_one, later) == [None, None]
    assert not claims.claim(dead.key(MEAN, make_spec()), "dead")


@pytest.mark.usefixtures("quick_poll")
def test_published_between_the_look_and_the_claim(tmp_path, tiny, make_spec):
    class Late(LeasedClaims):
        def claim(self, key, owner):
            if owner == "b":
                SharedStages(str(tmp_path), tiny, "f", LeasedClaims(), "a").publish(
                    MEAN, make_spec(), state()
                )
            return super().claim(key, owner)

    claims = Late()
    late = SharedStages(str(tmp_path), tiny, "f", claims, "b")
    assert late.fetch_or_claim(MEAN, make_spec()) is not None
    assert claims._held == {}
