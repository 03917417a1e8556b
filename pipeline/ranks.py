"""The processes that train or score one model together, as one of them sees it: plain `torch.distributed`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """One process among `world`; alone by default, and then nothing is communicated.

    Attributes
    ----------
    rank : int
    world : int
    device : torch.device
        Where this process computes.
    per_node : int
        Ranks on one machine, which share its fast links.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = _CPU
    per_node: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and reports."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1

    def share(self, items: range) -> range:
        """Give this rank's part of some items: contiguous, no item twice or left out, sizes within one."""
        return part(items, self.rank, self.world)

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over all ranks, in place."""
        if not self.alone:
            dist.all_reduce(values)
        return values

    def agree(self, value: T) -> T:
        """Give all ranks what the first has."""
        if self.alone:
            return value
        box = [value if self.main else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Give all ranks what each has, in the order of ranks."""
        if self.alone:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        if not self.alone:
            dist.barrier()


def part(items: range, number: int, count: int) -> range:
    """Cut items into `count` contiguous parts, sizes within one, and give one of them."""
    return items[number * len(items) // count : (number + 1) * len(items) // count]
