import itertools

import pytest
import torch

from pipeline.diffusion.noise import StepDraws, field_noise, step_generator

GOLDEN_NOISE = [-0.0434188, 0.7126039, 1.0709789]
GOLDEN_STEP = [0.32915097, 0.79899037, 0.94638443]
WHOLE = {"time": 3, "y": 10, "x": 20, "shape": (4, 80, 70)}


@pytest.mark.parametrize(
    ("time", "y", "x", "shape"),
    [(3, 10, 20, (4, 80, 70)), (4, 31, 32, (2, 1, 1)), (5, 32, 31, (1, 33, 34)), (3, 63, 20, (3, 27, 65))],
)
def test_overlapping_boxes_agree(time, y, x, shape):
    whole = field_noise(7, 2, **WHOLE)
    box = field_noise(7, 2, time=time, y=y, x=x, shape=shape)
    assert box.shape == shape
    assert torch.equal(box, whole[time - 3 :, y - 10 :, x - 20 :][: shape[0], : shape[1], : shape[2]])


def test_every_part_of_the_key_matters():
    base = {"seed": 1, "member": 1, "draw": 1, "time": 1, "y": 0, "x": 0}
    keys = [base, *(base | {name: 2} for name in ("seed", "member", "draw", "time"))]
    keys += [base | {"y": 32}, base | {"x": 32}]
    # no key may stand for another by swapping its parts
    keys += [base | {"seed": 2, "member": 0}, base | {"seed": 0, "member": 2}]
    fields = [field_noise(**key, shape=(1, 32, 32)).flatten() for key in keys]
    for a, b in itertools.combinations(fields, 2):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.15


def test_standard_normal_and_white():
    noise = field_noise(0, 0, time=0, y=0, x=0, shape=(10, 160, 160)).double()
    assert noise.dtype == torch.float64
    assert abs(float(noise.mean())) < 0.01
    assert float(noise.var()) == pytest.approx(1, abs=0.01)
    assert float(noise.abs().gt(1.959964).double().mean()) == pytest.approx(0.05, abs=0.002)
    for axis in range(3):
        shifted = noise.narrow(axis, 1, noise.shape[axis] - 1) * noise.narrow(axis, 0, noise.shape[axis] - 1)
        assert abs(float(shifted.mean())) < 0.01


def test_the_values_never_change():
    # Another value here would change every ensemble that was ever published.
    first = field_noise(0, 0, time=0, y=0, x=0, shape=(1, 1, 3)).flatten().tolist()
    assert first == pytest.approx(GOLDEN_NOISE, abs=1e-6)


def test_step_generator_depends_on_its_key_alone():
    def draw(*key):
        return torch.rand(3, generator=step_generator(*key)).tolist()

    first = draw(0, "mean", 5)
    torch.rand(10)  # what ran before makes no difference
    assert draw(0, "mean", 5) == first
    others = [
        draw(*key) for key in [(1, "mean", 5), (0, "mean", 6), (0, "residual", 5), (0, "mean", "prepare", 5)]
    ]
    assert first not in others
    assert first == pytest.approx(GOLDEN_STEP, abs=1e-7)


@pytest.mark.parametrize("cuts", [(0, 8), (0, 3, 8), (0, 1, 2, 5, 8)], ids=str)
def test_a_window_gets_the_same_draws_in_whatever_part_of_the_batch(cuts):
    whole = StepDraws(0, "residual", 5, 8, range(8))
    parts = [StepDraws(0, "residual", 5, 8, range(a, b)) for a, b in itertools.pairwise(cuts)]
    assert torch.equal(torch.cat([part.normal((2, 6, 6)) for part in parts]), whole.normal((2, 6, 6)))
    assert torch.equal(torch.cat([part.times(1000) for part in parts]), whole.times(1000))
    assert [turn for part in parts for turn in part.symmetries()] == whole.symmetries()


def test_windows_steps_stages_and_seeds_get_draws_of_their_own():
    base = {"seed": 0, "stage": "mean", "step": 5, "batch": 4, "numbers": range(4)}
    keys = [base, *(base | change for change in ({"seed": 1}, {"stage": "residual"}, {"step": 6}))]
    rows = torch.cat([StepDraws(**key).normal((400,)) for key in keys])
    correlation = torch.corrcoef(rows) - torch.eye(16)
    assert correlation.abs().max() < 0.25
    assert len({tuple(StepDraws(**key).times(1000).tolist()) for key in keys}) == 4
    assert len({tuple(StepDraws(**key | {"step": n}).symmetries()) for n in range(9) for key in keys}) > 9


def test_times_are_stratified_over_the_whole_batch_in_an_order_of_their_own():
    orders = set()
    for step in range(20):
        parts = [StepDraws(0, "residual", step, 10, range(a, b)) for a, b in ((0, 4), (4, 10))]
        times = torch.cat([part.times(1000) for part in parts])
        assert (times // 100).sort().values.tolist() == list(range(10))
        orders.add(tuple((times // 100).tolist()))
    assert len(orders) == 20


def test_all_eight_symmetries_are_drawn_about_equally_often():
    drawn = StepDraws(0, "mean", 0, 800, range(800)).symmetries()
    assert all(60 < drawn.count(turn) < 140 for turn in range(8))
