"""Every sampler is a table: at which times the network is asked, and what is made of its answers.

All of them are linear in what they know: the noisy field, the clean field that the network now predicts,
the one it predicted before, and fresh noise. So one loop runs them all: over a batch of windows (`run`), or
over a whole domain, piece by piece (`downscaling/joint.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.diffusion.schedule import Schedule

PURE_NOISE = -5.0  # half-log-SNR below which a field is taken for pure noise: its signal is below 0.7 %

Denoise = Callable[[Tensor, int], Tensor]
Noise = Callable[[int], Tensor]


@dataclass(frozen=True)
class Update:
    """One network evaluation and the step after it.

    Attributes
    ----------
    time : int
        At which the network is asked for the clean field.
    noisy, clean, previous, fresh : float
        The next noisy field is this much of the noisy field, of the clean field predicted now, of the one
        predicted before, and of fresh standard normal noise.
    """

    time: int
    noisy: float
    clean: float
    previous: float = 0.0
    fresh: float = 0.0


Sampler = Callable[[Schedule, int], list[Update]]
"""Makes the table for a schedule and a number of evaluations; its last update gives the clean field."""


def run(updates: Sequence[Update], denoise: Denoise, start: Tensor, noise: Noise) -> Tensor:
    """Sample: follow a table from pure noise to a clean field.

    Parameters
    ----------
    updates : sequence of Update
    denoise : callable
        `denoise(x_t, t)` predicts the clean field x_0 of a batch at one integer time.
    start : Tensor
        Standard normal noise.
    noise : callable
        `noise(k)` gives fresh standard normal noise for the k-th step, if the table asks for it.
    """
    x, before = start, start
    for k, update in enumerate(updates):
        clean = denoise(x, update.time)
        x = combine(update, x, clean, before, noise(k) if update.fresh else None)
        before = clean
    return x


def combine(update: Update, noisy: Tensor, clean: Tensor, previous: Tensor, fresh: Tensor | None) -> Tensor:
    """Make the next noisy field; what an update does not ask for is not looked at."""
    x = update.clean * clean
    for amount, field in ((update.noisy, noisy), (update.previous, previous), (update.fresh, fresh)):
        if amount and field is not None:
            x = x + amount * field
    return x


def ancestral(schedule: Schedule, steps: int) -> list[Update]:
    """Sample from the posterior q(x_s | x_t, x_0) step by step (Ho et al. 2020, equations 6 and 7)."""
    times, updates = uniform_times(schedule, steps), []
    for t, s in zip(times, times[1:], strict=False):  # noqa: RUF007
        signal, sigma = float(schedule.signal[s]), float(schedule.noise[s])
        sigma_t = float(schedule.noise[t])
        ratio = float(schedule.signal[t]) / signal  # alpha_t / alpha_s: what is kept from s to t
        variance = 1 - ratio**2  # added from s to t
        noisy, clean = ratio * sigma**2 / sigma_t**2, signal * variance / sigma_t**2
        updates.append(Update(t, noisy, clean, fresh=variance**0.5 * sigma / sigma_t))
    return [*updates, Update(times[-1], 0.0, 1.0)]


def ddim(schedule: Schedule, steps: int) -> list[Update]:
    """Follow the deterministic DDIM path, eta = 0 (Song et al. 2021, equation 12)."""
    times, updates = log_snr_times(schedule, steps), []
    for t, s in zip(times, times[1:], strict=False):  # noqa: RUF007
        kept = float(schedule.noise[s] / schedule.noise[t])  # of x_t: its predicted noise, made smaller
        updates.append(Update(t, kept, float(schedule.signal[s] - kept * schedule.signal[t])))
    return [*updates, Update(times[-1], 0.0, 1.0)]


def dpm_solver_pp_2m(schedule: Schedule, steps: int) -> list[Update]:
    """Solve in half-log-SNR to second order, multistep: DPM-Solver++ (Lu et al. 2022, algorithm 2)."""
    times, lambdas, updates = log_snr_times(schedule, steps), schedule.half_log_snr, []
    h_before = 0.0
    for k, (t, s) in enumerate(zip(times, times[1:], strict=False)):  # noqa: RUF007
        h = float(lambdas[s] - lambdas[t])
        gain = -float(schedule.signal[s]) * math.expm1(-h)
        back = h / (2 * h_before) if k else 0.0  # 1 / (2 r): how far the change so far is carried on
        updates.append(
            Update(t, float(schedule.noise[s] / schedule.noise[t]), gain * (1 + back), -gain * back)
        )
        h_before = h
    # The last step goes to sigma = 0, where first order is exact.
    return [*updates, Update(times[-1], 0.0, 1.0)]


def heun(schedule: Schedule, steps: int) -> list[Update]:
    """Solve in half-log-SNR with Heun's rule: two evaluations a step, nothing carried over between steps.

    The last evaluation goes to sigma = 0; of an even number of evaluations the step before it is a plain one.
    In the data-prediction form of the ODE (Lu et al. 2022, equation 8), where the trapezium
    of two predictions is the second order of Karras et al. (2022, algorithm 1).
    """
    pairs = (min(steps, schedule.steps) - 1) // 2
    times = log_snr_times(schedule, min(steps, schedule.steps) - pairs)
    lambdas, updates = schedule.half_log_snr, []
    for k, (t, s) in enumerate(zip(times, times[1:], strict=False)):  # noqa: RUF007
        kept = float(schedule.noise[s] / schedule.noise[t])
        gain = -float(schedule.signal[s]) * math.expm1(-float(lambdas[s] - lambdas[t]))
        updates.append(Update(t, kept, gain))  # to where the second prediction is asked for
        if k < pairs:  # x' = kept x + gain c1 is there: the corrected field is x' + gain (c2 - c1) / 2
            updates.append(Update(s, 1.0, gain / 2, -gain / 2))
    return [*updates, Update(times[-1], 0.0, 1.0)]


SAMPLERS: dict[str, Sampler] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
    "heun": heun,
}


def uniform_times(schedule: Schedule, steps: int) -> list[int]:
    """Give min(steps, T) times from T - 1 down to 0, evenly spaced in t."""
    spaced = torch.linspace(schedule.steps - 1, 0, min(steps, schedule.steps), dtype=torch.float64)
    return spaced.round().long().tolist()


def log_snr_times(schedule: Schedule, steps: int) -> list[int]:
    """Give min(steps, T) times, falling, evenly spaced in half-log-SNR, the last above noise 0.

    The grid has one interval per evaluation; its end, where the field is clean, needs none. It begins where
    the field is all but noise: for a large beta the times before that would cost most of the evaluations and
    change nothing.
    """
    lambdas, steps = schedule.half_log_snr, min(steps, schedule.steps)
    start = max(float(lambdas[-1]), PURE_NOISE)
    grid = torch.linspace(start, float(lambdas[0]), steps + 1, dtype=torch.float64)[:-1]
    nearest = (lambdas[None, :] - grid[:, None]).abs().argmin(dim=1)
    times = nearest.tolist()
    # The first times lie far apart in log-SNR: what falls on the same one moves up, as far as there is room.
    for k in range(len(times) - 2, -1, -1):
        times[k] = max(times[k], times[k + 1] + 1)
    return [min(time, schedule.steps - 1 - k) for k, time in enumerate(times)]
