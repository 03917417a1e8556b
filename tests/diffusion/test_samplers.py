"""For Gaussian data the best denoiser and the path of the probability-flow ODE are known in closed form."""

import pytest
import torch

from pipeline.diffusion.samplers import SAMPLERS, ddim, dpm_solver_pp_2m, log_snr_times, uniform_times
from pipeline.diffusion.schedule import linear_schedule

MEAN, SPREAD = 0.7, 0.4
SCHEDULE = linear_schedule(0.02)


def exact_denoiser(schedule, record=None):
    """Give E[x_0 | x_t] for x_0 ~ N(MEAN, SPREAD^2)."""

    def denoise(x, t):
        if record is not None:
            record.append(t)
        signal, noise = float(schedule.signal[t]), float(schedule.noise[t])
        gain = signal * SPREAD**2 / (signal**2 * SPREAD**2 + noise**2)
        return MEAN + gain * (x - signal * MEAN)

    return denoise


def fresh_noise(shape):
    return lambda k: torch.randn(shape, generator=torch.Generator().manual_seed(100 + k), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "steps"), [("ancestral", 1000), ("ancestral", 200), ("ddim", 300), ("dpm_solver_pp_2m", 40)]
)
def test_many_steps_recover_the_distribution(name, steps):
    shape = (1, 1, 150, 150)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = SAMPLERS[name](exact_denoiser(SCHEDULE), start, SCHEDULE, steps, fresh_noise(shape))
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(out.std()) == pytest.approx(SPREAD, rel=0.03)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("beta", [0.002, 0.02, 0.15])
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 100])
def test_evaluations_are_as_many_as_asked_for_at_falling_times(name, beta, steps):
    schedule, times = linear_schedule(beta), []
    start = torch.zeros(1, 1, 2, 2)
    out = SAMPLERS[name](
        exact_denoiser(schedule, times), start, schedule, steps, lambda k: torch.zeros_like(start)
    )
    assert len(times) == steps
    assert times[0] == 999  # the start is pure noise
    assert all(later < earlier for earlier, later in zip(times, times[1:], strict=False))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("times", [uniform_times, log_snr_times])
def test_times_at_the_limits(times):
    schedule = linear_schedule(0.02, 50)
    assert times(schedule, 50) == list(range(49, -1, -1))
    assert times(schedule, 80) == list(range(49, -1, -1))  # there are no more
    assert times(schedule, 1) == [49]
    for steps in range(2, 50):
        drawn = times(schedule, steps)
        assert len(drawn) == steps
        assert all(later < earlier for earlier, later in zip(drawn, drawn[1:], strict=False))
        assert drawn[0] == 49
        assert drawn[-1] >= 0


def test_log_snr_times_are_evenly_spaced():
    lambdas = SCHEDULE.half_log_snr[log_snr_times(SCHEDULE, 10)]
    wanted = (lambdas[-1] - lambdas[0]) / 9
    torch.testing.assert_close(lambdas.diff(), wanted.expand(9), rtol=0.1, atol=0)


def error_against_the_ode(sampler, steps):
    """Compare with the exact solution at the sampler's own last time, where it stops solving."""
    last = log_snr_times(SCHEDULE, steps)[-1]

    def variance(t):
        return float(SCHEDULE.signal[t] ** 2 * SPREAD**2 + SCHEDULE.noise[t] ** 2)

    start = torch.full((1, 1, 1, 1), 1.3, dtype=torch.float64)
    scaled = (start - float(SCHEDULE.signal[-1]) * MEAN) / variance(-1) ** 0.5
    exact = exact_denoiser(SCHEDULE)(
        float(SCHEDULE.signal[last]) * MEAN + scaled * variance(last) ** 0.5, last
    )
    found = sampler(exact_denoiser(SCHEDULE), start, SCHEDULE, steps, lambda k: torch.zeros_like(start))
    return abs(float(found - exact))


def test_orders_of_convergence():
    grid = (8, 16, 32)
    first = [error_against_the_ode(ddim, steps) for steps in grid]
    second = [error_against_the_ode(dpm_solver_pp_2m, steps) for steps in grid]
    for coarse, fine in zip(first, first[1:], strict=False):
        assert 1.6 < coarse / fine < 2.8
    for coarse, fine in zip(second, second[1:], strict=False):
        assert 3 < coarse / fine < 6
    assert second[1] < first[1] / 3


def test_only_the_ancestral_sampler_draws_noise():
    start = torch.ones(1, 1, 2, 2)

    def refuse(k):
        raise AssertionError("a deterministic sampler needs no noise")

    for sampler in (ddim, dpm_solver_pp_2m):
        sampler(exact_denoiser(SCHEDULE), start, SCHEDULE, 6, refuse)
    drawn = []
    SAMPLERS["ancestral"](
        exact_denoiser(SCHEDULE), start, SCHEDULE, 6, lambda k: (drawn.append(k), torch.zeros_like(start))[1]
    )
    assert drawn == [0, 1, 2, 3, 4]  # every step but the last, each its own draw
