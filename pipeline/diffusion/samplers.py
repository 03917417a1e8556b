"""One pure function per sampler, all with the same signature.

`denoise(x_t, t)` gives the predicted clean field x_0 for a batch at one integer time; `start` is standard
normal noise; `noise(k)` gives fresh standard normal noise of the same shape for the k-th step, for samplers
that need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pipeline.diffusion.schedule import Schedule

PURE_NOISE = -5.0  # half-log-SNR below which a field is taken for pure noise: its signal is below 0.7 %

Denoise = Callable[[Tensor, int], Tensor]
Noise = Callable[[int], Tensor]


class Sampler(Protocol):
    """Signature of every sampler."""

    def __call__(
        self, denoise: Denoise, start: Tensor, schedule: Schedule, steps: int, noise: Noise
    ) -> Tensor:
        """Give the clean field; `steps` is the number of network evaluations."""
        ...


def ancestral(denoise: Denoise, start: Tensor, schedule: Schedule, steps: int, noise: Noise) -> Tensor:
    """Sample from the posterior q(x_s | x_t, x_0) step by step (Ho et al. 2020, equations 6 and 7)."""
    x, times = start, uniform_times(schedule, steps)
    for k, t in enumerate(times):
        clean = denoise(x, t)
        if k == len(times) - 1:
            return clean
        at, st = float(schedule.signal[t]), float(schedule.noise[t])
        ar, sr = float(schedule.signal[times[k + 1]]), float(schedule.noise[times[k + 1]])
        ratio = at / ar  # alpha_t / alpha_s: what is kept from s to t
        variance = 1 - ratio**2  # added from s to t
        mean = (ratio * sr**2 * x + ar * variance * clean) / st**2
        x = mean + (variance**0.5) * sr / st * noise(k)
    return x


def ddim(denoise: Denoise, start: Tensor, schedule: Schedule, steps: int, noise: Noise) -> Tensor:
    """Follow the deterministic DDIM path, eta = 0 (Song et al. 2021, equation 12)."""
    x, times = start, log_snr_times(schedule, steps)
    for k, t in enumerate(times):
        clean = denoise(x, t)
        if k == len(times) - 1:
            return clean
        direction = (x - float(schedule.signal[t]) * clean) / float(schedule.noise[t])  # predicted eps
        s = times[k + 1]
        x = float(schedule.signal[s]) * clean + float(schedule.noise[s]) * direction
    return x


def dpm_solver_pp_2m(denoise: Denoise, start: Tensor, schedule: Schedule, steps: int, noise: Noise) -> Tensor:
    """Solve in half-log-SNR to second order, multistep: DPM-Solver++ (Lu et al. 2022, algorithm 2)."""
    x, times, lambdas = start, log_snr_times(schedule, steps), schedule.half_log_snr
    previous, h_previous = None, 0.0
    for k, t in enumerate(times):
        clean = denoise(x, t)
        if k == len(times) - 1:
            return clean  # the last step goes to sigma = 0, where first order is exact
        s = times[k + 1]
        h = float(lambdas[s] - lambdas[t])
        target = clean
        if previous is not None:
            r = h_previous / h
            target = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * previous
        x = float(schedule.noise[s] / schedule.noise[t]) * x - float(schedule.signal[s]) * _expm1(-h) * target
        previous, h_previous = clean, h
    return x


SAMPLERS: dict[str, Sampler] = {"ancestral": ancestral, "ddim": ddim, "dpm_solver_pp_2m": dpm_solver_pp_2m}


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


def _expm1(value: float) -> float:
    return float(torch.expm1(torch.tensor(value, dtype=torch.float64)))
