"""The forward process and v-prediction (Salimans and Ho 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.diffusion.schedule import Schedule


def _at(values: Tensor, times: Tensor, like: Tensor) -> Tensor:
    """Pick values[times], shaped (B, 1, 1, 1) for fields of `like`'s type."""
    picked = values.to(device=times.device)[times].to(like.dtype)
    return picked.reshape(-1, *[1] * (like.ndim - 1))


def add_noise(clean: Tensor, noise: Tensor, times: Tensor, schedule: Schedule) -> Tensor:
    """Give x_t = alpha_t x_0 + sigma_t eps; `times` is (B,) of integers in [0, T)."""
    return _at(schedule.signal, times, clean) * clean + _at(schedule.noise, times, clean) * noise


def velocity(clean: Tensor, noise: Tensor, times: Tensor, schedule: Schedule) -> Tensor:
    """Give the target v = alpha_t eps - sigma_t x_0."""
    return _at(schedule.signal, times, clean) * noise - _at(schedule.noise, times, clean) * clean


def clean_from_velocity(noisy: Tensor, v: Tensor, signal: float, noise: float) -> Tensor:
    """Give x_0 = alpha_t x_t - sigma_t v."""
    return signal * noisy - noise * v


def draw_times(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Draw (count,) times, stratified: one per equal part of [0, T), which lowers the loss's variance."""
    strata = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    return (strata / count * steps).long().clamp(max=steps - 1)
