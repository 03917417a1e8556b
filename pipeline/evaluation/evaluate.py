"""Score a trained model, and the baselines, on windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from pipeline.config import SamplingSettings
from pipeline.data.batch import Batch
from pipeline.data.windows import Windows
from pipeline.evaluation.baselines import bicubic, nearest
from pipeline.evaluation.scores import (
    DeterministicAccumulator,
    DeterministicScores,
    EnsembleScores,
    ScoreAccumulator,
    crps_skill,
)
from pipeline.evaluation.statistics import Statistics
from pipeline.models.family import SuperResolutionModel
from pipeline.ranks import Ranks

_Accumulators = tuple[ScoreAccumulator, dict[str, DeterministicAccumulator]]


@dataclass(frozen=True)
class ModelScores:
    """Scores of a model and of what it must beat, on the same pixels.

    Attributes
    ----------
    ensemble : EnsembleScores
    mean : DeterministicScores
        Of the model's conditional mean alone.
    nearest, bicubic : DeterministicScores
    """

    ensemble: EnsembleScores
    mean: DeterministicScores
    nearest: DeterministicScores
    bicubic: DeterministicScores

    @property
    def crps_skill(self) -> float:
        """1 - CRPS / MAE of bicubic."""
        return crps_skill(self.ensemble.crps, self.bicubic.mae)

    def as_metrics(self) -> dict[str, float]:
        """Give all scores as flat names for a tracker."""
        metrics = {**self.ensemble.as_metrics(), "crps_skill": self.crps_skill}
        for name in ("mean", "nearest", "bicubic"):
            scores: DeterministicScores = getattr(self, name)
            metrics |= {f"{name}_mae": scores.mae, f"{name}_rmse": scores.rmse}
        return metrics


@dataclass(frozen=True)
class Evaluation(ModelScores):
    """Scores, and what they come from.

    Attributes
    ----------
    statistics : Statistics
        The ensemble's sums per window, in the order of the windows.
    """

    statistics: Statistics


@torch.no_grad()
def evaluate(
    model: SuperResolutionModel,
    windows: Windows,
    sampling: SamplingSettings,
    *,
    batch: int,
    seed: int,
    device: torch.device,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Score a model on all windows, in physical units; the scores are the same for any number of ranks.

    Parameters
    ----------
    model : SuperResolutionModel
        Trained, on `device`.
    windows : Windows
        With the model's context.
    sampling : SamplingSettings
        Sampler, evaluations and members.
    batch : int
        Windows at once; does not change the scores.
    seed : int
        Of the ensemble.
    device : torch.device
    ranks : Ranks, optional
        Score each its share, and all give the scores of the whole; alone unless given.
    """
    model.eval()
    pair, ranks = model.spec.pair, ranks or Ranks()
    ensemble = ScoreAccumulator(pair, whole_cells=True)
    fields = {name: DeterministicAccumulator() for name in ("mean", "nearest", "bicubic")}
    mine = ranks.share(range(len(windows)))
    for part in batches(replace(windows, places=windows.places[mine.start : mine.stop]), batch):
        on_device = part.to(device)
        members = model.sample(on_device, sampling, seed).cpu()
        ensemble.update(members, part.fine, part.mask, part.last[:, 0], part.last_mask[:, 0])
        predictions = {
            "mean": model.predict_mean(on_device).cpu(),
            "nearest": nearest(part.coarse, pair, part.coarse_mask),
            "bicubic": bicubic(part.coarse, pair, part.coarse_mask),
        }
        for name, field in predictions.items():
            fields[name].update(field, part.fine, part.mask)
    ensemble, fields = _together(ranks.gather((ensemble, fields)))
    return Evaluation(
        ensemble=ensemble.result(),
        statistics=ensemble.statistics,
        **{name: accumulator.result() for name, accumulator in fields.items()},
    )


def _together(parts: list[_Accumulators]) -> _Accumulators:
    """Put the windows of all ranks side by side."""
    (ensemble, fields), *others = parts
    for other, other_fields in others:
        ensemble.merge(other)
        for name, accumulator in fields.items():
            accumulator.merge(other_fields[name])
    return ensemble, fields


def batches(windows: Windows, size: int) -> Iterator[Batch]:
    """Give all windows in order, `size` at a time."""
    for first in range(0, len(windows), size):
        yield windows.batch(list(range(first, min(first + size, len(windows)))))
