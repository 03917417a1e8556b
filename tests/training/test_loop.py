import math
from dataclasses import replace

import pytest
import torch

from pipeline import UserError
from pipeline.config import SamplingSettings
from pipeline.models.families import build_model
from pipeline.models.family import Loss
from pipeline.ranks import Ranks
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.fit import stage_loss
from pipeline.training.loop import Hooks, _rate_factor, train_stage

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def train(make_spec, windows, tiny):
    """Train one stage of a fresh model; give its averaged weights and the reports."""

    def run(
        number=0, *, steps=10, seed=0, url=None, on_report=None, model=None, checkpoints=None, **changes
    ):  # fmt: skip
        model = model or build_model(make_spec(), seed=0)
        hooks = {
            name: changes.pop(name)
            for name in ("rungs", "on_rung", "validate", "on_memory")
            if name in changes
        }
        settings = tiny.training.model_copy(
            update={
                "mean_steps": steps,
                "residual_steps": steps,
                "report_every": 4,
                "checkpoints": tiny.training.checkpoints.model_copy(
                    update={"every": 3} | (checkpoints or {})
                ),
            }
            | changes
        )
        stage, reports = model.stages(model.spec.settings, settings)[number], []
        weights = train_stage(
            model,
            stage,
            windows.train,
            settings,
            seed=seed,
            checkpoints=Checkpoints(str(url)) if url else None,
            hooks=Hooks(
                on_report=lambda report: (reports.append(report), on_report and on_report(report, model)),
                **hooks,
            ),
        )
        return weights, reports

    return run


