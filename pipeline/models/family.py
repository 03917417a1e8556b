"""The contract between a model family and everything that trains, tunes and samples it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.config import ModelSettings, SamplingSettings, TrainingSettings
from pipeline.data.batch import Batch
from pipeline.diffusion.noise import StepDraws, field_noise
from pipeline.diffusion.samplers import SAMPLERS, run
from pipeline.diffusion.schedule import Schedule
from pipeline.factors import FactorPair, ScaleParameters

if TYPE_CHECKING:
    from pipeline.data.covariates import Covariate
    from pipeline.data.pair_data import PairData
    from pipeline.data.scaling import ValueTransform


SCALE_PARAMETERS = frozenset(ScaleParameters.model_fields)


@dataclass(frozen=True)
class Stage:
    """One training stage of a family.

    Attributes
    ----------
    name : str
    trains : tuple of str
        Names of the submodules whose parameters it trains; all others stay fixed.
    depends_on : frozenset of str
        The scale parameters (of `beta`, `context`, `conservation`) that its weights depend on. Trials that
        agree in these share one trained stage.
    steps : int
    """

    name: str
    trains: tuple[str, ...]
    depends_on: frozenset[str]
    steps: int

    @property
    def shareable(self) -> bool:
        """Whether it can serve a second trial: only what depends on fewer than all scale parameters can."""
        return self.depends_on < SCALE_PARAMETERS

    def owns(self, name: str) -> bool:
        """Whether it trains the parameter, or prepares the buffer, of this name."""
        return name.split(".")[0] in self.trains


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build an untrained model; what is stored beside its weights.

    Attributes
    ----------
    pair : FactorPair
    parameters : ScaleParameters
    settings : ModelSettings
    transform : ValueTransform
        Fitted on training data.
    scale : float
        Largest coarse training value: the amount that x = 1 stands for in f(x).
    statics, dynamics : tuple of Covariate
        Static and dynamic covariates, in channel order, with the training data's mean and spread.
    """

    pair: FactorPair
    parameters: ScaleParameters
    settings: ModelSettings
    transform: ValueTransform
    scale: float
    statics: tuple[Covariate, ...] = ()
    dynamics: tuple[Covariate, ...] = ()

    @classmethod
    def fitted(cls, data: PairData, parameters: ScaleParameters, settings: ModelSettings) -> ModelSpec:
        """Specify a model for the data of a pair, with what was fitted to them."""
        known = data.covariates
        return cls(data.pair, parameters, settings, data.transform, data.scale, known.statics, known.dynamics)


@dataclass(frozen=True)
class Loss:
    """A masked loss that adds up over windows, micro-batches and ranks, whatever each of them misses.

    Attributes
    ----------
    total : Tensor
        Scalar, float32: the sum over all valid values, each window's times its `batch.weights`, with its
        gradient.
    weight : Tensor
        Scalar: the number of valid values, whatever their windows' weights: with importance sampling the
        expected loss is then that of uniform sampling.
    """

    total: Tensor
    weight: Tensor

    @property
    def mean(self) -> Tensor:
        """The loss per valid value; 0 if there is none."""
        return self.total / self.weight.clamp(min=1)


@dataclass(frozen=True)
class Look:
    """What a model sees in a batch of windows before any noise: computed once, and small enough to be kept.

    Attributes
    ----------
    centre : Tensor
        (B, tau, H, W): what samples are drawn around, in the units in which windows are joined.
    context : Tensor
        (B, ...): what it needs of the earlier frames.
    """

    centre: Tensor
    context: Tensor


Guide = Callable[[Tensor, int], Tensor]
"""Predicts, from noisy fields (B members, tau, H, W) and one time, the clean ones; members innermost."""


class SuperResolutionModel(nn.Module, ABC):
    """What every family implements.

    Every family sees all covariates of its specification: `batch.statics` at the fine resolution and, for
    each of the L frames, `batch.dynamics` at the coarse one. They come standardised, and 0 is their mean and
    stands for a missing value, so a family needs no mask for them. Every loss counts a window
    `batch.weights` times (see `Loss`).
    """

    spec: ModelSpec
    schedule: Schedule

    @staticmethod
    @abstractmethod
    def stages(settings: ModelSettings, training: TrainingSettings) -> tuple[Stage, ...]:
        """List the training stages in order."""

    @abstractmethod
    def prepare(self, stage: str, batches: Iterable[Batch]) -> None:
        """Compute what a stage needs from training batches before it starts, such as a residual's scale."""

    @abstractmethod
    def loss(self, stage: str, batch: Batch, draws: StepDraws) -> Loss:
        """Give a stage's masked training loss; all randomness is that of `draws` (on the CPU)."""

    @abstractmethod
    def blocks(self) -> Iterator[nn.Module]:
        """Give the modules that are sharded, compiled and recomputed as units, none inside another."""

    @abstractmethod
    def predict_mean(self, batch: Batch) -> Tensor:
        """Give the deterministic prediction (B, tau, H, W) in physical units."""

    @abstractmethod
    def look(self, batch: Batch) -> Look:
        """Compute what does not depend on the noise."""

    @abstractmethod
    def guide(self, batch: Batch, look: Look, members: int) -> Guide:
        """Prepare the denoising of `members` fields per window; only the last coarse frame is looked at."""

    @abstractmethod
    def compose(self, centre: Tensor, clean: Tensor) -> Tensor:
        """Put a centre and clean fields of one shape together, in physical units, not yet conserving.

        Pixel by pixel, so that pieces of a field can be composed.
        """

    @abstractmethod
    def finish(self, field: Tensor, batch: Batch, members: int = 1) -> Tensor:
        """Make composed fields (B members, tau, H, W), members innermost, conserve the coarse amounts."""

    def sample(self, batch: Batch, sampling: SamplingSettings, seed: int) -> Tensor:
        """Draw an ensemble (B, members, tau, H, W) in physical units; a member depends on seed and place."""
        B, M = len(batch), sampling.members
        look = self.look(batch)
        # (B, ...) becomes (B M, ...), members innermost
        places = [(t, y, x, m) for t, y, x in batch.position.tolist() for m in range(M)]

        def noise(draw: int) -> Tensor:
            shape = (self.spec.pair.time, *look.centre.shape[-2:])
            drawn = [field_noise(seed, m, time=t, y=y, x=x, shape=shape, draw=draw) for t, y, x, m in places]
            return torch.stack(drawn).to(look.centre.device)

        updates = SAMPLERS[sampling.sampler](self.schedule, sampling.steps)
        clean = run(updates, self.guide(batch, look, M), noise(0), lambda k: noise(k + 1))
        field = self.compose(look.centre.repeat_interleave(M, dim=0), clean)
        return self.finish(field, batch, members=M).unflatten(0, (B, M))

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """Give the weights and buffers that a stage trained or prepared."""
        return {k: v for k, v in self.state_dict().items() if stage.owns(k)}

    def load_stage(self, stage: Stage, state: dict[str, Tensor]) -> None:
        """Load what `stage_state` gave.

        Raises
        ------
        ValueError
            If the names differ from this model's.
        """
        expected = self.stage_state(stage).keys()
        if state.keys() != expected:
            odd = sorted(state.keys() ^ expected)
            raise ValueError(f"stage {stage.name}: {len(odd)} names differ from the model's, first {odd[0]}")
        self.load_state_dict(state, strict=False)
