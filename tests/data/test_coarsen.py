import numpy as np
import pytest
import torch

from pipeline import FactorPair, UserError
from pipeline.data.coarsen import block_mean, block_sum, spread

PAIRS = [FactorPair(1, 2), FactorPair(2, 1), FactorPair(3, 2), FactorPair(4, 3), FactorPair(12, 6)]


def example(seed=0, valid=0.6):
    rng = np.random.default_rng(seed)
    field = rng.gamma(0.4, 3, (2, 6, 12, 24)).astype("f4")
    mask = rng.random(field.shape) < valid
    return np.where(mask, field, np.nan), mask


def oracle(field, mask, pair, min_valid):
    """Block by block, in numpy and double precision."""
    s, tau = pair.space, pair.time
    B, T, H, W = field.shape
    coarse, known = np.zeros((B, T // tau, H // s, W // s)), np.zeros((B, T // tau, H // s, W // s), bool)
    for b, t, i, j in np.ndindex(coarse.shape):
        block = np.s_[b, t * tau : (t + 1) * tau, i * s : (i + 1) * s, j * s : (j + 1) * s]
        values = field[block][mask[block]].astype("f8")
        known[b, t, i, j] = len(values) > 0 and len(values) >= min_valid * tau * s * s
        coarse[b, t, i, j] = values.mean() if known[b, t, i, j] else 0
    return coarse, known


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("min_valid", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("valid", [0.0, 0.6, 1.0])
def test_block_mean_against_the_oracle(pair, min_valid, valid):
    field, mask = example(valid=valid)
    coarse, known = block_mean(torch.from_numpy(field), torch.from_numpy(mask), pair, min_valid)
    wanted, wanted_known = oracle(field, mask, pair, min_valid)
    np.testing.assert_array_equal(known.numpy(), wanted_known)
    np.testing.assert_allclose(coarse.numpy(), wanted, rtol=2e-6)
    assert coarse.dtype == torch.float32


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_amounts_are_kept(pair):
    field, mask = example()
    coarse, known = block_mean(torch.from_numpy(field), torch.from_numpy(mask), pair)
    counts = block_sum(torch.from_numpy(mask).float(), pair)
    fine_known = spread(known, pair).numpy()
    amount = np.nansum(np.where(fine_known, field, 0), dtype="f8")
    assert float((coarse * counts).double().sum()) == pytest.approx(amount, rel=1e-6)


def test_half_of_a_block_is_enough_and_less_is_not():
    mask = torch.tensor([[[1, 1, 1, 0], [0, 0, 0, 0]]], dtype=torch.bool)
    coarse, known = block_mean(torch.full((1, 2, 4), 3.0), mask, FactorPair(2, 1))
    assert known.tolist() == [[[True, False]]]
    assert coarse.tolist() == [[[3.0, 0.0]]]


def test_spread_repeats_each_value_over_its_cell():
    coarse = torch.arange(12.0).reshape(2, 2, 3)
    fine = spread(coarse, FactorPair(2, 3))
    assert fine.shape == (6, 4, 6)
    for t, y, x in np.ndindex(6, 4, 6):
        assert fine[t, y, x] == coarse[t // 3, y // 2, x // 2]
    torch.testing.assert_close(block_sum(fine, FactorPair(2, 3)), coarse * 12)


@pytest.mark.parametrize("shape", [(5, 12, 12), (6, 10, 12), (6, 12, 10)])
def test_a_pair_that_does_not_divide(shape, one_line):
    with pytest.raises(UserError) as raised:
        block_mean(torch.zeros(shape), torch.ones(shape, dtype=torch.bool), FactorPair(4, 2))
    one_line(raised, "4x2", f"{shape[0]} frames of {shape[1]} x {shape[2]}")
