"""Scores computed from merged statistics, and accumulators that stream over batches.

All means are over the valid pixels of all windows together. A ratio 0 / 0 is 1 for the spread-skill ratio and
0 for a skill or a conservation error; x / 0 is infinite. So no score is NaN, unless a valid value is.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pipeline.evaluation.measures.metric import ratio
from pipeline.evaluation.measures.pixel import spread_skill
from pipeline.evaluation.spectra import SpectralStatistics, log_spectral_distance, spectral_statistics
from pipeline.evaluation.statistics import (
    ConservationStatistics,
    Statistics,
    conservation_statistics,
    deterministic_statistics,
    ensemble_statistics,
)
from pipeline.factors import FactorPair


def mae(statistics: Statistics) -> float:
    """Mean absolute error of the ensemble mean (or of the deterministic field), in the field's units."""
    return statistics.mean("absolute_error")


def rmse(statistics: Statistics) -> float:
    """Root mean squared error of the ensemble mean (or of the deterministic field), in the field's units."""
    return math.sqrt(statistics.mean("squared_error"))


def bias(statistics: Statistics) -> float:
    """Mean of (ensemble mean - truth), in the field's units; positive: too much."""
    return statistics.mean("error")


def fair_crps(statistics: Statistics) -> float:
    """Fair CRPS (Ferro, 2014), in the field's units; for a deterministic field this is its MAE."""
    return statistics.mean("crps")


def spread_skill_ratio(statistics: Statistics) -> float:
    """Spread over the error of the ensemble mean: 1 for a reliable ensemble, below 1 if it is overconfident.

    sqrt((M + 1) / M * mean variance) / RMSE, with the unbiased variance averaged before the root, as Fortin
    et al. (2014, doi:10.1175/JHM-D-14-0008.1) show it must be. 0 / 0 (all dry, and foreseen so) gives 1.
    """
    m = statistics.members
    spread = torch.tensor((m + 1) / m * statistics.mean("variance"), dtype=torch.float64)
    squared_error = torch.tensor(statistics.mean("squared_error"), dtype=torch.float64)
    return spread_skill(spread, squared_error).item()


def crps_skill(crps: float, reference: float) -> float:
    """1 - CRPS / reference: the share of the reference's score that is saved; 1 is perfect, 0 no better.

    Parameters
    ----------
    crps : float
        Fair CRPS of the ensemble.
    reference : float
        CRPS of the reference on the same windows; that of a deterministic field such as bicubic is its MAE.

    Returns
    -------
    float
        0 if both are 0; minus infinity if only the reference is.
    """
    return 1.0 - _ratio(crps, reference, both_zero=1.0)


def conservation_tile(statistics: ConservationStatistics) -> float:
    """Relative error of a window's total, mean over members: sum_windows |SR - LR| / sum_windows LR.

    SR and LR are amounts (see `ConservationStatistics`). Dividing sums instead of averaging ratios weighs
    each window by its amount, which needs no exception for dry windows.
    """
    return _ratio(statistics.tile.sum().item(), statistics.amount.sum().item(), both_zero=0.0)


def conservation_tile_worst(statistics: ConservationStatistics) -> float:
    """Relative error of a window's total, of the worst member of the worst window: max |SR - LR| / LR.

    A dry window has no amount of its own, so rain made in it is measured by the windows' mean amount.
    """
    amount, excess = statistics.amount, statistics.tile_worst
    relative = excess / torch.where(amount > 0, amount, amount.mean())
    return torch.where(excess == 0, 0.0, relative).amax().item()


def conservation_cell(statistics: ConservationStatistics) -> float:
    """Relative error per coarse cell, mean over members: sum_cells |SR - LR| / sum_cells LR.

    For complete cells this is the mean over cells of |block mean of SR - LR| over the mean LR of all cells. A
    cell's own LR as the divisor would blow up drizzle; dry cells take part, so rain put into one counts.
    0: every cell is kept; 2: no rain is in its cell although the total is right.
    """
    return _ratio(statistics.cell.sum().item(), statistics.amount.sum().item(), both_zero=0.0)


def _ratio(numerator: float, denominator: float, *, both_zero: float) -> float:
    above, below = (torch.tensor(value, dtype=torch.float64) for value in (numerator, denominator))
    return ratio(above, below, both_zero=both_zero).item()


