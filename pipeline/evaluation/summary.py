"""A model's scores in the words of its training: `scores.json`, and the table that a job prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline import __version__
from pipeline.data.manifest import StoreInfo
from pipeline.evaluation import scores as formulas
from pipeline.evaluation.candidates import Candidate
from pipeline.evaluation.chunks import CONSERVATION, MEAN, PIXEL
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.interval import Interval, interval_of
from pipeline.evaluation.measures.metric import Sums
from pipeline.evaluation.run import PairScores
from pipeline.evaluation.scores import DeterministicScores, EnsembleScores
from pipeline.evaluation.spectra import SpectralStatistics, log_spectral_distance
from pipeline.evaluation.statistics import ConservationStatistics, Statistics
from pipeline.evaluation.sums import WINDOWS, total
from pipeline.evaluation.table import scores_table
from pipeline.model_file import json_numbers

FORMAT = 1


@dataclass(frozen=True)
class ModelScores:
    """All that is known about a model's scores.

    Attributes
    ----------
    candidate : Candidate
    info : StoreInfo
        Of the store that was scored on.
    split : {"validation", "test"}
    evaluation : Evaluation
    interval : Interval
        Of the CRPS.
    """

    candidate: Candidate
    info: StoreInfo
    split: str
    evaluation: Evaluation
    interval: Interval

    def table(self) -> str:
        """Lay the scores out as text."""
        spec = self.candidate.saved.model.spec
        return scores_table(spec, self.info, self.split, self.evaluation, self.interval)

    def content(self) -> dict[str, Any]:
        """Give everything that the scores stand on, and the scores, as JSON takes it."""
        saved, config = self.candidate.saved, self.candidate.config
        spec = saved.model.spec
        return {
            "format": FORMAT,
            "model": {
                "sha256": saved.card["sha256"],
                "family": spec.settings.family,
                "pair": str(spec.pair),
                "parameters": spec.parameters.model_dump(mode="json"),
            },
            "data": {
                "name": self.info.name,
                "fingerprint": self.info.fingerprint,
                "units": self.info.units,
                "cadence_seconds": self.info.cadence_seconds,
                "settings": config.data.deciding(),
                "max_context": config.tuning.max_context,
            },
            "split": self.split,
            "windows": self.evaluation.ensemble.windows,
            "sampling": config.sampling.model_dump(mode="json"),
            "seed": config.seed,
            "scores": json_numbers(self.evaluation.as_metrics()),
            "crps_interval": json_numbers(asdict(self.interval)),
            "versions": {"finescale": __version__, "torch": torch.__version__},
        }


def model_scores(pair: PairScores, info: StoreInfo, split: str) -> list[ModelScores]:
    """Give the scores of every model of a pair."""
    found = []
    for one in pair.rivals.models:
        evaluation = _evaluation(pair, one)
        config = one.config
        interval = interval_of(
            evaluation.statistics, pair.blocks.rows, config.scoring.resamples, config.seed,
            config.evaluation.level,
        )  # fmt: skip
        found.append(ModelScores(one, info, split, evaluation, interval))
    return found


def scores_json(scores: Sequence[ModelScores]) -> str:
    """Write the scores of one model, or of several by their labels."""
    if len(scores) == 1:
        content = scores[0].content()
    else:
        content = {
            "format": FORMAT,
            "models": {one.candidate.label: one.content() for one in scores},
        }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _evaluation(pair: PairScores, one: Candidate) -> Evaluation:
    """Put together what `pipeline.evaluation.evaluate.evaluate` would give on the same windows."""
    kept = pair.windows[one.label]
    statistics = Statistics(
        **{name: kept[f"pixel.{name}"] for name in PIXEL}, members=one.config.sampling.members
    )
    conservation = ConservationStatistics(**{name: kept[f"conservation.{name}"] for name in CONSERVATION})
    spectra = SpectralStatistics(truth=kept["spectra.truth"], members=kept["spectra.members"])
    ensemble = EnsembleScores(
        crps=formulas.fair_crps(statistics),
        mae=formulas.mae(statistics),
        rmse=formulas.rmse(statistics),
        bias=formulas.bias(statistics),
        spread_skill_ratio=formulas.spread_skill_ratio(statistics),
        conservation_tile=formulas.conservation_tile(conservation),
        conservation_tile_worst=formulas.conservation_tile_worst(conservation),
        conservation_cell=formulas.conservation_cell(conservation),
        log_spectral_distance=log_spectral_distance(spectra),
        windows=statistics.windows,
        members=statistics.members,
    )
    return Evaluation(
        ensemble=ensemble,
        mean=_deterministic(pair.models[one.label][MEAN]),
        nearest=_deterministic(pair.baselines["nearest"]),
        bicubic=_deterministic(pair.baselines["bicubic"]),
        statistics=statistics,
    )


def _deterministic(sums: Sums) -> DeterministicScores:
    found: dict[str, Tensor] = total(sums)
    weight = found["pixel.weight"]
    return DeterministicScores(
        mae=(found["pixel.absolute_error"] / weight).item(),
        rmse=(found["pixel.squared_error"] / weight).sqrt().item(),
        bias=(found["pixel.error"] / weight).item(),
        windows=int(found[WINDOWS]),
    )
