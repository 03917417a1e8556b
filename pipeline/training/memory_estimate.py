"""What a stage will take, from shapes alone: a micro-batch goes through the model as fake tensors.

Fake tensors have a shape, a type and a size, but no memory. They stand on the CPU, so that an estimate for a
GPU comes out the same on a machine without one; where a GPU would take another path through torch (autocast's
choice of types, attention by `scaled_dot_product_attention`), `_AsOnGpu` takes it too.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from pipeline.config import TrainingSettings
from pipeline.data.batch import Batch
from pipeline.diffusion.noise import StepDraws
from pipeline.models.families import FAMILIES
from pipeline.models.family import ModelSpec, Stage, SuperResolutionModel
from pipeline.ranks import Ranks
from pipeline.training.feed import micro_batch_size
from pipeline.training.memory import MemoryEstimate
from pipeline.training.sharding import arithmetic, computes_in_bfloat16, lay_out

_STEP_COUNT = 4  # bytes: Adam counts its steps per parameter, in a float32


def estimate(
    spec: ModelSpec,
    stage: Stage,
    training: TrainingSettings,
    *,
    patch: int,
    ranks_per_copy: int,
    world: int,
    device_type: str,
) -> MemoryEstimate:
    """Estimate what the rank that holds most will hold; nothing of the model's size is allocated.

    Parameters
    ----------
    spec : ModelSpec
    stage : Stage
    training : TrainingSettings
    patch : int
        Side of a window in fine pixels.
    ranks_per_copy : int
        Ranks that hold one copy of the model together (`sharding.layout`).
    world : int
        All ranks, which share the batch.
    device_type : str
        "cpu" or "cuda".
    """
    low = computes_in_bfloat16(training, torch.device(device_type))
    windows = micro_batch_size(training, world)
    with rehearsal(
        spec, stage, training, patch=patch, windows=windows, device_type=device_type, sharded=world > 1
    ) as run:
        shapes = {name: p.shape for name, p in run.model.named_parameters()}
        blocks = [list(block.parameters()) for block in run.model.blocks()]
        sizes = [_count(p.shape for p in block) for block in blocks]
        trained = [_count(p.shape for p in block if p.requires_grad) for block in blocks]
        activations, peak = _saved_and_peak(run)

    held = {name: 4 * _largest_shard(shape, ranks_per_copy) for name, shape in shapes.items()}
    owned = [size for name, size in held.items() if stage.owns(name)]
    gathered = 0
    if world > 1:
        # What is in no block stays gathered; the next block comes while one is at work.
        weights = _count(shapes.values()) - sum(sizes) + 2 * max(sizes)
        whole = _count(shape for name, shape in shapes.items() if stage.owns(name))
        unreduced = whole if training.parallel.accumulate > 1 else max(trained)
        gathered = (2 if low else 4) * weights + 4 * unreduced  # gradients are added up in float32
    return MemoryEstimate(
        stage=stage.name,
        parameters=sum(held.values()),
        gradients=sum(owned),
        optimizer=sum(2 * size + _STEP_COUNT for size in owned),
        average=sum(owned),
        activations=activations,
        passing=max(0, peak - activations),
        gathered=gathered,
    )


def _count(shapes: Iterable[torch.Size]) -> int:
    return sum(shape.numel() for shape in shapes)


def _largest_shard(shape: torch.Size, ranks: int) -> int:
    """Count the values of the first rank's part: FSDP2 cuts dimension 0 in chunks of ceil(n / ranks)."""
    return -(-shape[0] // ranks) * shape[1:].numel()


@dataclass(frozen=True)
class Rehearsal:
    """A model and a micro-batch made of fake tensors.

    Attributes
    ----------
    model : SuperResolutionModel
    loss : callable
        Gives the stage's loss of the micro-batch, a scalar with its gradient.
    """

    model: SuperResolutionModel
    loss: Callable[[], Tensor]


@contextmanager
def rehearsal(
    spec: ModelSpec,
    stage: Stage,
    training: TrainingSettings,
    *,
    patch: int,
    windows: int,
    device_type: str,
    sharded: bool = False,
) -> Iterator[Rehearsal]:
    """Make everything that a micro-batch of a stage needs out of fake tensors, and stay among them.

    Parameters
    ----------
    spec : ModelSpec
    stage : Stage
    training : TrainingSettings
        Its `parallel.recompute` and `precision` are kept to.
    patch : int
        Side of a window in fine pixels.
    windows : int
        In the micro-batch.
    device_type : str
        "cpu" or "cuda".
    sharded : bool
        The weights are gathered in bfloat16 where the arithmetic is bfloat16, as FSDP gathers them.
    """
    low = computes_in_bfloat16(training, torch.device(device_type))
    kept = training.parallel.model_copy(update={"compile": False})
    there = training.model_copy(update={"precision": "bfloat16" if low else "float32", "parallel": kept})
    with FakeTensorMode():
        with warnings.catch_warnings():  # of the deep copies that `_renew` replaces
            warnings.simplefilter("ignore", UserWarning)
            model = FAMILIES[spec.settings.family](spec).train()
        _renew(model, torch.bfloat16 if low and sharded else torch.float32)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(stage.owns(name))
        on_device = functools.partial(_AsOnGpu, low) if device_type == "cuda" else nullcontext
        for block in model.blocks():  # each by itself: it is also called again where it is recomputed
            block.forward = _within(on_device, block.forward)
        lay_out(model, there, Ranks())
        batch = _fake_batch(spec, windows, patch)
        draws = _FakeDraws(0, stage.name, 0, windows, range(windows))

        def loss() -> Tensor:
            with on_device(), arithmetic(there, torch.device("cpu")):
                return model.loss(stage.name, batch, draws).total

        yield Rehearsal(model, loss)


def _within(
    context: Callable[[], AbstractContextManager[Any]], call: Callable[..., Any]
) -> Callable[..., Any]:
    def within(*args: Any, **kwargs: Any) -> Any:
        with context():
            return call(*args, **kwargs)

    return within


def _renew(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace all weights by unset ones.

    `nn.TransformerEncoder` deep-copies its layers, and copies of fake tensors belong to no mode in use.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, dtype=dtype)))


