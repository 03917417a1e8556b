"""For Gaussian data the best denoiser and the path of the probability-flow ODE are known in closed form."""

import itertools

import pytest
import torch

from pipeline.diffusion.samplers import SAMPLERS, log_snr_times, run, uniform_times
from pipeline.diffusion.schedule import Schedule, linear_schedule

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
    ("name", "steps"), [("ancestral", 1000), ("ddim", 300), ("dpm_solver_pp_2m", 40), ("heun", 41)]
)
def test_many_steps_recover_the_distribution(name, steps):
    shape = (1, 1, 150, 150)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = run(SAMPLERS[name](SCHEDULE, steps), exact_denoiser(SCHEDULE), start, fresh_noise(shape))
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(out.std()) == pytest.approx(SPREAD, rel=0.03)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("beta", [0.002, 0.02, 0.15])
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 100])
def test_evaluations_are_as_many_as_asked_for_at_falling_times(name, beta, steps):
    schedule, times = linear_schedule(beta), []
    start = torch.zeros(1, 1, 2, 2)
    updates = SAMPLERS[name](schedule, steps)
    out = run(updates, exact_denoiser(schedule, times), start, lambda k: torch.zeros_like(start))
    assert len(times) == steps
    # The start is standard normal: where the schedule leaves signal, it must begin at its very end.
    assert times[0] == 999 or float(schedule.signal[times[0]]) < 0.01
    # Heun asks at the end of a step, and there again at the start of the next one.
    assert all(later < earlier for earlier, later in itertools.pairwise(dict.fromkeys(times)))
    assert name == "heun" or len(set(times)) == steps
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
        assert all(later < earlier for earlier, later in itertools.pairwise(drawn))
        assert drawn[0] == 49
        assert drawn[-1] >= 0


def test_log_snr_times_are_evenly_spaced():
    lambdas = SCHEDULE.half_log_snr[log_snr_times(SCHEDULE, 10)]
    wanted = (lambdas[-1] - lambdas[0]) / 9
    torch.testing.assert_close(lambdas.diff(), wanted.expand(9), rtol=0.1, atol=0)


def error_against_the_ode(sampler, steps):
    """Compare x at half-log-SNR 2.7 with the exact solution from -4.5, on times that lie evenly between."""
    lambdas = torch.linspace(4.5, -4.5, 2561, dtype=torch.float64)
    schedule = Schedule(
        signal=torch.sigmoid(2 * lambdas).sqrt(),
        noise=torch.sigmoid(-2 * lambdas).sqrt(),
        betas=torch.zeros(2561),  # no sampler needs them
    )
    denoise, met = exact_denoiser(schedule), {}

    def remember(x, t):
        met[t] = float(x)  # of two evaluations at one time the later one: Heun has corrected it by then
        return denoise(x, t)

    def standardise(x, t):
        variance = float(schedule.signal[t] ** 2 * SPREAD**2 + schedule.noise[t] ** 2)
        return (x - float(schedule.signal[t]) * MEAN) / variance**0.5

    start = torch.full((1, 1, 1, 1), 1.3, dtype=torch.float64)
    run(SAMPLERS[sampler](schedule, steps), remember, start, fresh_noise(()))
    # Along the exact path of Gaussian data the standardised value does not change.
    return abs(standardise(met[512], 512) - standardise(1.3, -1))


def test_orders_of_convergence():
    grid = (40, 80, 160)
    first = [error_against_the_ode("ddim", steps) for steps in grid]
    second = [error_against_the_ode("dpm_solver_pp_2m", steps) for steps in grid]
    for coarse, fine in itertools.pairwise(first):
        assert 1.8 < coarse / fine < 2.2
    trapezium = [error_against_the_ode("heun", 2 * steps - 1) for steps in grid]
    for coarse, fine in (*itertools.pairwise(second), *itertools.pairwise(trapezium)):
        assert 3.4 < coarse / fine < 4.6
    assert second[0] < first[0] / 10
    assert error_against_the_ode("dpm_solver_pp_2m", 10) < error_against_the_ode("ddim", 10) / 10


def test_a_large_beta_spends_its_evaluations_where_there_is_signal():
    # Half-log-SNR ends at -40 here: an even grid from there would meet the data in one single step.
    schedule = linear_schedule(0.15)
    shape = (1, 1, 100, 100)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = run(SAMPLERS["dpm_solver_pp_2m"](schedule, 5), exact_denoiser(schedule), start, fresh_noise(shape))
    assert float(out.std()) > 0.7 * SPREAD


def test_ancestral_steps_are_the_posterior_of_ho_et_al():
    schedule, met = linear_schedule(0.3, 10), []
    clean = torch.tensor([0.5, -1.0]).double().reshape(1, 1, 1, 2)
    start, draws = fresh_noise((1, 1, 1, 2))(50), fresh_noise((1, 1, 1, 2))

    def denoise(x, t):
        met.append((t, x))
        return clean

    run(SAMPLERS["ancestral"](schedule, 10), denoise, start, draws)
    betas, kept = schedule.betas, (1 - schedule.betas).cumprod(0)
    for k, ((t, x), (_, below)) in enumerate(itertools.pairwise(met)):
        # equations 6 and 7, written with beta_t and abar_t
        mean = (kept[t - 1].sqrt() * betas[t] * clean + (1 - betas[t]).sqrt() * (1 - kept[t - 1]) * x) / (
            1 - kept[t]
        )
        variance = (1 - kept[t - 1]) / (1 - kept[t]) * betas[t]
        torch.testing.assert_close(below, mean + variance.sqrt() * draws(k))


def test_only_the_ancestral_sampler_draws_noise():
    start = torch.ones(1, 1, 2, 2)

    def refuse(k):
        raise AssertionError("a deterministic sampler needs no noise")

    for name in ("ddim", "dpm_solver_pp_2m", "heun"):
        run(SAMPLERS[name](SCHEDULE, 6), exact_denoiser(SCHEDULE), start, refuse)
    drawn = []
    run(
        SAMPLERS["ancestral"](SCHEDULE, 6),
        exact_denoiser(SCHEDULE),
        start,
        lambda k: (drawn.append(k), torch.zeros_like(start))[1],
    )
    assert drawn == [0, 1, 2, 3, 4]  # every step but the last, each its own draw
