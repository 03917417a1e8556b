"""Exact counts per window: integers, so the order of adding changes nothing, on a GPU neither."""

from __future__ import annotations

import torch
from torch import Tensor


def count_per_window(bins: Tensor, counted: Tensor, size: int) -> Tensor:
    """Count how often each bin occurs in each window.

    Parameters
    ----------
    bins : Tensor
        (B, ...), int64, from 0 to `size` - 1 where counted.
    counted : Tensor
        (B, ...), bool, of the same shape.
    size : int
        Number of bins.

    Returns
    -------
    Tensor
        (B, size), int64.
    """
    windows = len(bins)
    first = torch.arange(windows, device=bins.device).reshape(-1, *[1] * (bins.ndim - 1)) * (size + 1)
    # What is not counted goes to a last bin of its window instead of being picked out: no copy, no sync.
    flat = (first + torch.where(counted, bins, size)).flatten()
    return torch.bincount(flat, minlength=windows * (size + 1)).reshape(windows, size + 1)[:, :size]
