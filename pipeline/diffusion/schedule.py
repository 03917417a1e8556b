"""The linear noise schedule whose amplitude is retuned for each factor pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """Signal and noise amplitudes at T discrete times.

    Attributes
    ----------
    signal : Tensor
        (T,) float64, alpha_t = sqrt(abar_t).
    noise : Tensor
        (T,) float64, sigma_t = sqrt(1 - abar_t).
    betas : Tensor
        (T,) float64, variance increments.
    """

    signal: Tensor
    noise: Tensor
    betas: Tensor

    @property
    def steps(self) -> int:
        """T."""
        return len(self.betas)

    @property
    def half_log_snr(self) -> Tensor:
        """(T,) lambda_t = log(alpha_t / sigma_t), falling with t."""
        return self.signal.log() - self.noise.log()


def linear_schedule(beta: float, steps: int = 1000) -> Schedule:
    """Make the linear schedule from 1e-4 to `beta` (specification, section 4; Ho et al. 2020).

    Parameters
    ----------
    beta : float
        Amplitude: the last increment.
    steps : int
        T.
    """
    betas = torch.linspace(1e-4, beta, steps, dtype=torch.float64)
    # abar_t, kept above 0 so that log-SNR and ratios stay finite for amplitudes near 1
    kept = torch.cumprod(1 - betas, dim=0).clamp(min=1e-300)
    return Schedule(signal=kept.sqrt(), noise=(1 - kept).sqrt(), betas=betas)
