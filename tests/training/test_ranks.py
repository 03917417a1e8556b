"""One training, one trial and one evaluation give the same on any number of ranks: real processes, real data.

All that one number of ranks does is done in one launch, and looked at by many tests.
"""

import numpy as np
import pytest

from pipeline.ranks import Ranks

FSDP, DDP = ({"parallel": {"sharding": kind}} for kind in ("fsdp", "ddp"))
HSDP = {"parallel": {"sharding": "hsdp", "shard_size": 2}}
STEPS = {"batch": 8, "mean_steps": 4, "residual_steps": 4}
LONG = {"batch": 8, "residual_steps": 6}

# name: stage, changed settings
ON_TWO = {
    "mean fsdp": (0, FSDP),
    "residual fsdp": (1, FSDP),
    "residual ddp": (1, DDP),
    "residual fsdp accumulate recompute": (
        1,
        {"parallel": {"sharding": "fsdp", "accumulate": 3, "recompute": True, "prefetch": 0}},
    ),
    "residual fsdp bfloat16": (1, {**FSDP, "precision": "bfloat16"}),
}
ON_THREE = {"residual fsdp": (1, FSDP)}  # 2, 3 and 3 windows each
ON_FOUR = {
    "mean hsdp": (0, HSDP),
    "residual fsdp": (1, FSDP),
    "residual hsdp": (1, HSDP),
}
EVERY = [
    *((2, name) for name in ON_TWO),
    *((3, name) for name in ON_THREE),
    *((4, name) for name in ON_FOUR),
]
WORLDS = [2, pytest.param(3, marks=pytest.mark.slow), 4]
SCORED = {f"scores {count}": ("scores", {"count": count}) for count in (6, 2, 1)}
RUNGS = {"complete": {3: None, 6: None}, "pruned": {3: None, 6: 0.0}}


def trainings(variants):
    return {
        name: ("training", {"number": number, "validates": True, **STEPS, **changes})
        for name, (number, changes) in variants.items()
    }


def trials(folder):
    return {
        f"trial {name}": ("trial", {"output": f"{folder}/{name}", "limits": limits})
        for name, limits in RUNGS.items()
    }


def on(store, calls):
    return {key: (name, {"store": store.url, **arguments}) for key, (name, arguments) in calls.items()}


@pytest.fixture(scope="session")
def handed_on(tmp_path_factory):
    """Checkpoints of trainings that go from 2 ranks to 1 and then to 4."""
    return tmp_path_factory.mktemp("handed-on")


def stretch(handed_on, shardings, kill):
    return {
        f"handed on {first}": (
            "training",
            {"number": 1, "url": f"{handed_on}/{first}", "kill": kill, **LONG, **now},
        )
        for first, now in shardings.items()
    }


@pytest.fixture(scope="session")
def alone(kit, patchy_store, tmp_path_factory):
    calls = {
        **trainings({"mean": (0, {}), "residual": (1, {})}),
        "long": ("training", {"number": 1, **LONG}),
        **SCORED,
        **trials(tmp_path_factory.mktemp("alone")),
    }
    return kit.many(Ranks(), on(patchy_store, calls))


