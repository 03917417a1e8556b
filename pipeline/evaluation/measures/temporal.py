"""How fields change within a window: from frame to frame, and by frequency.

A window has tau fine frames, in practice 2 to 6 (none to compare with tau = 1), so there are at most tau // 2
frequencies above 0, in cycles per window, and a taper would leave nothing of them: the transform is of the
bare frames of each pixel. With tau = 2 the only frequency is the change between the two frames. That is
enough to see a field that does not move (no power), one that flickers (too much) and one that moves
differently (low coherence); it is no estimate of the spectrum of rain in time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.evaluation.measures.metric import Metric, Sums, ratio
from pipeline.evaluation.spectra import spectral_distance
from pipeline.evaluation.statistics import double
from pipeline.evaluation.sums import Scored

_NEEDS = ("temporal.field", "temporal.truth", "temporal.cross_real", "temporal.cross_imaginary")


@dataclass(frozen=True)
class Change:
    """Sums over pixels that are valid in two successive frames of how they change.

    Sums, each (B,): `difference`, of |dx - dy| with dx and dy the changes of member and truth, mean over
    members; `field`, of |dx|; `truth`, of |dy|; `pixels`, their number.
    """

    name: str = "change"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        both = scored.mask[:, 1:] & scored.mask[:, :-1]
        truth = torch.where(both, scored.filled_truth.diff(dim=1), 0.0)
        field = torch.where(both.unsqueeze(1), scored.filled_members.diff(dim=2), 0.0)
        over = (1, 2, 3)
        return {
            "difference": double((field - truth.unsqueeze(1)).abs()).mean(dim=1).sum(dim=over),
            "field": double(field.abs()).mean(dim=1).sum(dim=over),
            "truth": double(truth.abs()).sum(dim=over),
            "pixels": double(both).sum(dim=over),
        }


@dataclass(frozen=True)
class Temporal:
    """Power and cross power by frequency, over pixels that are valid in all frames.

    Sums, each (B, tau // 2), for k = 1, ..., tau // 2 cycles per window: `truth` and `field`, the power, so
    that its sum over k is the variance in time, `field` the mean over members; `cross_real` and
    `cross_imaginary` of the product of member and conjugate truth, mean over members.
    """

    name: str = "temporal"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        frames = scored.pair.time
        whole = scored.mask.all(dim=1, keepdim=True)  # (B, 1, H, W)
        frequencies = slice(1, frames // 2 + 1)
        scale = torch.full((frames // 2, 1, 1), 2.0, dtype=torch.float64)  # k and -k
        if frames % 2 == 0:
            scale[-1] = 1
        scale = scale.to(double(scored.filled_truth[:1, :1]).device) / frames**2
        truth = torch.fft.fft(double(torch.where(whole, scored.filled_truth, 0.0)), dim=1)[:, frequencies]
        sums = {"truth": (truth.abs().square() * scale).sum(dim=(2, 3))}
        parts = []
        for member in scored.filled_members.unbind(dim=1):
            found = torch.fft.fft(double(torch.where(whole, member, 0.0)), dim=1)[:, frequencies]
            cross = (found * truth.conj() * scale).sum(dim=(2, 3))
            power = (found.abs().square() * scale).sum(dim=(2, 3))
            parts.append(torch.stack([power, cross.real, cross.imag]))
        sums["field"], sums["cross_real"], sums["cross_imaginary"] = torch.stack(parts).mean(dim=0)
        return sums


def coherence(field: Tensor, truth: Tensor, cross_real: Tensor, cross_imaginary: Tensor) -> Tensor:
    """Give the magnitude-squared coherence |C|^2 / (P_field P_truth), in [0, 1].

    1 also if neither has any power, 0 if one of them has none (Carter et al., 1973,
    doi:10.1109/TAU.1973.1162496).

    Parameters
    ----------
    field, truth, cross_real, cross_imaginary : Tensor
        (..., K).
    """
    cross = cross_real.square() + cross_imaginary.square()
    found = ratio(cross, field * truth, both_zero=0.0)
    return torch.where((field == 0) & (truth == 0), 1.0, found)


def metrics() -> tuple[Metric, ...]:
    """Give the metrics made from `Change` and `Temporal`."""

    def of(sums: Sums) -> Tensor:
        return coherence(*(sums[key] for key in _NEEDS))

    error = Metric(
        name="change_error",
        title="error of the change between frames",
        unit="units",
        better="lower",
        formula="mean |dx - dy|, dx and dy the change of member and truth from one frame to the next",
        source="as the temporal coherence losses of video super-resolution, Chu et al. (2020), "
        "doi:10.1145/3386569.3392457",
        compute=lambda sums: sums["change.difference"] / sums["change.pixels"],
        needs=("change.difference", "change.pixels"),
    )
    spectrum = Metric(
        name="temporal_spectrum",
        title="power spectrum in time",
        unit="units^2",
        better="none",
        formula="2 |X_k|^2 / tau^2 (1 for tau / 2) of a pixel's tau frames, k cycles per window; sum over "
        "the pixels of a window, mean over windows and members",
        source="Welch (1967), doi:10.1109/TAU.1967.1161901",
        compute=lambda sums: sums["temporal.field"] / sums["windows"].unsqueeze(-1),
        needs=("temporal.field",),
        dimensions=("frequency",),
        perfect=None,
    )
    return (
        error,
        replace(
            error,
            name="change_ratio",
            title="size of the change between frames",
            unit="",
            better="one",
            formula="sum |dx| / sum |dy|: below 1 too steady, above 1 flickering; 0 / 0 is 1",
            compute=lambda sums: ratio(sums["change.field"], sums["change.truth"], both_zero=1.0),
            needs=("change.field", "change.truth"),
            perfect=1.0,
        ),
        Metric(
            name="temporal_coherence",
            title="coherence with the truth in time",
            unit="",
            better="higher",
            formula="|sum X_k conj(Y_k)|^2 / (sum |X_k|^2 sum |Y_k|^2), summed over pixels, windows and "
            "members",
            source="Carter et al. (1973), doi:10.1109/TAU.1973.1162496",
            compute=of,
            needs=_NEEDS,
            dimensions=("frequency",),
            perfect=1.0,
        ),
        Metric(
            name="temporal_log_spectral_distance",
            title="log-spectral distance in time",
            unit="dB",
            better="lower",
            formula="as the log-spectral distance, over the frequencies k = 1, ..., tau // 2",
            source="Gray and Markel (1976), doi:10.1109/TASSP.1976.1162849",
            compute=lambda sums: spectral_distance(sums["temporal.truth"], sums["temporal.field"]),
            needs=("temporal.truth", "temporal.field"),
            inflated=True,
        ),
        spectrum,
        replace(
            spectrum,
            name="temporal_spectrum_truth",
            title="power spectrum of the truth in time",
            compute=lambda sums: sums["temporal.truth"] / sums["windows"].unsqueeze(-1),
            needs=("temporal.truth",),
        ),
    )
