import math

import pytest
import torch

from pipeline.config import SamplingSettings
from pipeline.models.families import build_model
from pipeline.training.checkpoint import StageCheckpoint
from pipeline.training.loop import _rate_factor, train_stage

CPU = torch.device("cpu")


@pytest.fixture
def train(make_spec, windows, tiny):
    """Train one stage of a fresh model; give the model and the reports."""

    def run(
        number=0, *, steps=10, seed=0, checkpoint=None, on_report=None, model=None, rungs=(), on_rung=None,
        **changes,
    ):  # fmt: skip
        model = model or build_model(make_spec(), seed=0)
        settings = tiny.training.model_copy(
            update={"mean_steps": steps, "residual_steps": steps, "checkpoint_every": 3, "report_every": 4}
            | changes
        )
        stage, reports = model.stages(model.spec.settings, settings)[number], []
        train_stage(
            model,
            stage,
            windows.train,
            settings,
            seed=seed,
            device=CPU,
            checkpoint=checkpoint,
            on_report=lambda report: (reports.append(report), on_report and on_report(report, model)),
            rungs=rungs,
            on_rung=(lambda step: on_rung(step, model)) if on_rung else None,
        )
        return model, reports

    return run


def same(one, other):
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


class KilledError(Exception):
    pass


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_stage_carries_on_and_ends_the_same_to_the_bit(train, tmp_path, number):
    checkpoint = StageCheckpoint(str(tmp_path / "stage.ckpt"))
    undisturbed, _ = train(number)

    def kill(report, model):
        if report.step == 8:
            raise KilledError

    with pytest.raises(KilledError):
        train(number, checkpoint=checkpoint, on_report=kill)
    steps = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)  # another process has another random state
        resumed, _ = train(
            number, checkpoint=checkpoint, on_report=lambda report, model: steps.append(report.step)
        )
    assert steps == [8, 10]  # from step 6, the last checkpoint before the kill
    assert same(resumed, undisturbed)
    assert not (tmp_path / "stage.ckpt").exists()  # a finished stage leaves none behind


def test_a_damaged_checkpoint_is_said_and_the_stage_starts_again(train, tmp_path, caplog):
    file = tmp_path / "stage.ckpt"

    def kill(report, model):
        raise KilledError

    with pytest.raises(KilledError):
        train(checkpoint=StageCheckpoint(str(file)), on_report=kill)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    resumed, reports = train(checkpoint=StageCheckpoint(str(file)))
    assert "damaged" in caplog.text
    assert [report.step for report in reports] == [4, 8, 10]
    assert same(resumed, train()[0])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(train):
    model, _ = train(seed=1)
    torch.rand(3)
    assert same(model, train(seed=1)[0])
    assert not same(model, train(seed=2)[0])


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
def test_the_model_ends_with_the_average_of_its_weights(train, make_spec, decay):
    raw = []

    def remember(report, model):
        raw.append({name: p.detach().clone() for name, p in model.mean.named_parameters()})

    start = dict(build_model(make_spec(), seed=0).mean.named_parameters())
    model, _ = train(steps=6, ema=decay, report_every=1, on_report=remember)
    for name, parameter in model.mean.named_parameters():
        average = start[name].detach().double()
        for step, weights in enumerate(raw):
            kept = min(decay, (1 + step) / (10 + step))
            average = kept * average + (1 - kept) * weights[name].double()
        torch.testing.assert_close(parameter.double(), average, rtol=1e-4, atol=1e-6)
    assert torch.equal(model.mean.head.weight, raw[-1]["head.weight"]) is (decay == 0)


def test_only_the_stage_is_trained(train, make_spec):
    start = build_model(make_spec(), seed=0).state_dict()
    for number, trained in enumerate([{"mean"}, {"tokens", "denoiser"}]):
        model, _ = train(number, steps=4)  # the tokens' gradient passes two layers that start at zero
        moved = {
            name.split(".")[0]
            for name, value in model.state_dict().items()
            if not torch.equal(value, start[name])
        }
        assert moved == trained
        assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("number", [0, 1])
def test_the_loss_decreases(train, number):
    _, reports = train(number, steps=60, report_every=20)
    assert reports[-1].loss < 0.95 * reports[0].loss


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint_keeps_it(train, make_spec, tmp_path):
    file, model = tmp_path / "stage.ckpt", build_model(make_spec(), seed=0)
    plain = model.loss

    def fail_from_step_five(stage, batch, generator):
        fail_from_step_five.calls += 1
        loss = plain(stage, batch, generator)
        return loss * math.nan if fail_from_step_five.calls == 5 else loss

    fail_from_step_five.calls, model.loss = 0, fail_from_step_five
    with pytest.raises(FloatingPointError, match="stage mean: loss is nan"):
        train(model=model, checkpoint=StageCheckpoint(str(file)), report_every=50)
    resumed, reports = train(checkpoint=StageCheckpoint(str(file)))
    assert all(math.isfinite(report.loss) for report in reports)
    assert same(resumed, train()[0])


