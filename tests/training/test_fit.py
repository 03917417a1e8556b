import math

import pytest
import torch

from pipeline import Conservation
from pipeline.config import SamplingSettings
from pipeline.training.fit import fit

CPU = torch.device("cpu")


class MemoryCache:
    """Keeps finished stages by what they depend on; empty at first, and so false as a truth value."""

    def __init__(self):
        self.kept, self.asked, self.renewed = {}, [], 0

    def __len__(self):
        return len(self.kept)

    def _key(self, stage, spec):
        values = spec.parameters.model_dump(mode="json")
        return stage.name, *(str(values[name]) for name in sorted(stage.depends_on))

    def fetch_or_claim(self, stage, spec):
        state = self.kept.get(self._key(stage, spec))
        self.asked.append((stage.name, state is not None))
        return state

    def publish(self, stage, spec, state):
        self.kept[self._key(stage, spec)] = {name: tensor.clone() for name, tensor in state.items()}

    def renew(self, stage, spec):
        self.renewed += 1


@pytest.fixture
def run(windows, tiny):
    def run(spec, **arguments):
        reports = []
        settings = tiny.training.model_copy(update={"mean_steps": 4, "residual_steps": 4, "report_every": 2})
        model = fit(spec, windows.train, settings, seed=0, device=CPU, on_report=reports.append, **arguments)
        return model, reports

    return run


def same(one, other, part):
    states = [{k: v for k, v in model.state_dict().items() if k.startswith(part)} for model in (one, other)]
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_second_fit_takes_the_same_mean_from_the_cache(run, make_spec):
    cache = MemoryCache()
    first, reports = run(make_spec(beta=0.01), cache=cache)
    assert cache.asked == [("mean", False), ("residual", False)]
    assert cache.renewed == len(reports) == 4
    spec = make_spec(beta=0.03, conservation=Conservation(power=0.5))
    second, reports = run(spec, cache=cache)
    assert cache.asked[2:] == [("mean", True), ("residual", False)]
    assert [(report.stage, report.step) for report in reports] == [
        ("mean", 4),
        ("residual", 2),
        ("residual", 4),
    ]
    assert math.isnan(reports[0].loss)
    assert same(first, second, "mean.")
    assert not same(first, second, "denoiser.")
    # What the cache saves is time: without it the result is the same to the bit.
    assert same(second, run(spec)[0], "")


def test_a_mean_with_another_context_is_trained(run, make_spec, data, tiny):
    cache = MemoryCache()
    run(make_spec(context=3), cache=cache)
    settings = tiny.training.model_copy(update={"mean_steps": 2, "residual_steps": 2})
    fit(make_spec(context=2), data.training_windows(2), settings, seed=0, device=CPU, cache=cache)
    assert cache.asked[2:] == [("mean", False), ("residual", False)]


def test_a_wholly_cached_fit_needs_no_training(run, make_spec):
    cache = MemoryCache()
    first, _ = run(make_spec(), cache=cache)
    second, reports = run(make_spec(), cache=cache)
    assert same(first, second, "")
    assert len(reports) == 2


def test_a_killed_fit_carries_on(run, make_spec, windows, tiny, tmp_path):
    settings = tiny.training.model_copy(
        update={"mean_steps": 4, "residual_steps": 4, "report_every": 1, "checkpoint_every": 2}
    )

    def attempt(kill_at=None):
        steps = []

        def on_report(report):
            steps.append((report.stage, report.step))
            if steps[-1] == kill_at:
                raise KeyboardInterrupt

        model = fit(
            make_spec(), windows.train, settings, seed=0, device=CPU, on_report=on_report,
            checkpoint_url=str(tmp_path / "unfinished" / "trial"),
        )  # fmt: skip
        return model, steps

    with pytest.raises(KeyboardInterrupt):
        attempt(kill_at=("mean", 3))
    model, steps = attempt()
    assert steps[0] == ("mean", 3)
    assert same(model, run(make_spec())[0], "")
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_the_model_is_ready_for_use(run, make_spec, windows):
    model, _ = run(make_spec())
    assert not model.training
    members = model.sample(windows.scored.batch([0]), SamplingSettings(steps=2, members=2), seed=0)
    assert not members.requires_grad


def test_rungs_lie_in_the_last_stage_only(run, make_spec, windows):
    """Only then can the model sample, and it does so with the means and the weights it would end with."""
    seen = []

    def look(step, model):
        members = model.sample(windows.scored.batch([0]), SamplingSettings(steps=2, members=2), seed=0)
        seen.append((step, {name: tensor.clone() for name, tensor in model.state_dict().items()}, members))

    looked, _ = run(make_spec(), rungs=(1, 3), on_rung=look)
    assert [step for step, *_ in seen] == [1, 3]  # once each, though the mean has as many steps
    assert all(torch.isfinite(members).all() for *_, members in seen)
    plain, _ = run(make_spec())
    assert same(looked, plain, "")
    for _, state, _ in seen:
        means = {name: value for name, value in state.items() if name.startswith("mean.")}
        assert all(torch.equal(value, plain.state_dict()[name]) for name, value in means.items())
    assert not torch.equal(seen[0][2], seen[1][2])


def test_what_a_look_raises_ends_the_fit(run, make_spec):
    cache = MemoryCache()

    def enough(step, model):
        raise StopIteration

    with pytest.raises(StopIteration):
        run(make_spec(), cache=cache, rungs=(2,), on_rung=enough)
    assert [key[0] for key in cache.kept] == ["mean"]  # a pruned stage is not passed on


def test_rungs_without_a_look_change_nothing(run, make_spec):
    assert same(run(make_spec(), rungs=(1, 2))[0], run(make_spec())[0], "")
