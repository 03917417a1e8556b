"""How the variance of a field is spread over scales, and how far an ensemble's spread is from the truth's."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.evaluation.statistics import PerWindow, double

_FLOOR = 1e-6
"""Power below this share of the truth's largest counts as this: -60 dB, far below what a gauge could see."""


@dataclass(frozen=True)
class SpectralStatistics(PerWindow):
    """Radial power spectra of each window, summed over its frames; tensors are (B, K), float64, on the CPU.

    Wavenumber k = 1, ..., K = side / 2 is in cycles per window.

    Attributes
    ----------
    truth : Tensor
    members : Tensor
        Mean over the members' spectra: the spectrum of their mean would lack what they disagree in.
    """

    truth: Tensor
    members: Tensor


def radial_spectrum(fields: Tensor) -> Tensor:
    """Give the power in each ring of wavenumbers of square fields.

    Each field is multiplied by a Hann window, since its edges do not meet, and each ring k holds the
    wavenumbers of length k - 1/2 up to k + 1/2. The sum over all rings is the variance within them. The mean,
    weighted by the window, goes first: of rain it would otherwise leak into ring 1 and be most of it.

    Parameters
    ----------
    fields : Tensor
        (..., N, N), no NaN.

    Returns
    -------
    Tensor
        (..., N // 2), float64, in the fields' units squared.
    """
    side, fields = fields.shape[-1], double(fields)
    taper = torch.hann_window(side, dtype=torch.float64, device=fields.device)
    taper = taper / taper.square().mean().sqrt()
    window = taper[:, None] * taper
    mean = (fields * window).sum(dim=(-2, -1), keepdim=True) / window.sum()
    power = torch.fft.fft2((fields - mean) * window).abs().square() / side**4
    ring = _rings(side).to(fields.device)
    total = power.new_zeros((*power.shape[:-2], side + 1))
    total.index_add_(-1, ring, power.flatten(-2))
    return total[..., 1 : side // 2 + 1]


@functools.lru_cache(maxsize=8)
def _rings(side: int) -> Tensor:
    """Give the ring of every wavenumber of an fft2, (side * side,); the corners beyond side / 2 too."""
    wavenumber = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    return torch.hypot(wavenumber[:, None], wavenumber[None, :]).round().long().flatten()


def spectral_statistics(members: Tensor, truth: Tensor, mask: Tensor) -> SpectralStatistics:
    """Spectra per window; missing pixels are 0 in truth and members alike.

    Parameters
    ----------
    members : Tensor
        (B, M, T, N, N), physical units.
    truth : Tensor
        (B, T, N, N), same units; may be NaN where masked.
    mask : Tensor
        (B, T, N, N), bool, True = valid.
    """
    known = torch.where(mask, truth, 0.0)
    drawn = torch.where(mask.unsqueeze(1), members, 0.0)
    return SpectralStatistics(
        truth=radial_spectrum(known).sum(dim=1).cpu(),  # (B, T, K) to (B, K)
        members=radial_spectrum(drawn).sum(dim=2).mean(dim=1).cpu(),  # (B, M, T, K) to (B, K)
    )


def log_spectral_distance(statistics: SpectralStatistics) -> float:
    """Give the distance of the spectra summed over all windows, see `spectral_distance`, in dB."""
    return spectral_distance(statistics.truth.sum(dim=0), statistics.members.sum(dim=0)).item()


def spectral_distance(truth: Tensor, members: Tensor) -> Tensor:
    """Root mean square over wavenumbers of the ratio of two spectra, in dB; 0 is perfect.

    LSD = sqrt(mean_k (10 log10(P_truth(k) / P_members(k)))^2). Power below -60 dB of the truth's largest
    counts as that much, so a field without small scales has a finite distance, and dry fields foreseen as dry
    have none. If the truth has no power at all, the members' largest stands in for its. A NaN gives NaN.

    Parameters
    ----------
    truth, members : Tensor
        (..., K), power per wavenumber.

    Returns
    -------
    Tensor
        (...), in dB.
    """
    largest, drawn = truth.amax(dim=-1, keepdim=True), members.amax(dim=-1, keepdim=True)
    floor = _FLOOR * torch.where(largest > 0, largest, drawn)
    decibel = 10 * torch.log10(truth.maximum(floor) / members.maximum(floor))
    distance = decibel.square().mean(dim=-1).sqrt()
    dry = (largest == 0) & (drawn == 0)
    return torch.where(dry.squeeze(-1), 0.0, distance)
