import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Conservation, FactorPair, Scope
from pipeline.conservation import conserve
from pipeline.data.coarsen import block_mean, block_sum, spread

PAIRS = [FactorPair(1, 2), FactorPair(2, 1), FactorPair(2, 3), FactorPair(3, 2), FactorPair(5, 1)]


@st.composite
def cases(draw, scopes=(Scope.TILE, Scope.CELL)):
    """Fields from 1e-6 to 1e3 with any share of zeros, over coarse frames that need not resemble them."""
    pair = draw(st.sampled_from(PAIRS))
    B, h, w = draw(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def values(*shape):
        exponents = rng.uniform(*sorted(draw(st.tuples(st.floats(-6, 3), st.floats(-6, 3)))), shape)
        wet = rng.random(shape) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
        return torch.from_numpy(np.where(wet, 10**exponents, 0)).float()

    def mask(*shape):
        share = draw(st.sampled_from([None, 0.1, 0.6, 1.0]))
        return None if share is None else torch.from_numpy(rng.random(shape) < share)

    fine, coarse = (B, pair.time, h * pair.space, w * pair.space), (B, 1, h, w)
    field = values(*fine)
    if draw(st.booleans()):
        field = field - values(*fine)  # a network's output may be negative
    return {
        "field": field,
        "coarse": values(*coarse),
        "pair": pair,
        "conservation": Conservation(
            power=draw(st.floats(0.05, 1)),
            threshold=draw(st.floats(0, 0.99)),
            scope=draw(st.sampled_from(scopes)),
        ),
        "scale": 10 ** draw(st.floats(-3, 3)),
        "mask": mask(*fine),
        "coarse_mask": mask(*coarse),
    }


def regions(case, out):
    """What each region holds and what it should hold, in double precision, computed without `conserve`."""
    valid = torch.ones_like(out) if case["mask"] is None else case["mask"].float()
    known = torch.ones_like(case["coarse"]) if case["coarse_mask"] is None else case["coarse_mask"].float()
    fine_known = spread(known, case["pair"])
    wanted = (case["coarse"] * known).double() * block_sum((valid * fine_known).double(), case["pair"])
    found = block_sum((out * valid * fine_known).double(), case["pair"])
    if case["conservation"].scope is Scope.TILE:
        wanted, found = (z.sum(dim=(1, 2, 3)) for z in (wanted, found))
    return found, wanted


@settings(max_examples=300, deadline=None)
@given(cases())
def test_amounts_are_kept_whatever_the_field(case):
    out = conserve(**case)
    found, wanted = regions(case, out)
    assert out.shape == case["field"].shape
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert (out >= 0).all()
    assert ((found - wanted).abs() <= 1e-5 * wanted).all()  # so a dry region stays exactly dry
    if case["mask"] is not None:
        assert (out[~case["mask"]] == 0).all()
    if case["coarse_mask"] is not None and case["conservation"].scope is Scope.CELL:
        assert (out[~spread(case["coarse_mask"], case["pair"]).expand_as(out)] == 0).all()


@settings(max_examples=100, deadline=None)
@given(cases())
def test_gradient_is_finite(case):
    field = case["field"].requires_grad_()
    conserve(**case).square().sum().backward()
    assert torch.isfinite(field.grad).all()


@settings(max_examples=50, deadline=None)
@given(cases(scopes=(Scope.NONE,)))
def test_scope_none_only_removes_what_is_negative_or_missing(case):
    wanted = case["field"].clamp(min=0)
    if case["mask"] is not None:
        wanted = torch.where(case["mask"], wanted, 0.0)
    torch.testing.assert_close(conserve(**case), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("scope", [Scope.TILE, Scope.CELL])
def test_dry_prediction_under_rain_spreads_the_coarse_amount(scope):
    pair, coarse = FactorPair(2, 2), torch.tensor([[[[3.0, 0.0], [0.5, 1.0]]]])
    out = conserve(torch.zeros(1, 2, 4, 4), coarse, pair, Conservation(scope=scope), scale=10.0)
    torch.testing.assert_close(out, spread(coarse, pair))


def test_fallback_is_per_region():
    # One cell is predicted dry, the other is not: only the first is spread evenly.
    coarse = torch.tensor([[[[1.0, 1.0]]]])
    field = torch.tensor([[[[0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]])
    out = conserve(field, coarse, FactorPair(2, 1), Conservation(scope=Scope.CELL), scale=1.0)
    torch.testing.assert_close(out, torch.tensor([[[[1.0, 1.0, 3.0, 1.0], [1.0, 1.0, 0.0, 0.0]]]]))


@pytest.mark.parametrize("scope", [Scope.TILE, Scope.CELL])
def test_wet_prediction_under_no_rain_is_dry(scope):
    out = conserve(
        torch.full((1, 2, 4, 4), 5.0),
        torch.zeros(1, 1, 2, 2),
        FactorPair(2, 2),
        Conservation(scope=scope),
        scale=1.0,
    )
    assert (out == 0).all()


def test_scope_tells_tile_from_cell():
    coarse = torch.tensor([[[[1.0, 3.0]]]])
    field = torch.ones(1, 1, 2, 4)
    tile = conserve(field, coarse, FactorPair(2, 1), Conservation(scope=Scope.TILE), scale=1.0)
    cell = conserve(field, coarse, FactorPair(2, 1), Conservation(scope=Scope.CELL), scale=1.0)
    torch.testing.assert_close(tile, torch.full_like(field, 2.0))
    torch.testing.assert_close(cell, spread(coarse, FactorPair(2, 1)))


@pytest.mark.parametrize("scope", [Scope.TILE, Scope.CELL])
def test_identity_leaves_a_conserving_field_alone(scope):
    field = torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    coarse, _ = block_mean(field, torch.ones_like(field, dtype=torch.bool), FactorPair(3, 2))
    out = conserve(field, coarse, FactorPair(3, 2), Conservation(scope=scope), scale=7.0)
    torch.testing.assert_close(out, field)


@pytest.mark.parametrize(
    ("power", "threshold", "shares"),
    [(1.0, 0.0, [0, 1, 4]), (0.5, 0.0, [0, 1, 2]), (1.0, 0.25, [0, 0, 3]), (0.5, 0.25, [0, 1, 3])],
)
def test_taper_on_the_scaled_field(power, threshold, shares):
    # x = field / scale = 0, 1/4 and 1; f(x) = max(x^p - theta, 0)
    field = torch.tensor([0.0, 2.0, 8.0, 0.0]).reshape(1, 2, 1, 2)
    coarse = torch.ones(1, 1, 1, 2)
    conservation = Conservation(power=power, threshold=threshold)
    out = conserve(field, coarse, FactorPair(1, 2), conservation, scale=8.0)
    torch.testing.assert_close(out.flatten(), 4 * torch.tensor([*shares, 0.0]) / sum(shares))


@pytest.mark.parametrize("scope", [Scope.TILE, Scope.CELL])
def test_a_faint_prediction_keeps_its_pattern(scope):
    # Little is not nothing: only a prediction that is dry gives way to an even spread.
    pattern = torch.tensor([0.0, 1.0, 2.0, 5.0]).reshape(1, 1, 2, 2)
    coarse = torch.full((1, 1, 1, 1), 2.0)
    out = conserve(1e-6 * pattern, coarse, FactorPair(2, 1), Conservation(scope=scope), scale=1e3)
    torch.testing.assert_close(out, pattern)


def test_members_of_a_batch_do_not_mix():
    generator = torch.Generator().manual_seed(3)
    field, coarse = torch.rand(3, 2, 4, 4, generator=generator), torch.rand(3, 1, 2, 2, generator=generator)
    for scope, power in itertools.product((Scope.TILE, Scope.CELL), (0.5, 1.0)):
        arguments = (FactorPair(2, 2), Conservation(power=power, scope=scope))
        together = conserve(field, coarse, *arguments, scale=1.0)
        for one in range(3):
            alone = conserve(field[one : one + 1], coarse[one : one + 1], *arguments, scale=1.0)
            torch.testing.assert_close(together[one : one + 1], alone)
