"""How variance is spread over scales in space: spectra of members and truth, and their distance."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from pipeline.evaluation.measures.metric import Metric
from pipeline.evaluation.spectra import spectral_distance, spectral_statistics
from pipeline.evaluation.sums import Scored

_TRUTH, _FIELD = "spectra.truth", "spectra.field"


@dataclass(frozen=True)
class Spectra:
    """Radial power spectra, see `pipeline.evaluation.spectra.radial_spectrum`; windows must be square.

    Sums, each (B, K): `truth` and `field`, the latter the mean over the members' spectra.
    """

    name: str = "spectra"

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give the sums per window."""
        found = spectral_statistics(scored.members, scored.truth, scored.mask)
        return {"truth": found.truth, "field": found.members}


def metrics() -> tuple[Metric, ...]:
    """Give the metrics made from `Spectra`."""
    spectrum = Metric(
        name="spectrum",
        title="radial power spectrum",
        unit="units^2",
        better="none",
        formula="variance in the ring of wavenumbers k - 1/2 to k + 1/2 cycles per window, Hann taper; sum "
        "over the frames of a window, mean over windows and members",
        source="Harris et al. (2001), doi:10.1175/1525-7541(2001)002<0406:MSPOAH>2.0.CO;2",
        compute=lambda sums: sums[_FIELD] / sums["windows"].unsqueeze(-1),
        needs=(_FIELD,),
        dimensions=("wavenumber",),
        perfect=None,
    )
    return (
        Metric(
            name="log_spectral_distance",
            title="log-spectral distance",
            unit="dB",
            better="lower",
            formula="sqrt(mean_k (10 log10(P_truth(k) / P_members(k)))^2), floor at -60 dB of the truth's "
            "largest",
            source="Gray and Markel (1976), doi:10.1109/TASSP.1976.1162849",
            compute=lambda sums: spectral_distance(sums[_TRUTH], sums[_FIELD]),
            needs=(_TRUTH, _FIELD),
            inflated=True,
        ),
        spectrum,
        replace(
            spectrum,
            name="spectrum_truth",
            title="radial power spectrum of the truth",
            compute=lambda sums: sums[_TRUTH] / sums["windows"].unsqueeze(-1),
            needs=(_TRUTH,),
        ),
    )
