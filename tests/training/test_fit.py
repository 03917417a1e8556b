import math

import pytest
import torch

from pipeline import Conservation
from pipeline.config import SamplingSettings
from pipeline.ranks import Ranks
from pipeline.training.fit import fit, stage_loss
from pipeline.training.loop import Hooks

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


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
    def run(spec, rungs=(), **arguments):
        reports = []
        settings = tiny.training.model_copy(update={"mean_steps": 4, "residual_steps": 4, "report_every": 2})
        hooks = Hooks(on_report=reports.append, rungs=rungs)
        model = fit(spec, windows.train, settings, seed=0, hooks=hooks, **arguments)
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
    fit(make_spec(context=2), data.training_windows(2), settings, seed=0, cache=cache)
    assert cache.asked[2:] == [("mean", False), ("residual", False)]


def test_a_wholly_cached_fit_needs_no_training(run, make_spec):
    cache = MemoryCache()
    first, _ = run(make_spec(), cache=cache)
    second, reports = run(make_spec(), cache=cache)
    assert same(first, second, "")
    assert len(reports) == 2


@pytest.fixture
def attempt(make_spec, windows, tiny, tmp_path):
    """Fit with checkpoints after every second step; gives the model and the steps that it reported."""

    def attempt(kill_at=None, cache=None, **changes):
        steps = []
        settings = tiny.training.model_copy(
            update={
                "mean_steps": 4,
                "residual_steps": 4,
                "report_every": 1,
                "checkpoints": tiny.training.checkpoints.model_copy(update={"every": 2}),
            }
            | changes
        )

        def on_report(report):
            steps.append((report.stage, report.step, report.validation_loss))
            if steps[-1][:2] == kill_at:
                raise KeyboardInterrupt

        model = fit(
            make_spec(), windows.train, settings, seed=0, cache=cache,
            hooks=Hooks(on_report=on_report), validation=windows.scored,
            checkpoint_url=str(tmp_path / "unfinished" / "trial"),
        )  # fmt: skip
        return model, steps

    return attempt


@pytest.mark.parametrize(
    ("kill_at", "goes_on"),
    [(("mean", 3), ("mean", 3)), (("residual", 1), ("residual", 1)), (("residual", 4), ("residual", 3))],
)
def test_a_killed_fit_carries_on(attempt, run, make_spec, tmp_path, kill_at, goes_on):
    with pytest.raises(KeyboardInterrupt):
        attempt(kill_at)
    model, steps = attempt()
    assert steps[0][:2] == goes_on  # a finished stage is not trained again
    assert same(model, run(make_spec())[0], "")
    stages = {path.name for path in (tmp_path / "unfinished" / "trial").iterdir()}
    assert stages == {"mean", "residual"}


def test_a_validation_loss_comes_with_each_checkpoint(attempt):
    _, steps = attempt()
    assert [(stage, step) for stage, step, loss in steps if loss is not None] == [
        ("mean", 2), ("mean", 4), ("residual", 2), ("residual", 4)
    ]  # fmt: skip
    assert all(loss is None or loss > 0 for *_, loss in steps)


def test_the_best_weights_have_the_lowest_validation_loss(attempt, windows, tiny):
    wild = {"learning_rate": 0.5, "warmup_steps": 0, "ema": 0.0}
    best, steps = attempt(weights="best", **wild)
    for stage in best.stages(best.spec.settings, tiny.training):
        losses = [loss for name, _, loss in steps if name == stage.name and loss is not None]
        found = stage_loss(best, stage, windows.scored, tiny.training, seed=0, ranks=Ranks())
        assert found == pytest.approx(min(losses), rel=1e-6)
    again, _ = attempt(weights="best", **wild)  # from what is kept
    assert same(best, again, "")


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
