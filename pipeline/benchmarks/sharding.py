"""What each rank holds of a model that is sharded over 1, 2 and 4 real workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pipeline import environment
from pipeline.benchmarks.pair import the_pair
from pipeline.benchmarks.training import spec_and_windows
from pipeline.config import Config
from pipeline.data.windows import Windows
from pipeline.factors import FactorPair
from pipeline.models.families import build_model, family_stages
from pipeline.models.family import ModelSpec
from pipeline.ranks import Ranks
from pipeline.storage.files import join
from pipeline.training.distributed import Workers, run_on_workers
from pipeline.training.loop import Hooks, train_stage
from pipeline.training.memory import MemoryUse, readable

_COUNTS = (1, 2, 4)

Uses = dict[str, list[MemoryUse]]
"""What each rank held, by stage."""


@dataclass(frozen=True)
class ShardMemory:
    """Bytes of parameters, gradients and optimizer state per rank, after one real step of each stage.

    Attributes
    ----------
    pair : FactorPair
    preset, sharding : str
    uses : dict
        By number of ranks, then by stage.
    """

    pair: FactorPair
    preset: str
    sharding: str
    uses: dict[int, Uses]

    def __str__(self) -> str:
        lines = [
            f"shard-memory: {self.pair}, {self.preset} preset, sharding {self.sharding}; parameters + "
            "gradients + optimizer of the rank that holds most"
        ]
        for stage, (alone,) in self.uses[1].items():
            for count, uses in self.uses.items():
                most = max(use.sharded for use in uses[stage])
                lines.append(
                    f"  {stage:<9}{count} rank{'s' * (count > 1):<2}{readable(most):>11} each: "
                    f"{most / alone.sharded:.4f} of one rank's, {most / alone.sharded * count:.4f} / {count}"
                )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Work:
    """One step of every stage."""

    config: Config
    spec: ModelSpec
    windows: Windows

    def __call__(self, ranks: Ranks, tell: Callable[[Any], None]) -> Uses:
        uses: Uses = {}
        training = self.config.training
        for stage in family_stages(self.spec.settings, training):
            train_stage(
                build_model(self.spec, self.config.seed),
                replace(stage, steps=1),
                self.windows,
                training,
                seed=self.config.seed,
                ranks=ranks,
                hooks=Hooks(on_memory=lambda name, held: uses.update({name: held})),
            )
        return uses


def shard_memory(config: Config) -> ShardMemory:
    """Train a step on 1, 2 and 4 workers; on windows as small as the pair allows, for they do not count."""
    pair = the_pair(config)
    side = -(-16 // pair.space) * pair.space
    config = config.model_copy(
        update={
            "output": environment.resolve_output(config.output),
            "data": config.data.model_copy(update={"patch": side}),
            "training": config.training.model_copy(update={"batch": max(_COUNTS)}),
            "ray": config.ray.model_copy(update={"cpus": config.ray.cpus or max(_COUNTS)}),
        }
    )
    each = {"CPU": config.train.cpus_per_worker}
    environment.start_ray(config, each, processes=max(_COUNTS), setting="train")
    work = _Work(config, *spec_and_windows(config, pair))
    storage = join(config.output, "benchmark", "ray")
    uses = {
        count: run_on_workers(
            work, Workers(count, cpus=each["CPU"]), storage=storage, on_message=lambda message: None
        )
        for count in _COUNTS
    }
    return ShardMemory(pair, config.preset, config.training.parallel.sharding, uses)
