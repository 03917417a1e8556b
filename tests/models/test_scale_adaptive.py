from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.config import SamplingSettings, TrainingSettings
from pipeline.config_layers import load_config
from pipeline.data.batch import Batch
from pipeline.data.coarsen import block_mean, block_sum, spread
from pipeline.data.covariates import Covariate
from pipeline.data.scaling import ValueTransform
from pipeline.diffusion.noise import StepDraws
from pipeline.models.families import build_model, family_stages
from pipeline.models.family import ModelSpec
from pipeline.models.scale_adaptive.family import MEAN, RESIDUAL, ScaleAdaptive
from pipeline.training.loop import train_stage

SAMPLING = SamplingSettings(sampler="dpm_solver_pp_2m", steps=3, members=4)


def random_batch(pair, context, B=1, side=24, statics=1, dynamics=0, seed=0):
    """Make rain-like windows with a few missing pixels."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(B, context * pair.time, side, side, generator=generator).sub(0.5).clamp(min=0) * 4
    mask = torch.rand(field.shape, generator=generator) > 0.03
    coarse, coarse_mask = block_mean(field, mask, pair)
    tau = pair.time
    return Batch(
        fine=torch.where(mask, field, 0.0)[:, -tau:],
        mask=mask[:, -tau:],
        coarse=coarse,
        coarse_mask=coarse_mask,
        statics=torch.randn(B, statics, side, side, generator=generator),
        dynamics=torch.randn(B, context, dynamics, *coarse.shape[2:], generator=generator),
        weights=torch.ones(B),
        position=torch.tensor([[10 * n, 24, 0] for n in range(B)]),
    )


def covariate(name):
    return Covariate(name=name, mean=0.0, spread=1.0)


def part(batch, *indices):
    chosen = list(indices)
    return Batch(**{name: tensor[chosen] for name, tensor in vars(batch).items()})


@pytest.fixture
def batch(windows):
    return windows.scored.batch([0, 1, 2, 3])


def loss_of(model, stage, batch, seed=0):
    draws = StepDraws(seed, stage, 0, len(batch), range(len(batch)))
    return model.loss(stage, batch, draws).mean


def test_stages_and_what_they_depend_on(tiny):
    mean, residual = family_stages(tiny.model, tiny.training)
    assert (mean.name, mean.depends_on, mean.steps) == (MEAN, {"context"}, tiny.training.mean_steps)
    assert residual.depends_on == {"beta", "context", "conservation"}
    through = tiny.model.model_copy(update={"mean_through_conservation": True})
    assert family_stages(through, tiny.training)[0].depends_on == {"context", "conservation"}
    # Every parameter belongs to exactly one stage.
    assert not set(mean.trains) & set(residual.trains)


@pytest.mark.parametrize("through", [False, True])
def test_the_mean_depends_on_what_its_stage_names(make_spec, windows, tiny, through):
    def train(beta, power):
        conservation = Conservation(power=power, threshold=0.01)
        spec = make_spec(beta=beta, conservation=conservation, mean_through_conservation=through)
        model, training = build_model(spec, seed=0), tiny.training.model_copy(update={"mean_steps": 3})
        stage = model.stages(spec.settings, training)[0]
        weights = train_stage(model, stage, windows.train, training, seed=0)
        return torch.cat([tensor.flatten() for tensor in weights.values()])

    weights = train(0.02, 0.7)
    assert torch.equal(weights, train(0.3, 0.7))  # never on beta
    assert torch.equal(weights, train(0.02, 0.4)) is not through


@pytest.mark.parametrize("context_at", ["full", "half"])
def test_the_mean_starts_at_the_interpolated_last_frame(make_spec, batch, context_at):
    model = build_model(make_spec(mean_context_at=context_at), seed=0)
    frames = model._frames(batch)
    wanted = frames[:, -1, :1].expand(-1, 2, -1, -1)
    torch.testing.assert_close(model.mean(frames), wanted, rtol=0, atol=0)


def test_frames_hold_the_field_its_mask_and_the_statics(make_spec, batch):
    model = build_model(make_spec(), seed=0)
    frames = model._frames(batch)
    assert frames.shape == (4, 3, 3, 24, 24)
    up = nn.functional.interpolate(
        model.spec.transform.forward(batch.coarse), scale_factor=4.0, mode="bicubic"
    )
    torch.testing.assert_close(frames[:, :, 0], up.clamp(min=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        frames[:, :, 1], batch.coarse_mask.float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    )
    torch.testing.assert_close(frames[:, 1, 2], batch.statics[:, 0])


def test_frames_hold_each_frames_own_dynamics_on_the_fine_grid(make_spec, pair):
    spec = replace(make_spec(), dynamics=(covariate("u"), covariate("v")))
    batch = random_batch(pair, 3, B=2, dynamics=2)
    frames = build_model(spec, seed=0)._frames(batch)
    assert frames.shape == (2, 3, 5, 24, 24)
    torch.testing.assert_close(frames[:, 2, 2], batch.statics[:, 0])
    for frame in range(3):
        up = nn.functional.interpolate(batch.dynamics[:, frame], scale_factor=4.0, mode="bicubic")
        torch.testing.assert_close(frames[:, frame, 3:], up, rtol=1e-4, atol=1e-5)
    assert (frames[:, :, 3:] < 0).any()  # wind blows both ways


@pytest.mark.parametrize("context_at", ["full", "half"])
def test_the_mean_looks_at_every_context_frame(trained_like, batch, context_at):
    model = trained_like(mean_context_at=context_at)
    frames = model._frames(batch)
    for frame in range(3):
        changed = frames.clone()
        changed[:, frame, 0] += 1
        assert not torch.allclose(model.mean(changed), model.mean(frames), atol=1e-3)


@pytest.mark.parametrize("scope", list(Scope))
def test_dry_in_dry_out(trained_like, batch, scope):
    model = trained_like(conservation=Conservation(power=0.7, scope=scope))
    coarse = batch.coarse.clone()
    coarse[1, -1] = 0  # its context stays wet
    dry = Batch(**(vars(batch) | {"coarse": coarse}))
    with torch.no_grad():
        for out in (model.sample(dry, SAMPLING, seed=0), model.predict_mean(dry)[:, None]):
            assert torch.isfinite(out).all()
            assert (out[1] == 0).all()
            assert (out[[0, 2, 3]].amax(dim=(1, 2, 3, 4)) > 0).all()  # the others still rain


@pytest.mark.parametrize("scope", [Scope.TILE, Scope.CELL])
def test_samples_and_mean_keep_the_coarse_amounts(trained_like, pair, scope):
    model = trained_like(conservation=Conservation(power=0.7, threshold=0.01, scope=scope))
    batch = random_batch(pair, 3, B=3)
    members = model.sample(batch, SAMPLING, seed=0)
    assert members.shape == (3, 4, 2, 24, 24)
    assert (members >= 0).all()
    known = spread(batch.last_mask, pair)
    for field in (model.predict_mean(batch), *members.unbind(dim=1)):
        found = block_sum(field.double(), pair)
        wanted = (batch.last * batch.last_mask).double() * pair.pixels_per_cell
        if scope is Scope.TILE:
            found, wanted = found.sum((1, 2, 3)), wanted.sum((1, 2, 3))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        assert (field[~known.expand_as(field)] == 0).all()


def test_missing_cells_stay_dry_and_hold_no_mass(trained_like, pair):
    batch = random_batch(pair, 3, B=2)
    known = batch.coarse_mask.clone()
    known[:, :, :2] = False
    batch = Batch(**(vars(batch) | {"coarse_mask": known, "coarse": torch.where(known, batch.coarse, 0.0)}))
    out = trained_like().sample(batch, SAMPLING, seed=0)
    assert torch.isfinite(out).all()
    assert (out[..., :8, :] == 0).all()


@pytest.mark.parametrize("sampler", ["dpm_solver_pp_2m", "ddim", "ancestral"])
def test_a_member_depends_on_seed_and_place_only(trained_like, batch, sampler):
    model = trained_like()
    sampling = SamplingSettings(sampler=sampler, steps=3, members=4)
    together = model.sample(batch, sampling, seed=1)
    for n in range(len(batch)):
        alone = model.sample(part(batch, n), sampling, seed=1)
        torch.testing.assert_close(alone[0], together[n], rtol=1e-4, atol=1e-5)
    fewer = model.sample(batch, sampling.model_copy(update={"members": 2}), seed=1)
    torch.testing.assert_close(fewer, together[:, :2], rtol=1e-4, atol=1e-5)
    # ... and the comparisons above are not of things that never differ
    assert not torch.allclose(together[:, 0], together[:, 1], atol=1e-2)
    assert not torch.allclose(model.sample(batch, sampling, seed=2), together, atol=1e-2)
    moved = Batch(**(vars(batch) | {"position": batch.position + 1}))
    assert not torch.allclose(model.sample(moved, sampling, seed=1), together, atol=1e-2)


def test_beta_changes_the_ensemble_through_the_schedule_alone(make_spec, perturb, batch):
    models = [perturb(build_model(make_spec(beta=beta), seed=0)).eval() for beta in (0.01, 0.04)]
    with torch.no_grad():
        one, other = (model.sample(batch, SAMPLING, seed=0) for model in models)
        torch.testing.assert_close(models[0].predict_mean(batch), models[1].predict_mean(batch))
    assert not torch.allclose(one, other, atol=1e-2)


# Two channels per group at least: with one, a convolution's bias before the norm has no effect.
WIDE = {"mean_widths": (16, 32), "denoiser_widths": (16, 32)}


@pytest.mark.parametrize("stage", [MEAN, RESIDUAL])
@pytest.mark.parametrize(
    "settings", [{}, {"mean_context_at": "half"}, {"mean_through_conservation": True}], ids=str
)
@pytest.mark.parametrize("kind", ["log1p", "sqrt"])
def test_a_loss_trains_every_parameter_of_its_stage_and_no_other(
    make_spec, perturb, batch, stage, settings, kind
):
    spec = make_spec(**(WIDE | settings))
    transform = ValueTransform(kind=kind, unit=spec.transform.unit, spread=spec.transform.spread)
    model = build_model(ModelSpec(**(vars(spec) | {"transform": transform})), seed=0)
    perturb(model)
    chosen = next(s for s in model.stages(spec.settings, TrainingSettings()) if s.name == stage)
    loss_of(model, stage, batch).backward()
    for name, parameter in model.named_parameters():
        if name.split(".")[0] in chosen.trains:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("through", [False, True])
def test_the_loss_of_the_mean_is_the_masked_error_in_transformed_units(trained_like, batch, through):
    model = trained_like(mean_through_conservation=through)
    transform = model.spec.transform
    predicted = transform.forward(model.predict_mean(batch)) if through else model.mean(model._frames(batch))
    errors = (predicted - transform.forward(batch.fine))[batch.mask]
    assert float(loss_of(model, MEAN, batch)) == pytest.approx(float(errors.square().mean()), rel=1e-5)


@pytest.mark.parametrize("stage", [MEAN, RESIDUAL])
def test_missing_values_do_not_enter_a_loss(trained_like, pair, stage):
    model, batch = trained_like(), random_batch(pair, 3, B=2)
    changed = Batch(**(vars(batch) | {"fine": torch.where(batch.mask, batch.fine, 50.0)}))
    assert (~batch.mask).any()
    assert torch.equal(loss_of(model, stage, batch), loss_of(model, stage, changed))


def test_an_untrained_denoiser_predicts_zero_velocity(make_spec, batch):
    # v has unit variance when the residual has: the loss of predicting zero is about 1.
    model = build_model(make_spec(), seed=0)
    model.prepare(RESIDUAL, [batch])
    losses = [float(loss_of(model, RESIDUAL, batch, seed).detach()) for seed in range(8)]
    assert sum(losses) / 8 == pytest.approx(1, abs=0.2)


def test_prepare_measures_the_root_mean_square_of_valid_residuals(trained_like, pair):
    model, batches = trained_like(), [random_batch(pair, 3, B=2, seed=seed) for seed in (0, 1)]
    model.prepare(MEAN, batches)
    assert model.denoiser.residual_scale == 1
    model.prepare(RESIDUAL, batches)
    forward = model.spec.transform.forward
    residuals = torch.cat([(forward(b.fine) - forward(model.predict_mean(b)))[b.mask] for b in batches])
    assert float(model.denoiser.residual_scale) == pytest.approx(
        float(residuals.square().mean().sqrt()), rel=1e-5
    )


def test_a_raw_residual_keeps_the_scale_one(trained_like, batch):
    model = trained_like(residual="raw")
    model.prepare(RESIDUAL, [batch])
    assert model.denoiser.residual_scale == 1


def test_temporal_tokens_and_the_residual_scale_are_saved_with_their_stage(make_spec, perturb, tiny, batch):
    source, spec = perturb(build_model(make_spec(), seed=0)), make_spec()
    source.denoiser.residual_scale.fill_(0.123)
    mean, residual = source.stages(spec.settings, tiny.training)
    state = source.stage_state(residual)
    assert any(name.startswith("tokens.") for name in state)
    assert "denoiser.residual_scale" in state
    target = build_model(spec, seed=9)
    target.load_stage(mean, source.stage_state(mean))
    target.load_stage(residual, state)
    with torch.no_grad():
        assert torch.equal(target.sample(batch, SAMPLING, 0), source.sample(batch, SAMPLING, 0))


@pytest.mark.parametrize("settings", [{}, {"mean_context_at": "half"}], ids=str)
def test_blocks_are_apart_and_hold_most_of_the_weights(make_spec, settings):
    """What is sharded and recomputed as a unit lies in no other unit, or FSDP would shard it twice."""
    model = build_model(make_spec(**settings), seed=0)
    inside = [[id(module) for module in block.modules()] for block in model.blocks()]
    assert len({one for many in inside for one in many}) == sum(map(len, inside))
    held = sum(p.numel() for block in model.blocks() for p in block.parameters())
    assert held > 0.7 * sum(p.numel() for p in model.parameters())


def test_a_loss_adds_up_over_parts_of_a_batch(trained_like, pair):
    model, batch = trained_like(), random_batch(pair, 3, B=4)
    for stage in (MEAN, RESIDUAL):
        draws = StepDraws(0, stage, 0, 4, range(4))
        whole = model.loss(stage, batch, draws)
        parts = [
            model.loss(stage, part(batch, *numbers), replace(draws, numbers=numbers))
            for numbers in (range(1), range(1, 4))
        ]
        assert int(whole.weight) == int(batch.mask.sum()) == sum(int(one.weight) for one in parts)
        assert float(whole.total) == pytest.approx(sum(float(one.total) for one in parts), rel=1e-5)


def test_a_batch_without_a_valid_value_has_loss_zero(trained_like, pair):
    model, batch = trained_like(), random_batch(pair, 3)
    empty = Batch(**(vars(batch) | {"mask": torch.zeros_like(batch.mask)}))
    assert float(loss_of(model, MEAN, empty)) == 0


def test_a_stage_of_another_model_is_refused(make_spec, tiny):
    model = build_model(make_spec(), seed=0)
    mean, residual = model.stages(model.spec.settings, tiny.training)
    with pytest.raises(ValueError, match=r"stage mean: .* names differ"):
        model.load_stage(mean, model.stage_state(residual))


def test_tokens_condition_the_denoiser(trained_like, batch):
    model = trained_like()
    frames = model._frames(batch)
    condition = model._condition(frames, model._centre(batch, frames))
    noisy, times, tokens = torch.randn(4, 2, 24, 24), torch.tensor([0, 5, 500, 999]), model.tokens(frames)
    assert tokens.shape == (4, 3, model.spec.settings.token_width)
    out = model.denoiser(noisy, times, condition, tokens)
    assert not torch.allclose(model.denoiser(noisy, times, condition, tokens + 1), out, atol=1e-3)
    assert not torch.allclose(model.denoiser(noisy, times.flip(0), condition, tokens), out, atol=1e-3)


def test_the_same_seed_builds_the_same_weights_whatever_ran_before(make_spec):
    before = torch.random.get_rng_state()
    one = build_model(make_spec(), seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)  # and leaves no trace
    torch.rand(7)
    other, third = (
        build_model(make_spec(), seed=3).state_dict(),
        build_model(make_spec(), seed=4).state_dict(),
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


@pytest.mark.parametrize("factors", [FactorPair(5, 1), FactorPair(1, 3), FactorPair(25, 2)], ids=str)
def test_odd_sizes_and_one_frame(make_spec, perturb, factors):
    spec = make_spec(context=1, mean_widths=(8, 8, 8), mean_kernels=(3, 1, 1), denoiser_widths=(8, 8, 8),
                     denoiser_kernels=(3, 1, 1))  # fmt: skip
    model = perturb(build_model(ModelSpec(**(vars(spec) | {"pair": factors})), seed=0)).eval()
    batch = random_batch(factors, 1, B=2, side=25)
    with torch.no_grad():
        assert model.sample(batch, SAMPLING, 0).shape == (2, 4, factors.time, 25, 25)
    for stage in (MEAN, RESIDUAL):
        assert torch.isfinite(loss_of(model, stage, batch))


def test_the_paper_preset_builds_and_takes_a_step_of_each_stage():
    config, pair = load_config([("preset", "paper")], environment={}), FactorPair(10, 3)
    parameters = ScaleParameters(beta=0.02, context=5, conservation=Conservation(threshold=0.02))
    transform = ValueTransform(kind="log1p", unit=2.0, spread=0.5)
    spec = ModelSpec(pair, parameters, config.model, transform, 20.0, (covariate("orography"),))
    model = build_model(spec, seed=0)
    assert isinstance(model, ScaleAdaptive)
    assert [block.second.out_channels for block in model.mean.encode] == [16, 32, 64, 128, 256]
    assert [layer.kernel for layer in model.mean.local] == [3, 3, 1, 1, 1]
    assert [level.block.second.out_channels for level in model.denoiser.down] == [64, 128, 256, 512]
    assert [level.local.kernel for level in model.denoiser.down] == [3, 3, 1, 1]
    assert model.schedule.steps == 1000

    batch = random_batch(pair, 5, side=50)  # levels of 50, 25, 13, 7 and 4 pixels
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for stage in (MEAN, RESIDUAL):
        loss = loss_of(model, stage, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
        assert not torch.equal(loss_of(model, stage, batch), loss)
