"""The contract between a model family and everything that trains, tunes and samples it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pipeline.config import ModelSettings, SamplingSettings, TrainingSettings
from pipeline.data.batch import Batch
from pipeline.diffusion.noise import StepDraws
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


class SuperResolutionModel(nn.Module, ABC):
    """What every family implements.

    Every family sees all covariates of its specification: `batch.statics` at the fine resolution and, for
    each of the L frames, `batch.dynamics` at the coarse one. They come standardised, and 0 is their mean and
    stands for a missing value, so a family needs no mask for them. Every loss counts a window
    `batch.weights` times (see `Loss`).
    """

    spec: ModelSpec

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
    def sample(self, batch: Batch, sampling: SamplingSettings, seed: int) -> Tensor:
        """Draw an ensemble (B, members, tau, H, W) in physical units; a member depends on seed and place."""

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