@pytest.fixture(scope="session")
def two(kit, on_ranks, patchy_store, handed_on, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    calls = {
        **trainings(ON_TWO),
        **SCORED,
        **trials(folder),
        **stretch(handed_on, {"fsdp": FSDP, "ddp": DDP}, kill=3),
        "killed while writing": (
            "training",
            {"number": 1, "url": f"{folder}/writing", "asynchronous": True, "kill": 3, **STEPS, **FSDP},
        ),
        "carried on": (
            "training",
            {"number": 1, "url": f"{folder}/writing", "asynchronous": True, **STEPS, **FSDP},
        ),
    }
    return on_ranks(2, kit.many, on(patchy_store, calls))


@pytest.fixture(scope="session")
def three(kit, on_ranks, patchy_store):
    return on_ranks(3, kit.many, on(patchy_store, {**trainings(ON_THREE), **SCORED}))


@pytest.fixture(scope="session")
def four(kit, on_ranks, patchy_store, handed_on, two):
    kit.many(Ranks(), on(patchy_store, stretch(handed_on, {"fsdp": {}, "ddp": {}}, kill=5)))
    shardings = {"fsdp": HSDP, "ddp": FSDP}
    calls = {**trainings(ON_FOUR), **SCORED, **stretch(handed_on, shardings, kill=None)}
    return on_ranks(4, kit.many, on(patchy_store, calls))


@pytest.fixture
def launches(request):
    """Give what each rank of a launch found, by the number of ranks; a launch runs when it is asked for."""

    class Launches:
        def __getitem__(self, world):
            return request.getfixturevalue({2: "two", 3: "three", 4: "four"}[world])

    return Launches()


def assert_close(one, other):
    """The gradient of a bias before a norm is rounding alone, which Adam makes as large as any other."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if not name.endswith("bias"):
            np.testing.assert_allclose(value, other[name], rtol=1e-3, atol=1e-4, err_msg=name)


def assert_same_curve(found, expected, rel):
    assert len(found) == len(expected)
    for step, (numbers, wanted) in enumerate(zip(found, expected, strict=True)):
        for number, want in zip(numbers, wanted, strict=True):
            assert (number is None) == (want is None)
            assert number is None or number == pytest.approx(want, rel=rel), step


@pytest.mark.parametrize(
    ("world", "name"),
    [pytest.param(*one, marks=[pytest.mark.slow] if one[0] == 3 else []) for one in EVERY],
)
def test_the_curve_of_a_training_is_the_same_on_any_ranks(launches, alone, world, name):
    expected = alone[name.split()[0]]
    low = "bfloat16" in name
    for found in (rank[name] for rank in launches[world]):
        assert_same_curve(found["curve"], expected["curve"], rel=0.05 if low else 1e-5)
        if not low:
            assert_close(found["weights"], expected["weights"])
    if low:
        assert launches[world][0][name]["curve"] != expected["curve"]


def test_a_mean_of_means_would_not_be_the_same(kit, patchy_store, alone):
    """Or the test above could not tell: windows differ in how many values are missing."""
    prepared = kit.prepare(patchy_store.url, **STEPS)
    feed = kit.Feed(prepared.train, prepared.settings, 0, "mean", Ranks())
    for step in range(6):
        counts = feed.step(step)[0].batch.mask.sum(dim=(1, 2, 3))
        assert counts.unique().numel() > 2
    first, last = counts[:4].sum(), counts[4:].sum()
    assert abs(float(first / last) - 1) > 0.05


@pytest.mark.parametrize("world", WORLDS)
def test_all_ranks_end_with_the_same_weights(launches, world):
    first, *others = launches[world]
    for name in (name for number, name in EVERY if number == world):
        for other in others:
            assert other[name]["curve"] == first[name]["curve"]
            for part, value in first[name]["weights"].items():
                assert np.array_equal(value, other[name]["weights"][part]), (name, part)


@pytest.mark.parametrize("world", [2, 4])
def test_fsdp_divides_what_is_held(launches, alone, world):
    (whole,) = alone["residual"]["memory"]
    parts = launches[world][0]["residual fsdp"]["memory"]
    assert len(parts) == world
    for held in ("parameters", "gradients", "average", "sharded"):
        assert max(part[held] for part in parts) <= 1.1 / world * whole[held], held
        assert sum(part[held] for part in parts) >= whole[held]  # Adam's step counts are on every rank
    halves = launches[4][0]["residual hsdp"]["memory"]
    assert max(part["sharded"] for part in halves) <= 1.1 / 2 * whole["sharded"]


def test_ddp_holds_everything(launches, alone):
    (whole,) = alone["residual"]["memory"]
    for part in launches[2][0]["residual ddp"]["memory"]:
        assert part["sharded"] == whole["sharded"]


@pytest.mark.parametrize("first", ["fsdp", "ddp"])
def test_a_training_goes_from_two_ranks_to_one_and_to_four(four, alone, first):
    for rank in four:
        found = rank[f"handed on {first}"]
        assert found["first"] == 5
        for row, expected in zip(found["curve"], alone["long"]["curve"][4:], strict=True):
            assert row[:2] == pytest.approx(expected[:2], rel=1e-5)
        assert_close(found["weights"], alone["long"]["weights"])


def test_a_training_that_writes_in_the_background_carries_on(two):
    for rank in two:
        assert rank["killed while writing"] is None
        assert rank["carried on"]["first"] == 3
        for name, value in rank["residual fsdp"]["weights"].items():
            assert np.array_equal(rank["carried on"]["weights"][name], value), name


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("count", [6, 2, 1])
def test_scores_are_the_same_on_any_ranks_also_on_more_than_windows(launches, alone, world, count):
    expected = alone[f"scores {count}"]
    assert len(expected["crps"]) == expected["metrics"]["windows"] == count
    for rank in launches[world]:
        assert rank[f"scores {count}"]["metrics"] == pytest.approx(expected["metrics"], rel=1e-5, abs=1e-8)
        assert rank[f"scores {count}"]["crps"] == pytest.approx(expected["crps"], rel=1e-5)  # same members


@pytest.mark.parametrize("name", list(RUNGS))
def test_a_trial_ends_the_same_on_two_ranks(two, alone, name):
    expected = alone[f"trial {name}"]["outcome"]
    assert expected["state"] == name
    for rank in two:
        found = rank[f"trial {name}"]["outcome"]
        assert (found["state"], found["reason"]) == (expected["state"], None)
        assert found["trained_steps"] == expected["trained_steps"]
        assert found["rungs"] == pytest.approx(expected["rungs"], rel=1e-4)
        for metric, value in expected["metrics"].items():
            if not metric.endswith("_seconds") and not metric.startswith("conservation"):
                assert found["metrics"][metric] == pytest.approx(value, rel=1e-4), metric


@pytest.mark.parametrize("name", list(RUNGS))
def test_the_first_rank_alone_writes_and_tells(two, alone, name):
    first, other = (rank[f"trial {name}"] for rank in two)
    ends = ["outcome.json"] if name == "pruned" else ["model.json", "model.safetensors", "outcome.json"]
    assert sorted(file for file in first["written"] if file.startswith(("model.", "outcome."))) == ends
    assert len(first["written"]) == len(alone[f"trial {name}"]["written"])
    assert other["written"] == other["rungs"] == []
    assert [step for step, _ in first["rungs"]] == [3, 6]
