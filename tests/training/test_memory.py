import resource
from dataclasses import replace

import pytest
import torch

from pipeline import FactorPair, UserError
from pipeline.config_layers import load_config
from pipeline.data.covariates import Covariate
from pipeline.data.scaling import ValueTransform
from pipeline.diffusion.noise import StepDraws
from pipeline.models.families import build_model, family_stages
from pipeline.models.family import ModelSpec
from pipeline.prior import paper_prior
from pipeline.ranks import Ranks
from pipeline.training import memory
from pipeline.training.feed import Feed
from pipeline.training.memory import (
    MemoryEstimate,
    MemoryUse,
    available_memory,
    check_fits,
    describe,
    describe_measured,
)
from pipeline.training.memory_estimate import estimate
from pipeline.training.sharding import arithmetic, lay_out
from pipeline.training.state import StageState

HELD = ("parameters", "gradients", "optimizer", "average")
ALONE = {"ranks_per_copy": 1, "world": 1, "device_type": "cpu"}


@pytest.fixture
def settings(tiny):
    def make(precision="auto", **parallel):
        changed = tiny.training.parallel.model_copy(update=parallel)
        return tiny.training.model_copy(update={"precision": precision, "parallel": changed})

    return make


def taken(spec, stage, training, batch, numbers):
    """What a real micro-batch keeps for its backward pass, and what the state then holds."""
    model = build_model(spec, seed=0).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage.owns(name))
    lay_out(model, training, Ranks())
    state = StageState(model, stage, training)
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = replace(batch, mask=batch.mask.clone())  # it is a view of the context's mask as well
    draws = StepDraws(0, stage.name, 0, training.batch, numbers)
    keeping = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with keeping, arithmetic(training, torch.device("cpu")):
        loss = model.loss(stage.name, batch, draws)
    saved = sum(kept.values())
    loss.total.backward()
    return saved, state.bytes()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("precision", "parallel"),
    [("float32", {}), ("bfloat16", {}), ("float32", {"recompute": True}), ("float32", {"accumulate": 3})],
)
def test_the_estimate_is_what_a_micro_batch_takes(make_spec, windows, settings, number, precision, parallel):
    spec, training = make_spec(), settings(precision, **parallel)
    stage = family_stages(spec.settings, training)[number]
    (largest, *_) = sorted(
        Feed(windows.train, training, 0, stage.name, Ranks()).step(0), key=lambda m: -len(m.batch)
    )
    saved, held = taken(spec, stage, training, largest.batch, range(len(largest.batch)))
    found = estimate(spec, stage, training, patch=24, **ALONE)
    assert {name: getattr(found, name) for name in HELD} == held
    assert found.activations == pytest.approx(saved, rel=0.01)
    assert found.gathered == 0


def test_the_largest_rank_counts_where_parameters_are_sharded(kit, on_ranks, patchy_store):
    changes = {"batch": 6, "mean_steps": 1, "parallel": {"sharding": "fsdp"}}
    calls = {"it": ("training", {"store": patchy_store.url, "number": 0, **changes})}
    held = on_ranks(3, kit.many, calls)[0]["it"]["memory"]
    prepared = kit.prepare(patchy_store.url, **changes)
    stage = family_stages(prepared.spec.settings, prepared.settings)[0]
    found = estimate(
        prepared.spec, stage, prepared.settings, patch=24, ranks_per_copy=3, world=3, device_type="cpu"
    )
    for name in HELD:
        assert getattr(found, name) == max(use[name] for use in held)
        assert getattr(found, name) > min(use[name] for use in held)  # 8 rows over 3 ranks are not even


def test_what_saves_memory_is_estimated_to(make_spec, settings):
    spec = make_spec()

    def residual(training, device_type="cpu", world=1):
        stage = family_stages(spec.settings, training)[1]
        return estimate(
            spec, stage, training, patch=48, ranks_per_copy=world, world=world, device_type=device_type
        )

    plain = residual(settings())
    assert residual(settings(recompute=True)).total < 0.8 * plain.total
    assert residual(settings(accumulate=2)).activations == pytest.approx(plain.activations / 2, rel=0.1)
    assert residual(settings(), world=4).parameters < 0.3 * plain.parameters
    # A gradient that is not reduced at once is kept whole.
    assert residual(settings(accumulate=2), world=2).gathered > residual(settings(), world=2).gathered
    # On a GPU autocast keeps normalisations in float32, on a CPU it does not.
    low = [residual(settings("bfloat16"), device).activations for device in ("cpu", "cuda")]
    assert 1.15 * low[0] < low[1] < plain.activations
    assert residual(settings(), "cuda").activations == low[1]  # auto


def test_covariates_are_channels_of_the_estimate(make_spec, settings):
    extra = tuple(Covariate(name=name, mean=0.0, spread=1.0) for name in "abcdef")
    plain = make_spec()
    richer = replace(plain, dynamics=extra)
    stages = family_stages(plain.settings, settings())
    for stage in stages:
        found, before = (estimate(spec, stage, settings(), patch=24, **ALONE) for spec in (richer, plain))
        weights = sum(p.numel() for p in build_model(richer, seed=0).parameters())
        assert found.parameters == 4 * weights > before.parameters
        assert found.activations > before.activations


def test_the_published_model_is_estimated_without_being_made():
    config, pair = load_config([("preset", "paper")], environment={}), FactorPair(10, 3)
    transform = ValueTransform(kind="log1p", unit=1.0, spread=1.0)
    spec = ModelSpec(pair, paper_prior(pair), config.model, transform, 1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = [
        estimate(spec, stage, config.training, patch=config.data.patch, **ALONE)
        for stage in family_stages(config.model, config.training)
    ]
    assert sum(one.total for one in found) > 4 * 2**30
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2**30


def estimated(stage="mean", activations=2**30):
    return MemoryEstimate(stage, 2**20, 2**20, 2**21, 2**20, activations, 2**20, 0)


def test_what_does_not_fit_is_refused_with_the_remedies(one_line):
    found = estimated()
    check_fits(found, found.total, "this machine")
    with pytest.raises(UserError) as raised:
        check_fits(found, found.total // 2, "cuda:0 of node-3")
    one_line(
        raised, "stage mean", "1.01 GiB per rank", "cuda:0 of node-3", "0.50 GiB", "sharding=fsdp",
        "training.parallel.accumulate", "training.parallel.recompute=true", "training.batch", "data.patch",
    )  # fmt: skip


def test_a_person_reads_what_each_stage_takes():
    first, second = describe([estimated(), estimated("residual", 2**31)]).splitlines()
    assert "stage mean: about 1.01 GiB = parameters 1.0 MiB + gradients 1.0 MiB" in first
    assert "optimizer 2.0 MiB + average 1.0 MiB + activations 1.00 GiB" in first
    assert "gathered" not in first
    assert "stage residual: about 2.01 GiB" in second


def test_the_largest_rank_and_the_highest_peak_are_told():
    uses = [MemoryUse(2**20, 2**20, 2**21, 2**20, 2**30), MemoryUse(2**19, 2**19, 2**20, 2**19, 2**31)]
    said = describe_measured("mean", uses)
    assert "stage mean, largest of 2 ranks: parameters 1.0 MiB" in said
    assert said.endswith("peak 2.00 GiB")


def test_a_container_has_less_than_its_machine(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (str(limit), str(tmp_path / "none")))
    limit.write_text("max\n")
    machine = available_memory(torch.device("cpu"))
    assert machine > 2**28
    limit.write_text(f"{2**28}\n")
    assert available_memory(torch.device("cpu")) == 2**28
