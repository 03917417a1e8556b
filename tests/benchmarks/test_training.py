import pytest
from torch.utils.flop_counter import FlopCounterMode

from pipeline import UserError
from pipeline.benchmarks.training import step_flops, train_step, train_step_benchmark
from pipeline.config import Config
from pipeline.diffusion.noise import StepDraws
from pipeline.models.families import build_model, family_stages


def flops(spec, training, number, patch=24, **changes):
    training = training.model_copy(update=changes)
    return step_flops(spec, family_stages(spec.settings, training)[number], training, patch=patch)


def test_flops_are_those_of_a_real_step_on_the_path_of_a_gpu(make_spec, windows, tiny):
    spec, training = make_spec(), tiny.training
    model = build_model(spec, seed=0)
    with FlopCounterMode(display=False) as counter:
        numbers = range(training.batch)
        batch = windows.train.batch(list(numbers))
        model.loss("mean", batch, StepDraws(0, "mean", 0, training.batch, numbers)).total.backward()
    # A CPU attends over frames without matrix products. Of those there are two forward and four backward,
    # each of 2 B L^2 C P operations; the tiny mean attends at both levels, with 8 channels.
    attention = sum(6 * 2 * training.batch * 3**2 * 8 * side**2 for side in (24, 12))
    assert flops(spec, training, 0) == counter.get_total_flops() + attention


@pytest.mark.parametrize("number", [0, 1])
def test_flops_grow_with_the_batch_and_not_with_recomputing(make_spec, tiny, number):
    spec, training = make_spec(), tiny.training
    once = flops(spec, training, number, batch=2)
    assert flops(spec, training, number, batch=4) == 2 * once
    recompute = training.parallel.model_copy(update={"recompute": True, "accumulate": 2})
    assert flops(spec, training, number, batch=2, parallel=recompute) == once
    assert 3.9 * once < flops(spec, training, number, batch=2, patch=48) < 4.1 * once


@pytest.fixture
def config(tiny, store, tmp_path):
    tree = tiny.model_dump() | {"output": str(tmp_path)}
    tree["data"] |= {"store": store.url}
    return Config.model_validate(tree)


def test_steps_of_both_stages_are_measured(config, pair):
    found = train_step_benchmark(config, pair, compiled=[False])
    assert [(cost.stage, cost.compiled) for cost in found.costs] == [("mean", False), ("residual", False)]
    assert all(cost.seconds > 0 and cost.memory.peak > cost.memory.sharded for cost in found.costs)
    assert found.peak is None
    head, *lines = str(found).splitlines()
    assert head.startswith("train-step: 4x2 on CPU, float32, batch 4, patch 24, L 4")
    assert [line.split()[:2] for line in lines] == [["mean", "eager"], ["residual", "eager"]]
    assert "utilisation" not in str(found)


def test_it_measures_one_pair(config, one_line):
    with pytest.raises(UserError) as raised:
        train_step(config)
    one_line(raised, "tuning.pairs: give one pair to measure, not 0")
