"""A model's scores in the words of its training: `scores.json`, and the table that a job prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pipeline import __version__
from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.candidates import Candidate
from pipeline.evaluation.chunks import ENSEMBLE, MEAN
from pipeline.evaluation.evaluate import ModelScores
from pipeline.evaluation.pieces import PairScores
from pipeline.evaluation.scores import DeterministicScores, EnsembleScores, conservation_tile_worst
from pipeline.evaluation.table import scores_table
from pipeline.evaluation.tidy import TidyTable
from pipeline.model_file import json_numbers
from pipeline.store.manifest import StoreInfo

FORMAT = 1
_SAME_NAME = (
    "mae", "rmse", "bias", "spread_skill_ratio", "conservation_tile", "conservation_cell",
    "log_spectral_distance",
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """The scores that a training knows too.

    Attributes
    ----------
    candidate : Candidate
    info : StoreInfo
        Of the store that was scored on.
    split : {"validation", "test"}
    scores : ModelScores
    interval : Interval
        Of the CRPS.
    """

    candidate: Candidate
    info: StoreInfo
    split: str
    scores: ModelScores
    interval: Interval

    def table(self) -> str:
        """Lay the scores out as text."""
        spec = self.candidate.saved.model.spec
        return scores_table(spec, self.info, self.split, self.scores, self.interval)

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
            "windows": self.scores.ensemble.windows,
            "sampling": config.sampling.model_dump(mode="json"),
            "seed": config.seed,
            "scores": json_numbers(self.scores.as_metrics()),
            "crps_interval": json_numbers(asdict(self.interval)),
            "versions": {"finescale": __version__, "torch": torch.__version__},
        }


def summaries(scores: PairScores, table: TidyTable, info: StoreInfo) -> list[Summary]:
    """Give the scores of every model of a pair, read off the table."""
    return [_summary(scores, table, info, one) for one in scores.rivals.models]


def scores_json(found: Sequence[Summary]) -> str:
    """Write the scores of one model, or of several by their labels."""
    if len(found) == 1:
        content = found[0].content()
    else:
        content = {"format": FORMAT, "models": {one.candidate.label: one.content() for one in found}}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _summary(scores: PairScores, table: TidyTable, info: StoreInfo, one: Candidate) -> Summary:
    rivals, count = scores.rivals, len(scores.rivals.windows)

    def values(model: str, field: str, names: Sequence[str]) -> dict[str, float]:
        return {name: table.value(rivals.pair, model, field, name) for name in names}

    def deterministic(model: str, field: str) -> DeterministicScores:
        return DeterministicScores(**values(model, field, ("mae", "rmse", "bias")), windows=count)

    ensemble = EnsembleScores(
        **values(one.label, ENSEMBLE, _SAME_NAME),
        crps=table.value(rivals.pair, one.label, ENSEMBLE, "fair_crps"),
        conservation_tile_worst=conservation_tile_worst(scores.windows[one.label]),
        windows=count,
        members=one.config.sampling.members,
    )
    found = ModelScores(
        ensemble=ensemble,
        mean=deterministic(one.label, MEAN),
        nearest=deterministic("", "nearest"),
        bicubic=deterministic("", "bicubic"),
    )
    (crps,) = table.all(rivals.pair, one.label, ENSEMBLE, "fair_crps")
    interval = Interval(crps.low, crps.high, one.config.evaluation.level, crps.blocks)
    return Summary(one, info, rivals.split, found, interval)
