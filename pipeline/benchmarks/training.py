"""What a training step costs: seconds, memory, arithmetic, and how much of the device's peak it reaches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.benchmarks.pair import the_pair
from pipeline.config import Config, TrainingSettings
from pipeline.data.dataset import open_dataset
from pipeline.data.pair_data import PairData
from pipeline.data.windows import Windows
from pipeline.factors import FactorPair
from pipeline.models.families import build_model, family_stages
from pipeline.models.family import ModelSpec, Stage
from pipeline.prior import paper_prior
from pipeline.ranks import Ranks
from pipeline.training.loop import Hooks, StepReport, train_stage
from pipeline.training.memory import MemoryUse, readable
from pipeline.training.memory_estimate import estimate, rehearsal
from pipeline.training.sharding import computes_in_bfloat16

_WARM_UP, _TIMED = 4, 8  # steps; the second a multiple of the first
_FRAMES = 240  # of synthetic rain: a step costs the same with more of it

# FLOP/s, dense, from the data sheets; by the whole name that CUDA gives, for variants differ.
_BFLOAT16_PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,  # SXM
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA L40S": 362e12,
}


def step_flops(spec: ModelSpec, stage: Stage, training: TrainingSettings, *, patch: int) -> int:
    """Count the floating point operations, forward and backward, of one step of the whole batch.

    Those of convolutions and matrix products, a multiplication and an addition counted as two, on the path
    that a GPU takes. What recomputed blocks cost again is not counted: no model needs it.

    Parameters
    ----------
    spec : ModelSpec
    stage : Stage
    training : TrainingSettings
    patch : int
        Side of a window in fine pixels.
    """
    once = training.model_copy(update={"parallel": training.parallel.model_copy(update={"recompute": False})})
    with rehearsal(spec, stage, once, patch=patch, windows=training.batch, device_type="cuda") as run:
        with FlopCounterMode(display=False) as counter:
            run.loss().backward()
        return int(counter.get_total_flops())


@dataclass(frozen=True)
class StepCost:
    """One stage, with or without `torch.compile`.

    Attributes
    ----------
    stage : str
    compiled : bool
    seconds : float
        Per step, reading windows ahead included; the mean of some steps after a warm-up.
    flops : int
        Per step.
    memory : MemoryUse
    estimated : int
        Bytes that `memory_estimate.estimate` expects at the peak.
    """

    stage: str
    compiled: bool
    seconds: float
    flops: int
    memory: MemoryUse
    estimated: int

    @property
    def rate(self) -> float:
        """FLOP/s."""
        return self.flops / self.seconds


@dataclass(frozen=True)
class TrainStep:
    """What the steps of a model cost on one device.

    Attributes
    ----------
    pair : FactorPair
    device : str
    precision : str
    batch, patch, context : int
    costs : tuple of StepCost
    peak : float or None
        The device's, in bfloat16 FLOP/s.
    """

    pair: FactorPair
    device: str
    precision: str
    batch: int
    patch: int
    context: int
    costs: tuple[StepCost, ...]
    peak: float | None

    def __str__(self) -> str:
        head = (
            f"train-step: {self.pair} on {self.device}, {self.precision}, batch {self.batch}, patch "
            f"{self.patch}, L {self.context}, mean of {_TIMED} steps after {_WARM_UP}"
        )
        return "\n".join([head, *map(self._line, self.costs)])

    def _line(self, cost: StepCost) -> str:
        line = (
            f"  {cost.stage:<9} {'compiled' if cost.compiled else 'eager':<9}{cost.seconds:8.3f} s/step"
            f"{cost.flops / 1e9:11.1f} GFLOP{cost.rate / 1e12:9.3f} TFLOP/s"
            f"   peak {readable(cost.memory.peak)}, estimated {readable(cost.estimated)}"
        )
        return line + (f"   utilisation {cost.rate / self.peak:.1%}" if self.peak else "")


def train_step(config: Config) -> TrainStep:
    """Measure the steps of the one pair that is asked for."""
    return train_step_benchmark(config, the_pair(config))


def train_step_benchmark(
    config: Config, pair: FactorPair, compiled: Sequence[bool] = (False, True)
) -> TrainStep:
    """Take a few steps of each stage on a GPU if there is one, else on the CPU.

    The scale parameters are the paper's prior, with as much of its context as the data have. On a CPU the
    peak is that of the process so far.

    Parameters
    ----------
    config : Config
    pair : FactorPair
    compiled : sequence of bool
        What `training.parallel.compile` is set to, one after the other.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    spec, windows = spec_and_windows(config, pair)
    costs = tuple(
        _cost(spec, stage, windows, config, device, each)
        for stage in family_stages(config.model, config.training)
        for each in compiled
    )
    low = computes_in_bfloat16(config.training, device)
    return TrainStep(
        pair=pair,
        device=name,
        precision="bfloat16" if low else "float32",
        batch=config.training.batch,
        patch=config.data.patch,
        context=spec.parameters.context,
        costs=costs,
        peak=_BFLOAT16_PEAKS.get(name),
    )


def spec_and_windows(config: Config, pair: FactorPair) -> tuple[ModelSpec, Windows]:
    """Give a model to measure, with the paper's values, and the training windows of a short data set."""
    synthetic = config.data.synthetic
    frames = min(synthetic.frames, _FRAMES)
    settings = config.data.model_copy(update={"synthetic": synthetic.model_copy(update={"frames": frames})})
    store = open_dataset(settings, config.output)
    parameters = paper_prior(pair)
    data = PairData.prepare(store, pair, settings, parameters.context)
    context = min(parameters.context, config.tuning.max_context, data.max_context)
    parameters = parameters.model_copy(update={"context": context})
    return ModelSpec.fitted(data, parameters, config.model), data.training_windows(context)


def _cost(
    spec: ModelSpec, stage: Stage, windows: Windows, config: Config, device: torch.device, compiled: bool
) -> StepCost:
    parallel = config.training.parallel.model_copy(update={"compile": compiled})
    settings = config.training.model_copy(
        # A report waits for the device: there has to be one where the timing starts and one where it ends.
        update={"parallel": parallel, "report_every": _WARM_UP}
    )
    times: list[float] = []
    uses: list[MemoryUse] = []

    def note_time(report: StepReport) -> None:
        times.append(time.perf_counter())

    torch.compiler.reset()  # what another stage has compiled is not this one's
    train_stage(
        build_model(spec, config.seed),
        replace(stage, steps=_WARM_UP + _TIMED),
        windows,
        settings,
        seed=config.seed,
        ranks=Ranks(device=device),
        hooks=Hooks(on_report=note_time, on_memory=lambda name, ranks: uses.extend(ranks)),
    )
    return StepCost(
        stage=stage.name,
        compiled=compiled,
        seconds=(times[-1] - times[0]) / _TIMED,
        flops=step_flops(spec, stage, config.training, patch=config.data.patch),
        memory=uses[0],
        estimated=estimate(
            spec, stage, config.training, patch=config.data.patch, ranks_per_copy=1, world=1,
            device_type=device.type,
        ).total,
    )  # fmt: skip
