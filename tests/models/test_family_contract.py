"""What every family does with covariates and weights; a new family is tested here once it is listed."""

from dataclasses import replace

import pytest
import torch

from pipeline.config import SamplingSettings, TrainingSettings
from pipeline.data.batch import Batch
from pipeline.data.coarsen import block_mean
from pipeline.data.covariates import Covariate
from pipeline.diffusion.noise import StepDraws
from pipeline.models.families import FAMILIES, build_model, family_stages

SAMPLING = SamplingSettings(steps=2, members=2)
B, L, SIDE = 3, 3, 24
TWO = tuple(Covariate(name=name, mean=0.0, spread=1.0) for name in ("a", "b"))


@pytest.fixture(params=sorted(FAMILIES))
def model(request, make_spec, perturb):
    """Two static and two dynamic covariates, and no layer at zero that would hide what they do."""
    spec = replace(make_spec(family=request.param), statics=TWO, dynamics=TWO)
    return perturb(build_model(spec, seed=0)).eval().requires_grad_(False)


@pytest.fixture
def batch(pair):
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(B, L * pair.time, SIDE, SIDE, generator=generator).sub(0.5).clamp(min=0) * 4
    mask = torch.rand(field.shape, generator=generator) > 0.03
    coarse, coarse_mask = block_mean(field, mask, pair)
    return Batch(
        fine=torch.where(mask, field, 0.0)[:, -pair.time :],
        mask=mask[:, -pair.time :],
        coarse=coarse,
        coarse_mask=coarse_mask,
        statics=torch.randn(B, 2, SIDE, SIDE, generator=generator),
        dynamics=torch.randn(B, L, 2, *coarse.shape[2:], generator=generator),
        position=torch.tensor([[10 * n, 24, 0] for n in range(B)]),
        weights=torch.ones(B),
    )


def changed(batch, **tensors):
    return Batch(**(vars(batch) | tensors))


def part(batch, *indices):
    return Batch(**{name: tensor[list(indices)] for name, tensor in vars(batch).items()})


def stage_names(model):
    return [stage.name for stage in family_stages(model.spec.settings, TrainingSettings())]


def losses(model, batch, numbers=range(B)):
    draws = [StepDraws(0, name, 0, B, numbers) for name in stage_names(model)]
    return [model.loss(one.stage, batch, one) for one in draws]


def outputs(model, batch):
    """All that a batch goes into: mean, members, and every stage's loss."""
    return [
        model.predict_mean(batch),
        model.sample(batch, SAMPLING, seed=0),
        *(loss.total for loss in losses(model, batch)),
    ]


def test_all_covariates_matter_in_every_output(model, batch):
    plain = outputs(model, batch)
    for channel in range(2):
        statics = batch.statics.clone()
        statics[:, channel] += 1
        others = [changed(batch, statics=statics)]
        for frame in range(L):
            dynamics = batch.dynamics.clone()
            dynamics[:, frame, channel] += 1
            others.append(changed(batch, dynamics=dynamics))
        for other in others:
            for before, after in zip(plain, outputs(model, other), strict=True):
                assert not torch.equal(before, after)  # what is not looked at changes nothing at all


def test_a_windows_covariates_are_its_own(model, batch):
    dynamics, statics = batch.dynamics.clone(), batch.statics.clone()
    dynamics[1], statics[1] = -dynamics[1], -statics[1]
    plain = model.predict_mean(batch)
    other = model.predict_mean(changed(batch, dynamics=dynamics, statics=statics))
    torch.testing.assert_close(other[[0, 2]], plain[[0, 2]], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other[1], plain[1], rtol=1e-3, atol=1e-3)


def test_missing_covariates_give_numbers(model, batch):
    nothing = changed(
        batch, dynamics=torch.zeros_like(batch.dynamics), statics=torch.zeros_like(batch.statics)
    )
    assert all(torch.isfinite(found).all() for found in outputs(model, nothing))


def test_a_loss_counts_a_window_as_often_as_its_weight_says(model, batch):
    weights = torch.tensor([0.25, 2.0, 1.0])
    weighted = losses(model, changed(batch, weights=weights))
    single = [
        losses(
            model, Batch(**{name: tensor[n : n + 1] for name, tensor in vars(batch).items()}), range(n, n + 1)
        )
        for n in range(B)
    ]
    for stage, found in enumerate(weighted):
        wanted = sum(float(w) * float(single[n][stage].total) for n, w in enumerate(weights))
        assert float(found.total) == pytest.approx(wanted, rel=1e-4)
        assert int(found.weight) == int(batch.mask.sum())


def test_training_batches_prepare_a_stage_by_their_weights(model, batch):
    """Importance sampling draws wet windows often and says so: what a stage measures is that of the data."""
    twice = part(batch, 0, 1, 2, 0)
    weights = torch.tensor([0.5, 1.0, 1.0, 0.5])
    for stage in family_stages(model.spec.settings, TrainingSettings()):
        model.prepare(stage.name, [batch])
        plain = {name: tensor.clone() for name, tensor in model.stage_state(stage).items()}
        model.prepare(stage.name, [changed(twice, weights=weights)])
        for name, tensor in model.stage_state(stage).items():
            torch.testing.assert_close(tensor, plain[name], rtol=1e-5, atol=1e-6)