def _fake_batch(spec: ModelSpec, windows: int, patch: int) -> Batch:
    fine = (windows, spec.pair.time, patch, patch)
    side = patch // spec.pair.space
    coarse = (windows, spec.parameters.context, side, side)
    return Batch(
        fine=torch.empty(fine),
        mask=torch.empty(fine, dtype=torch.bool),
        coarse=torch.empty(coarse),
        coarse_mask=torch.empty(coarse, dtype=torch.bool),
        statics=torch.empty(windows, len(spec.statics), patch, patch),
        dynamics=torch.empty(windows, coarse[1], len(spec.dynamics), side, side),
        position=torch.empty(windows, 3, dtype=torch.int64),
        weights=torch.empty(windows),
    )


class _FakeDraws(StepDraws):
    """Draws of the right shape; real ones would be computed."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(len(self.numbers), *shape)

    def times(self, steps: int) -> Tensor:
        return torch.empty(len(self.numbers), dtype=torch.int64)


class _AsOnGpu(TorchFunctionMode):
    """Answer as on a GPU: `is_cuda`, and autocast's float32 where the CPU's keeps bfloat16."""

    def __init__(self, low: bool) -> None:
        super().__init__()
        self._low = low

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if self._low and torch.is_autocast_enabled("cpu"):
            name = getattr(func, "__name__", "")
            if name in ("group_norm", "layer_norm"):
                args = tuple(a.float() if isinstance(a, Tensor) else a for a in args)
                kwargs = {k: a.float() if isinstance(a, Tensor) else a for k, a in kwargs.items()}
            elif name in ("softmax", "sum") and args[0].is_floating_point():
                kwargs = {"dtype": torch.float32} | kwargs
        return func(*args, **kwargs)


@dataclass
class _Alive(TorchDispatchMode):
    """Count the bytes of all storages that live at once and were made under it."""

    now: int = 0
    peak: int = 0
    _known: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage())
        return made

    def ignore(self, tensor: Tensor) -> None:
        """Take a tensor for one that was there before."""
        self._known.add(tensor.untyped_storage()._cdata)

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _saved_and_peak(run: Rehearsal) -> tuple[int, int]:
    """Count the bytes that a forward pass keeps, parameters apart, and the most that lives at once."""
    own = {p.untyped_storage()._cdata for p in run.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    alive = _Alive()
    for parameter in run.model.parameters():
        alive.ignore(parameter)
    with alive:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = run.loss()
        saved = sum(kept.values())  # none of them is freed before here, so no address counts twice
        loss.backward()
    return saved, alive.peak