@dataclass(frozen=True)
class DeterministicScores:
    """Scores of a field without uncertainty, in the field's units; its CRPS is its MAE.

    Attributes
    ----------
    mae, rmse, bias : float
        See the functions of the same name.
    windows : int
        How many windows were scored.
    """

    mae: float
    rmse: float
    bias: float
    windows: int

    def as_metrics(self) -> dict[str, float]:
        """Give every score under its field's name."""
        return {name: float(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class EnsembleScores:
    """Scores of an ensemble; the functions of the same name give the formulas.

    Attributes
    ----------
    crps, mae, rmse, bias : float
        In the field's units; the last three are of the ensemble mean.
    spread_skill_ratio, conservation_tile, conservation_tile_worst, conservation_cell : float
        Ratios.
    log_spectral_distance : float
        In dB.
    windows, members : int
        How many windows were scored, with how many members each.
    """

    crps: float
    mae: float
    rmse: float
    bias: float
    spread_skill_ratio: float
    conservation_tile: float
    conservation_tile_worst: float
    conservation_cell: float
    log_spectral_distance: float
    windows: int
    members: int

    def as_metrics(self) -> dict[str, float]:
        """Give every score under its field's name."""
        return {name: float(value) for name, value in asdict(self).items()}


class DeterministicAccumulator:
    """Scores of a deterministic field, batch by batch."""

    def __init__(self) -> None:
        self._parts: list[Statistics] = []

    def update(self, field: Tensor, truth: Tensor, mask: Tensor) -> None:
        """Add a batch: `field`, `truth` and `mask` are (B, T, H, W); see `deterministic_statistics`."""
        self._parts.append(deterministic_statistics(field, truth, mask))

    def merge(self, *others: DeterministicAccumulator) -> None:
        """Add what others have seen, in the order given."""
        for other in others:
            self._parts += other._parts

    @property
    def statistics(self) -> Statistics:
        """The sums of all windows so far."""
        return _merge(self._parts)

    def result(self) -> DeterministicScores:
        """Give the scores of all windows so far.

        Raises
        ------
        ValueError
            If no valid pixel has been seen.
        """
        s = self.statistics
        return DeterministicScores(mae=mae(s), rmse=rmse(s), bias=bias(s), windows=s.windows)


class ScoreAccumulator:
    """Scores of an ensemble, batch by batch; only per-window sums are kept.

    Parameters
    ----------
    pair : FactorPair
        What the ensemble refines, for the conservation errors.
    whole_cells : bool
        Judge conservation on whole coarse cells, as for an ensemble that was drawn without knowing which fine
        pixels of the truth are valid; else on their valid pixels.
    """

    def __init__(self, pair: FactorPair, *, whole_cells: bool = False) -> None:
        self.pair, self._whole_cells = pair, whole_cells
        self._parts: list[Statistics] = []
        self._conservation: list[ConservationStatistics] = []
        self._spectra: list[SpectralStatistics] = []

    def update(
        self, members: Tensor, truth: Tensor, mask: Tensor, coarse: Tensor, coarse_mask: Tensor
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        members : Tensor
            (B, M, T, H, W), physical units, M >= 2 and the same in every batch.
        truth : Tensor
            (B, T, H, W); may be NaN where masked.
        mask : Tensor
            (B, T, H, W), bool, True = valid.
        coarse : Tensor
            (B, h, w), the coarse frame that was refined; may be NaN where masked.
        coarse_mask : Tensor
            (B, h, w), bool, True = valid.
        """
        statistics = ensemble_statistics(members, truth, mask)
        counted = torch.ones_like(mask) if self._whole_cells else mask
        self._conservation.append(conservation_statistics(members, counted, coarse, coarse_mask, self.pair))
        self._spectra.append(spectral_statistics(members, truth, mask))
        self._parts.append(statistics)

    def merge(self, *others: ScoreAccumulator) -> None:
        """Add what others have seen, in the order given."""
        for other in others:
            self._parts += other._parts
            self._conservation += other._conservation
            self._spectra += other._spectra

    @property
    def statistics(self) -> Statistics:
        """The sums of all windows so far."""
        return _merge(self._parts)

    @property
    def spectra(self) -> SpectralStatistics:
        """The spectra of all windows so far."""
        first, *others = self._spectra
        return first.merge(*others)

    @property
    def conservation(self) -> ConservationStatistics:
        """The conservation sums of all windows so far."""
        first, *others = self._conservation
        return first.merge(*others)

    def result(self) -> EnsembleScores:
        """Give the scores of all windows so far.

        Raises
        ------
        ValueError
            If no valid pixel has been seen.
        """
        s = self.statistics
        conservation = self.conservation
        return EnsembleScores(
            crps=fair_crps(s),
            mae=mae(s),
            rmse=rmse(s),
            bias=bias(s),
            spread_skill_ratio=spread_skill_ratio(s),
            conservation_tile=conservation_tile(conservation),
            conservation_tile_worst=conservation_tile_worst(conservation),
            conservation_cell=conservation_cell(conservation),
            log_spectral_distance=log_spectral_distance(self.spectra),
            windows=s.windows,
            members=s.members,
        )


def _merge(parts: list[Statistics]) -> Statistics:
    if not any(part.weight.sum() > 0 for part in parts):
        raise ValueError("nothing to score: no window with a valid pixel")
    return parts[0].merge(*parts[1:])
