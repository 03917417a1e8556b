"""What every worker of a final training does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.config import TrainingSettings
from pipeline.evaluation.evaluate import Evaluation
from pipeline.final.observer import MemoryEstimated, Scoring, StageBegun, StageMemory
from pipeline.model_file import load_model
from pipeline.models.families import family_stages
from pipeline.models.family import ModelSpec
from pipeline.ranks import Ranks
from pipeline.training.memory import MemoryEstimate, available_memory, check_fits
from pipeline.training.memory_estimate import estimate
from pipeline.training.sharding import layout
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.scoring import prepared, score
from pipeline.tuning.trial import Point, TrialJob, run_trial

LABEL = "final"


@dataclass(frozen=True)
class Trained:
    """What the workers give back.

    Attributes
    ----------
    outcome : Outcome
    test : Evaluation
        On the test split.
    """

    outcome: Outcome
    test: Evaluation


@dataclass(frozen=True)
class Work:
    """What every worker does."""

    job: TrialJob
    point: Point
    spec: ModelSpec

    def __call__(self, ranks: Ranks, tell: Callable[[Any], None]) -> Trained:
        """Train, then score on the test split, in step with the other ranks."""
        job = self.job.shared_by(ranks)
        config, store = job.config, job.store
        expected = ranks.agree(
            estimates(config.training, self.spec, config.data.patch, ranks) if ranks.main else []
        )
        if ranks.main:
            tell(MemoryEstimated(expected))
        for memory in expected:
            # Of one process: on a CPU, those of a machine share it.
            sharing = 1 if ranks.device.type == "cuda" else ranks.per_node
            check_fits(memory, available_memory(ranks.device) // sharing, f"worker {ranks.rank}")
        outcome = run_trial(
            job,
            self.point,
            owner=LABEL,
            ranks=ranks,
            on_start=lambda stage, step, steps: tell(StageBegun(stage, step, steps)),
            on_report=tell,
            on_memory=lambda stage, uses: tell(StageMemory(stage, uses)),
        )
        assert outcome.model_url is not None  # a final training is not pruned, and its divergence is an error
        if ranks.main:
            tell(Scoring())
        model = load_model(outcome.model_url).to(ranks.device)
        data = prepared(config, store, self.point.pair)
        return Trained(outcome, score(model, data, config, "test", ranks=ranks))


def estimates(training: TrainingSettings, spec: ModelSpec, patch: int, ranks: Ranks) -> list[MemoryEstimate]:
    """Estimate what every stage takes on the rank that holds most."""
    _, per_copy = layout(training.parallel, ranks.world, ranks.per_node)
    return [
        estimate(
            spec,
            stage,
            training,
            patch=patch,
            ranks_per_copy=per_copy,
            world=ranks.world,
            device_type=ranks.device.type,
        )
        for stage in family_stages(spec.settings, training)
    ]
