"""How much memory a training takes per rank: what was estimated before it, what was measured at its end."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import UserError

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # v2, v1


@dataclass(frozen=True)
class MemoryUse:
    """What one rank holds, in bytes.

    Attributes
    ----------
    parameters, gradients, optimizer, average : int
    peak : int
        Most that the device has allocated in this stage; on a CPU, most that the process has ever occupied.
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    peak: int

    @property
    def sharded(self) -> int:
        """Parameters, gradients and optimizer state: what FSDP divides by the number of ranks."""
        return self.parameters + self.gradients + self.optimizer


@dataclass(frozen=True)
class MemoryEstimate:
    """What the rank that holds most will hold in a stage, in bytes.

    Attributes
    ----------
    stage : str
    parameters, gradients, optimizer, average : int
        As in `MemoryUse`; exact.
    activations : int
        What the forward pass of one micro-batch keeps for its backward pass.
    passing : int
        Most that lives beside that at once: temporary values, gradients of activations, a recomputed block.
    gathered : int
        What FSDP holds whole for a while: weights of the block at work and of the next, and gradients that
        have not been reduced; those of all blocks if gradients are accumulated over micro-batches.
    """

    stage: str
    parameters: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    passing: int
    gathered: int

    @property
    def total(self) -> int:
        """All of it. The libraries' own workspaces and an allocator's gaps come on top."""
        held = self.parameters + self.gradients + self.optimizer + self.average
        return held + self.activations + self.passing + self.gathered


def start_measuring(device: torch.device) -> None:
    """Count the peak from here on, where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def measured(held: dict[str, int], device: torch.device) -> MemoryUse:
    """Give what this rank holds and the most it has allocated."""
    if device.type == "cuda":
        return MemoryUse(**held, peak=torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return MemoryUse(**held, peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def describe(estimates: Sequence[MemoryEstimate]) -> str:
    """Say what each stage will take per rank, a line each, for a person to read before it starts."""
    return "\n".join(
        f"memory per rank, stage {one.stage}: about {readable(one.total)} = {_held(one)}"
        f" + activations {readable(one.activations)} + passing {readable(one.passing)}"
        + (f" + gathered {readable(one.gathered)}" if one.gathered else "")
        for one in estimates
    )


def describe_measured(stage: str, uses: Sequence[MemoryUse]) -> str:
    """Say what a stage took on the rank that held most, in one line.

    Parameters
    ----------
    stage : str
    uses : sequence of MemoryUse
        One per rank.
    """
    most = max(uses, key=lambda use: use.sharded + use.average)
    ranks = f"largest of {len(uses)} ranks" if len(uses) > 1 else "one rank"
    return f"memory of stage {stage}, {ranks}: {_held(most)}; peak {readable(max(use.peak for use in uses))}"


def check_fits(estimate: MemoryEstimate, available: int, where: str) -> None:
    """Refuse a stage that cannot fit, before anything is allocated.

    Parameters
    ----------
    estimate : MemoryEstimate
    available : int
        Bytes that one rank may use.
    where : str
        What has them, as in "cuda:0 of node-3".

    Raises
    ------
    UserError
        If the estimate is above what is available.
    """
    if estimate.total > available:
        raise UserError(
            f"stage {estimate.stage}: about {_gib(estimate.total)} per rank, but {where} has "
            f"{_gib(available)}; give more workers with training.parallel.sharding=fsdp, a larger "
            "training.parallel.accumulate, training.parallel.recompute=true, or a smaller training.batch or "
            "data.patch"
        )


def available_memory(device: torch.device) -> int:
    """Give the memory of a GPU, or that of this machine (of this container, if it has a limit), in bytes.

    Ranks that share the machine or the GPU share it.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_container_limits()])


def _container_limits() -> list[int]:
    texts = [Path(path).read_text().strip() for path in _CGROUP_LIMITS if Path(path).is_file()]
    return [int(text) for text in texts if text.isdigit()]  # "max" is none


def readable(count: int) -> str:
    """Write bytes as MiB or GiB."""
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else _gib(count)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def _held(one: MemoryUse | MemoryEstimate) -> str:
    return (
        f"parameters {readable(one.parameters)} + gradients {readable(one.gradients)}"
        f" + optimizer {readable(one.optimizer)} + average {readable(one.average)}"
    )