@pytest.fixture
def loss_of(make_spec, windows, tiny):
    """Give the validation loss of averaged weights of the mean."""

    def loss(weights):
        model = build_model(make_spec(), seed=0)
        model.load_state_dict(weights, strict=False)
        stage = model.stages(model.spec.settings, tiny.training)[0]
        return stage_loss(model.eval(), stage, windows.scored, tiny.training, seed=0, ranks=Ranks())

    return loss


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def kept_steps(folder):
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("number", [0, 1])
def test_a_stage_killed_at_any_step_carries_on_and_ends_the_same_to_the_bit(train, tmp_path, number):
    changes = {"steps": 5, "report_every": 1, "checkpoints": {"every": 2}}
    undisturbed, expected = train(number, **changes)
    for kill_at in range(1, 6):
        url = tmp_path / str(kill_at)

        def kill(report, model, kill_at=kill_at):
            if report.step == kill_at:
                raise KilledError

        with pytest.raises(KilledError):
            train(number, url=url, on_report=kill, **changes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(99)  # another process has another random state
            resumed, reports = train(number, url=url, **changes)
        kept = (kill_at - 1) // 2 * 2  # the kill comes before that step's checkpoint
        assert reports == expected[kept:]  # loss and gradient norm to the bit, too
        assert same(resumed, undisturbed)
        assert kept_steps(url)[-1] == 5


def test_a_finished_stage_is_not_trained_again(train, tmp_path):
    weights, _ = train(url=tmp_path)
    again, reports = train(url=tmp_path)
    assert reports == []
    assert same(again, weights)


@pytest.fixture
def killed(train, tmp_path):
    """A stage of ten steps that was killed after checkpoints at 3 and 6; gives a function to damage one."""

    def kill(report, model):
        if report.step == 8:
            raise KilledError

    with pytest.raises(KilledError):
        train(url=tmp_path, on_report=kill)
    assert kept_steps(tmp_path) == [3, 6]

    def damage(step):
        (file,) = (tmp_path / f"step-{step:08d}").glob("*.safetensors")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    return damage


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(train, killed, tmp_path, caplog):
    killed(6)
    resumed, reports = train(url=tmp_path, report_every=1)
    assert "DAMAGED" in caplog.text
    assert [report.step for report in reports] == list(range(4, 11))
    assert same(resumed, train()[0])


def test_if_all_are_damaged_training_never_starts_again_by_itself(train, killed, tmp_path):
    killed(3)
    killed(6)
    with pytest.raises(UserError, match="none is intact"):
        train(url=tmp_path)


def test_a_stage_ends_with_the_checkpoint_of_the_lowest_validation_loss(train, tmp_path):
    losses, seen = iter([0.3, 0.1, 0.2, 0.4]), []

    def validate(weights):
        seen.append(weights)
        return next(losses)

    best, reports = train(url=tmp_path, weights="best", validate=validate, report_every=1)
    validated = {
        report.step: report.validation_loss for report in reports if report.validation_loss is not None
    }
    assert validated == {3: 0.3, 6: 0.1, 9: 0.2, 10: 0.4}
    assert same(best, seen[1])
    assert kept_steps(tmp_path) == [6, 9, 10]
    assert same(train()[0], seen[3])  # the last ones unless asked for
    # ... and when a finished stage is asked for once more
    again, _ = train(url=tmp_path, weights="best", validate=validate)
    assert same(again, best)


def test_the_validation_loss_is_that_of_the_averaged_weights_and_changes_nothing(train, tmp_path, loss_of):
    plain, _ = train(report_every=1)
    weights, reports = train(url=tmp_path, validate=loss_of, report_every=1)
    assert same(weights, plain)
    assert reports[-1].validation_loss == loss_of(plain)


def test_what_a_stage_holds_is_told_once(train, make_spec, tmp_path):
    told = []
    train(url=tmp_path, on_memory=lambda stage, used: told.append((stage, used)))
    ((stage, (held,)),) = told
    model = build_model(make_spec(), seed=0)
    size = sum(4 * p.numel() for p in model.mean.parameters())
    count = len(list(model.mean.parameters()))
    assert stage == "mean"
    assert held.parameters == sum(4 * p.numel() for p in model.parameters())
    assert (held.gradients, held.average, held.optimizer) == (size, size, 2 * size + 4 * count)
    assert held.peak > held.sharded
    train(url=tmp_path, on_memory=lambda stage, used: told.append(stage))  # it was finished
    assert len(told) == 1


@pytest.mark.parametrize(
    "parallel", [{"accumulate": 2}, {"accumulate": 4}, {"recompute": True}, {"prefetch": 0}], ids=str
)
@pytest.mark.parametrize("number", [0, 1])
def test_how_the_work_is_done_changes_nothing_beyond_rounding(train, tiny, number, parallel):
    _, plain = train(number, steps=5, report_every=1)
    changed = tiny.training.parallel.model_copy(update=parallel)
    _, reports = train(number, steps=5, report_every=1, parallel=changed)
    for name in ("loss", "gradient_norm"):
        found, expected = ([getattr(report, name) for report in many] for many in (reports, plain))
        assert found == pytest.approx(expected, rel=1e-5)


def test_bfloat16_stays_near(train):
    _, plain = train(1, report_every=2)
    _, low = train(1, report_every=2, precision="bfloat16")
    assert [report.loss for report in low] != [report.loss for report in plain]
    assert [report.loss for report in low] == pytest.approx([report.loss for report in plain], rel=0.05)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(train):
    weights, _ = train(seed=1)
    torch.rand(3)
    assert same(weights, train(seed=1)[0])
    assert not same(weights, train(seed=2)[0])


def test_reports(train):
    _, reports = train(steps=10)
    assert [(report.stage, report.step, report.steps) for report in reports] == [
        ("mean", 4, 10),
        ("mean", 8, 10),
        ("mean", 10, 10),
    ]
    _, single = train(steps=10, report_every=1)
    losses = [report.loss for report in single]
    means = [sum(losses[a:b]) / (b - a) for a, b in ((0, 4), (4, 8), (8, 10))]
    assert [report.loss for report in reports] == pytest.approx(means, rel=1e-5)
    assert all(report.gradient_norm > 0 for report in single)


def test_learning_rate_warms_up_and_falls(train, tiny):
    _, reports = train(steps=40, report_every=1, warmup_steps=4)
    rates = [report.learning_rate / tiny.training.learning_rate for report in reports]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[22] == pytest.approx(0.5, abs=0.05)
    assert 0 < rates[-1] < 0.01


def test_warm_up_takes_at_most_a_quarter():
    assert _rate_factor(2, steps=8, warmup=500) == 1
    assert _rate_factor(0, steps=1, warmup=500) == 1


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_a_stage_ends_with_the_average_of_its_weights(train, make_spec, decay):
    raw = []
    start = parameters(build_model(make_spec(), seed=0))
    weights, _ = train(
        steps=6, ema=decay, report_every=1, on_report=lambda report, model: raw.append(parameters(model))
    )
    for name, found in weights.items():
        average = start[name].double()
        for step, now in enumerate(raw):
            kept = min(decay, (1 + step) / (10 + step))
            average = kept * average + (1 - kept) * now[name].double()
        torch.testing.assert_close(found.double(), average, rtol=1e-4, atol=1e-6)
    assert torch.equal(weights["mean.head.weight"], raw[-1]["mean.head.weight"]) is (decay == 0)


def test_only_the_stage_is_trained(train, make_spec):
    start = build_model(make_spec(), seed=0).state_dict()
    for number, trained in enumerate([{"mean"}, {"tokens", "denoiser"}]):
        model = build_model(make_spec(), seed=0)
        weights, _ = train(number, steps=4, model=model)  # the tokens' gradient passes layers that start at 0
        for state in (model.state_dict(), weights):
            moved = {
                name.split(".")[0] for name, value in state.items() if not torch.equal(value, start[name])
            }
            assert moved == trained
        assert {name.split(".")[0] for name in weights} == trained
        assert not any(value.requires_grad for value in weights.values())


@pytest.mark.parametrize("number", [0, 1])
def test_the_loss_decreases(train, number):
    _, reports = train(number, steps=60, report_every=20)
    assert reports[-1].loss < 0.97 * reports[0].loss


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint_keeps_it(train, make_spec, tmp_path):
    model = build_model(make_spec(), seed=0)
    plain = model.loss

    def fail_from_step_five(stage, batch, draws):
        loss = plain(stage, batch, draws)
        return replace(loss, total=loss.total * math.nan) if draws.step == 4 else loss

    model.loss = fail_from_step_five
    with pytest.raises(FloatingPointError, match="stage mean: loss is nan"):
        train(model=model, url=tmp_path, report_every=50)
    assert kept_steps(tmp_path) == [3]
    resumed, reports = train(url=tmp_path)
    assert all(math.isfinite(report.loss) for report in reports)
    assert same(resumed, train()[0])


def test_a_gradient_that_is_not_finite_stops_too(train, make_spec):
    model = build_model(make_spec(), seed=0)
    # finite loss, infinite slope: the weights would be lost in the last step, unnoticed
    model.loss = lambda stage, batch, draws: Loss(
        (model.mean.head.weight * 0).abs().sqrt().sum(), torch.tensor(5)
    )
    with pytest.raises(FloatingPointError, match="gradient norm nan"):
        train(model=model, steps=1)


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_a_rung_sees_the_averaged_weights(train, make_spec):
    seen, raw = {}, []
    average = {name: p.double() for name, p in parameters(build_model(make_spec(), seed=0)).items()}
    train(
        steps=6,
        ema=0.9,
        report_every=1,
        rungs=(2, 5),
        on_rung=lambda step, weights: seen.update({step: weights}),
        on_report=lambda report, model: raw.append(parameters(model)),
    )
    assert list(seen) == [2, 5]
    for step, weights in enumerate(raw[:5]):  # independently, in double precision
        kept = min(0.9, (1 + step) / (10 + step))
        average = {name: kept * average[name] + (1 - kept) * weights[name].double() for name in average}
        for name, value in seen.get(step + 1, {}).items():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(seen[5]["mean.head.weight"], raw[4]["mean.head.weight"])


@pytest.mark.parametrize("number", [0, 1])
def test_whatever_a_look_does_training_ends_the_same_to_the_bit(train, make_spec, windows, number):
    looks, after = [], []

    def look(step, weights):
        model = build_model(make_spec(), seed=0).eval()
        model.load_state_dict(weights, strict=False)
        with torch.no_grad():
            batch = windows.scored.batch([0])
            looks.append(model.sample(batch, SamplingSettings(steps=2, members=2), seed=step).shape)
        torch.manual_seed(step)
        for value in weights.values():
            value.fill_(0)  # they are the look's own

    plain, reports = train(number)
    looked, same_reports = train(
        number, rungs=(3, 7), on_rung=look, on_report=lambda report, model: after.append(model.training)
    )
    assert len(looks) == 2
    assert all(after)
    assert same(plain, looked)
    assert reports == same_reports


def test_rungs_are_looked_at_at_their_steps_only(train):
    steps = []
    train(steps=10, rungs={4, 9, 30}, on_rung=lambda step, weights: steps.append(step))
    assert steps == [4, 9]
    train(steps=10, rungs={4, 9})  # nobody looks


def test_what_a_look_raises_ends_the_training_with_its_checkpoint(train, tmp_path):
    def enough(step, weights):
        raise KilledError

    with pytest.raises(KilledError):
        train(url=tmp_path, rungs=(5,), on_rung=enough)
    assert kept_steps(tmp_path) == [3]
    assert same(train(url=tmp_path)[0], train()[0])


@pytest.mark.parametrize("rung", [3, 5])  # a checkpoint is kept after steps 3, 6 and 9
def test_a_rung_that_is_passed_was_looked_at(train, tmp_path, rung):
    """However a kill falls around a rung, a look is never left out and sees the same weights again."""
    undisturbed = {}
    plain, _ = train(rungs=(rung,), on_rung=lambda step, weights: undisturbed.update(weights))
    for kill_at in (rung, rung + 1, 9):
        url, looks = tmp_path / str(kill_at), []

        def look(step, weights, looks=looks):
            looks.append(weights)

        def kill(report, model, kill_at=kill_at):
            if report.step == kill_at:
                raise KilledError

        with pytest.raises(KilledError):
            train(url=url, report_every=1, on_report=kill, rungs=(rung,), on_rung=look)
        weights, _ = train(url=url, rungs=(rung,), on_rung=look)
        kept = max(step for step in (0, 3, 6, 9) if step < kill_at)  # a kill comes before that step's
        assert len(looks) == (1 if kept >= rung or kill_at == rung else 2)
        assert all(same(seen, undisturbed) for seen in looks)
        assert same(weights, plain)


def test_a_kill_while_looking_repeats_the_look(train, tmp_path):
    looks = []

    def look(step, weights):
        looks.append(weights)
        if len(looks) == 1:
            raise KilledError

    with pytest.raises(KilledError):
        train(url=tmp_path, rungs=(6,), on_rung=look)  # at a step that is to be kept, too
    train(url=tmp_path, rungs=(6,), on_rung=look)
    assert len(looks) == 2
    assert same(*looks)
