"""How a model is laid out over ranks: FSDP2 per block, on a mesh that makes it DDP, FSDP or HSDP."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from pipeline.config import ParallelSettings, TrainingSettings
from pipeline.errors import UserError
from pipeline.models.family import SuperResolutionModel
from pipeline.ranks import Ranks

log = logging.getLogger(__name__)


def layout(settings: ParallelSettings, world: int, per_node: int) -> tuple[int, int]:
    """Give (copies, ranks per copy): DDP is one rank per copy, FSDP one copy, HSDP what lies between.

    Raises
    ------
    UserError
        If copies of the wanted size do not fill the ranks.
    """
    kind: str = settings.sharding
    if kind == "auto":  # the gathering of weights stays on a machine's fast links
        kind = "hsdp" if 1 < per_node < world and world % per_node == 0 else "fsdp"
    if kind == "hsdp":
        size = settings.shard_size or per_node
        if size == 1 < world:  # machines of different sizes: a copy per rank was not what was asked for
            log.warning("hsdp: the machines' numbers of ranks have no common divisor; fsdp takes its place")
            return 1, world
        if world % size:
            raise UserError(
                f"training.parallel.shard_size: {world} ranks are not copies of {size}; "
                f"give a divisor of {world}, or sharding=fsdp"
            )
        return world // size, size
    return (world, 1) if kind == "ddp" else (1, world)


def mesh_of(ranks: Ranks, settings: ParallelSettings) -> DeviceMesh | None:
    """Make the mesh of all ranks; none for a rank alone, which needs no sharding."""
    if ranks.alone:
        return None
    shape = layout(settings, ranks.world, ranks.per_node)
    return init_device_mesh(ranks.device.type, shape, mesh_dim_names=("replicate", "shard"))


def lay_out(model: SuperResolutionModel, settings: TrainingSettings, ranks: Ranks) -> None:
    """Make a model ready for training on these ranks, in place: recomputed, compiled, sharded by block.

    Parameters
    ----------
    model : SuperResolutionModel
        With the same weights everywhere and `requires_grad` as the stage wants it; on the device if the rank
        is alone, else on the CPU, from where each block goes there when it is sharded.
    settings : TrainingSettings
    ranks : Ranks
    """
    mesh = mesh_of(ranks, settings.parallel)
    low = computes_in_bfloat16(settings, ranks.device)
    # Weights travel in bfloat16, gradients are added up in float32; activations are autocast's affair.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if low else None,
        reduce_dtype=torch.float32 if low else None,
        cast_forward_inputs=False,
    )
    blocks = list(model.blocks())
    if settings.parallel.compile:  # blocks of a kind share their code, and each has shapes of its own
        limit = 4 * len(blocks)
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
    for block in blocks:
        if settings.parallel.recompute:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        if settings.parallel.compile:
            block.compile(dynamic=False)  # a stage has two shapes at most
        if mesh is not None:
            fully_shard(block, mesh=mesh, mp_policy=policy)
    if mesh is not None:
        fully_shard(model, mesh=mesh, mp_policy=policy)
        for method in ("loss", "prepare"):  # which are called in place of forward
            register_fsdp_forward_method(model, method)


def computes_in_bfloat16(settings: TrainingSettings, device: torch.device) -> bool:
    """Tell whether the networks' arithmetic is bfloat16."""
    if settings.precision == "auto":
        if device.type != "cuda":
            return False
        # Where there is no GPU, what is asked about is a worker's.
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return settings.precision == "bfloat16"


def arithmetic(settings: TrainingSettings, device: torch.device) -> AbstractContextManager[None]:
    """Give the context that the networks compute in."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled=computes_in_bfloat16(settings, device), cache_enabled=False
    )


def reduce_gradients(model: nn.Module, now: bool) -> None:
    """Say whether the next backward pass adds up gradients over ranks: only a step's last one has to."""
    for module in model.modules():  # parts that this stage does not train have nothing to hold back
        if isinstance(module, FSDPModule) and any(p.requires_grad for p in module.parameters()):
            module.set_requires_gradient_sync(now, recurse=False)


def local(tensor: Tensor) -> Tensor:
    """Give this rank's part of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor from all ranks; any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Add up what this rank holds of some tensors."""
    return sum(part.numel() * part.element_size() for part in map(local, tensors))