def test_a_gradient_that_is_not_finite_stops_too(train, make_spec):
    model = build_model(make_spec(), seed=0)
    # finite loss, infinite slope: the weights would be lost in the last step, unnoticed
    model.loss = lambda stage, batch, generator: (model.mean.head.weight * 0).abs().sqrt().sum()
    with pytest.raises(FloatingPointError, match="gradient norm nan"):
        train(model=model, steps=1)


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_a_rung_sees_the_averaged_weights(train, make_spec):
    seen, raw = {}, []
    start = {name: p.detach().double() for name, p in build_model(make_spec(), seed=0).named_parameters()}
    train(
        steps=6,
        ema=0.9,
        report_every=1,
        rungs=(2, 5),
        on_rung=lambda step, model: seen.update({step: parameters(model)}),
        on_report=lambda report, model: raw.append(parameters(model)),
    )
    assert list(seen) == [2, 5]
    average = start
    for step, weights in enumerate(raw[:5]):  # independently, in double precision
        kept = min(0.9, (1 + step) / (10 + step))
        average = {name: kept * average[name] + (1 - kept) * weights[name].double() for name in average}
        if step + 1 in seen:
            for name, value in average.items():
                torch.testing.assert_close(seen[step + 1][name].double(), value, rtol=1e-4, atol=1e-6)
    assert not torch.equal(seen[5]["mean.head.weight"], raw[4]["mean.head.weight"])


@pytest.mark.parametrize("number", [0, 1])
def test_training_goes_on_from_its_own_weights_after_a_rung(train, windows, number):
    """Whatever a look does, sampling included, training ends with the same weights to the bit."""
    looks, after = [], []

    def look(step, model):
        assert not model.training
        with torch.no_grad():
            batch = windows.scored.batch([0])
            looks.append(model.sample(batch, SamplingSettings(steps=2, members=2), seed=step).shape)
        torch.manual_seed(step)

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
    train(steps=10, rungs={4, 9, 30}, on_rung=lambda step, model: steps.append(step))
    assert steps == [4, 9]
    train(steps=10, rungs={4, 9})  # nobody looks


def test_what_a_look_raises_ends_the_training_with_its_checkpoint(train, tmp_path):
    checkpoint = StageCheckpoint(str(tmp_path / "stage.ckpt"))

    def enough(step, model):
        raise KilledError

    with pytest.raises(KilledError):
        train(checkpoint=checkpoint, rungs=(5,), on_rung=enough)
    assert (tmp_path / "stage.ckpt").exists()
    resumed, _ = train(checkpoint=checkpoint)
    assert same(resumed, train()[0])


@pytest.mark.parametrize("rung", [3, 5])  # a checkpoint is kept after steps 3, 6 and 9
def test_a_rung_that_is_passed_was_looked_at(train, tmp_path, rung):
    """However a kill falls around a rung, a look is never left out and sees the same weights again."""
    undisturbed = {}
    plain, _ = train(rungs=(rung,), on_rung=lambda step, model: undisturbed.update(parameters(model)))
    for kill_at in (rung, rung + 1, 9):
        checkpoint, looks = StageCheckpoint(str(tmp_path / f"{kill_at}.ckpt")), []

        def look(step, model, looks=looks):
            looks.append(parameters(model))

        def kill(report, model, kill_at=kill_at):
            if report.step == kill_at:
                raise KilledError

        with pytest.raises(KilledError):
            train(checkpoint=checkpoint, report_every=1, on_report=kill, rungs=(rung,), on_rung=look)
        model, _ = train(checkpoint=checkpoint, rungs=(rung,), on_rung=look)
        kept = max(step for step in (0, 3, 6, 9) if step < kill_at)  # a kill comes before that step's
        assert len(looks) == (1 if kept >= rung or kill_at == rung else 2)
        for seen in looks:
            assert all(torch.equal(seen[name], value) for name, value in undisturbed.items())
        assert same(model, plain)


def test_a_kill_while_looking_repeats_the_look(train, tmp_path):
    checkpoint, looks = StageCheckpoint(str(tmp_path / "stage.ckpt")), []

    def look(step, model):
        looks.append(parameters(model))
        if len(looks) == 1:
            raise KilledError

    with pytest.raises(KilledError):
        train(checkpoint=checkpoint, rungs=(6,), on_rung=look)  # at a step that is to be kept, too
    train(checkpoint=checkpoint, rungs=(6,), on_rung=look)
    assert len(looks) == 2
    assert all(torch.equal(looks[0][name], looks[1][name]) for name in looks[0])
