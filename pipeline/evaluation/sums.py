"""Sums of many statistics per block of windows: streamed batch by batch, saved as bytes.

A metric such as the RMSE or the FSS is no mean over batches, but it is a function of sums over windows
(weatherbenchX's Statistic and Metric). Windows that see the same weather, a *block*, share one row of sums: a
bootstrap draws blocks, so nothing finer is needed, and memory does not grow with the number of windows.

Shapes: B windows, M members, T = tau fine frames, H x W fine pixels, h x w coarse cells (H = s h, W = s w).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation.statistics import double, filled
from pipeline.factors import FactorPair

WINDOWS = "windows"
"""Name of the sum that counts the windows of each block."""


@dataclass(frozen=True)
class Scored:
    """One batch of one field, as statistics see it.

    Attributes
    ----------
    members : Tensor
        (B, M, T, H, W), physical units, any device; M = 1 for a field without uncertainty. NaN or anything
        where masked: only conservation, which is one of whole coarse cells, looks at finite values there.
    truth : Tensor
        (B, T, H, W), same units; NaN or anything where masked.
    mask : Tensor
        (B, T, H, W), bool, True = valid.
    coarse : Tensor
        (B, h, w), the coarse frame that was refined; NaN or anything where masked.
    coarse_mask : Tensor
        (B, h, w), bool.
    pair : FactorPair

    Raises
    ------
    ValueError
        If the shapes do not belong together, or a mask is not bool.
    """

    members: Tensor
    truth: Tensor
    mask: Tensor
    coarse: Tensor
    coarse_mask: Tensor
    pair: FactorPair

    def __post_init__(self) -> None:
        h, w = self.coarse.shape[-2:]
        expected = (len(self.coarse), self.pair.time, h * self.pair.space, w * self.pair.space)
        fine = (self.members[:, 0].shape, self.truth.shape, self.mask.shape)
        if any(shape != expected for shape in fine) or self.coarse_mask.shape != self.coarse.shape:
            raise ValueError(
                f"members {tuple(self.members.shape)}, truth {tuple(self.truth.shape)}, mask "
                f"{tuple(self.mask.shape)} and coarse {tuple(self.coarse.shape)} do not belong together for "
                f"pair {self.pair}: expected (B, T, H, W) = {expected}"
            )
        if self.mask.dtype != torch.bool or self.coarse_mask.dtype != torch.bool:
            raise ValueError("masks must be bool with True = valid")

    @property
    def ensemble_size(self) -> int:
        """M."""
        return self.members.shape[1]

    @cached_property
    def filled_members(self) -> Tensor:
        """The members with 0 where masked, in single precision at least."""
        return filled(self.members, self.mask.unsqueeze(1))

    @cached_property
    def filled_truth(self) -> Tensor:
        """The truth with 0 where masked, in single precision at least."""
        return filled(self.truth, self.mask)

    @cached_property
    def weight(self) -> Tensor:
        """Number of valid pixels of each window, (B,), float64."""
        return double(self.mask.sum(dim=(1, 2, 3)))

    @cached_property
    def broken(self) -> Tensor:
        """Which windows have a valid value that is NaN or infinite, (B,), bool."""
        members = self.filled_members.isfinite().flatten(1).all(dim=1)
        return ~(members & self.filled_truth.isfinite().flatten(1).all(dim=1))


class Statistic(Protocol):
    """What is summed over windows; small frozen dataclasses with their settings."""

    @property
    def name(self) -> str:
        """What its sums are found under, as `name.sum`."""
        ...

    def sums(self, scored: Scored) -> dict[str, Tensor]:
        """Give sums per window, each (B, ...), float64; additive over windows."""
        ...


class BlockSums:
    """Sums of statistics, one row per block.

    Parameters
    ----------
    statistics : sequence of Statistic
        With different names.
    blocks : int
        How many rows.

    Attributes
    ----------
    sums : dict
        "statistic.sum" to (blocks, ...), float64, on the CPU; "windows" to (blocks,). Only "windows" before
        the first batch. A window with a NaN or infinite value at a valid pixel, a bug upstream, makes its
        block's sums NaN: it is not hidden.
    """

    def __init__(self, statistics: Sequence[Statistic], blocks: int) -> None:
        self._statistics = tuple(statistics)
        names = [statistic.name for statistic in self._statistics]
        if len(set(names)) < len(names):
            raise ValueError(f"statistics of the same name: {sorted(names)}")
        self.described = tuple(repr(statistic) for statistic in self._statistics)
        self.sums: dict[str, Tensor] = {WINDOWS: torch.zeros(blocks, dtype=torch.float64)}

    @property
    def blocks(self) -> int:
        """How many rows there are."""
        return len(self.sums[WINDOWS])

    @torch.no_grad()
    def add(self, scored: Scored, block: Tensor) -> None:
        """Add a batch.

        Parameters
        ----------
        scored : Scored
        block : Tensor
            (B,), int64: each window's row.

        Raises
        ------
        ValueError
            If a row does not exist, or the shape of a sum differs from that of batches before.
        """
        block = block.cpu()
        if block.shape != scored.truth.shape[:1] or bool(((block < 0) | (block >= self.blocks)).any()):
            raise ValueError(
                f"blocks {block.tolist()} for {len(scored.truth)} windows and {self.blocks} rows"
            )
        self.sums[WINDOWS].index_add_(0, block, torch.ones(len(block), dtype=torch.float64))
        broken = scored.broken.cpu()
        for statistic in self._statistics:
            for name, found in statistic.sums(scored).items():
                values = found.detach().double().cpu()
                values[broken] = torch.nan
                key = f"{statistic.name}.{name}"
                if key not in self.sums:
                    self.sums[key] = values.new_zeros((self.blocks, *values.shape[1:]))
                _same_shape(key, self.sums[key], values)
                self.sums[key].index_add_(0, block, values)

    def to_bytes(self) -> bytes:
        """Write everything as safetensors, with what the statistics are as its metadata."""
        metadata = {"statistics": json.dumps(self.described)}
        return bytes(safetensors.torch.save(self.sums, metadata))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` has written, to be put together: no further batch can be added.

        Raises
        ------
        UserError
            If the bytes are damaged.
        """
        try:
            sums = safetensors.torch.load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            described = tuple(json.loads(header["__metadata__"]["statistics"]))
            blocks = len(sums[WINDOWS])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"sums of scores: damaged ({error}); delete the file and score again") from error
        found = cls((), blocks)
        found.described, found.sums = described, dict(sums)
        return found


def total(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add all blocks up: (blocks, ...) to (...)."""
    return {key: values.sum(dim=0) for key, values in sums.items()}


def _same_shape(key: str, one: Tensor, other: Tensor) -> None:
    if one.shape[1:] != other.shape[1:]:
        before, now = tuple(one.shape[1:]), tuple(other.shape[1:])
        raise ValueError(f"{key} has changed its shape from {before} to {now}")
