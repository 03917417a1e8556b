import pytest
import torch

from pipeline.diffusion.process import add_noise, clean_from_velocity, draw_times, velocity
from pipeline.diffusion.schedule import linear_schedule

SCHEDULE = linear_schedule(0.02)


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 3, 5, 6, generator=generator).unbind()
    return clean, noise, torch.tensor([0, 10, 500, 999])


def test_velocity_gives_the_clean_field_and_the_noise_back(drawn):
    clean, noise, times = drawn
    noisy, v = add_noise(clean, noise, times, SCHEDULE), velocity(clean, noise, times, SCHEDULE)
    assert noisy.dtype == v.dtype == torch.float32
    for n, t in enumerate(times):
        signal, sigma = float(SCHEDULE.signal[t]), float(SCHEDULE.noise[t])
        torch.testing.assert_close(clean_from_velocity(noisy[n], v[n], signal, sigma), clean[n])
        torch.testing.assert_close(sigma * noisy[n] + signal * v[n], noise[n])


def test_each_item_has_its_own_time(drawn):
    clean, noise, times = drawn
    noisy = add_noise(clean, noise, times, SCHEDULE)
    for n, t in enumerate(times):
        kept = float(SCHEDULE.signal[t])
        torch.testing.assert_close(noisy[n], kept * clean[n] + (1 - kept**2) ** 0.5 * noise[n])


def test_unit_variance_is_kept():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 1, 200, 200, generator=generator).unbind()
    times = torch.tensor([5, 300, 990])
    for field in (add_noise(clean, noise, times, SCHEDULE), velocity(clean, noise, times, SCHEDULE)):
        torch.testing.assert_close(field.var(dim=(1, 2, 3)), torch.ones(3), rtol=0.03, atol=0)


@pytest.mark.parametrize(("count", "steps"), [(1, 10), (4, 1000), (8, 10), (64, 1000)])
def test_times_are_stratified(count, steps):
    for seed in range(20):
        times = draw_times(count, steps, torch.Generator().manual_seed(seed))
        assert times.shape == (count,)
        assert times.min() >= 0
        assert times.max() < steps
        strata = (times.sort().values + 0.5) * count / steps  # one per equal part, up to rounding down
        assert ((strata - torch.arange(count) - 0.5).abs() <= 0.5 + count / steps).all()


def test_times_cover_everything_and_are_shuffled():
    drawn = torch.stack([draw_times(4, 10, torch.Generator().manual_seed(seed)) for seed in range(200)])
    assert drawn.unique().tolist() == list(range(10))
    for column in drawn.T:  # no place in the batch is bound to a part of the schedule
        assert column.unique().numel() == 10
