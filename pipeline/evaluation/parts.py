"""What scoring one chunk of windows gives, and the folder that keeps it until all chunks are there.

A part is its SHA-256 and then a safetensors file: half a part, or one with a flipped bit, is never read as a
whole one. Parts of an evaluation lie in a folder named by everything that decides what is in them, so the
same command carries on with what it finds, and another never takes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation.sums import BlockSums
from pipeline.files import join, list_folder, read_bytes, write_bytes

_DIGEST = 64  # hex digits
_SUMS, _WINDOWS, _ROWS = "sums/", "windows/", "rows"


class DamagedPartError(Exception):
    """A part that is not what was written."""


@dataclass(frozen=True)
class Part:
    """The scores of some windows.

    Attributes
    ----------
    rows : Tensor
        (k,) int64: the blocks that these windows are in; row i of every sum is block `rows[i]`.
    sums : dict of str to BlockSums
        By field (`ensemble`, `bicubic`, ...), each with k blocks.
    windows : dict of str to Tensor
        What is kept window by window, (n, ...).
    """

    rows: Tensor
    sums: dict[str, BlockSums]
    windows: dict[str, Tensor]

    def to_bytes(self) -> bytes:
        """Write it, with its digest before it."""
        tensors = {_ROWS: self.rows}
        for name, one in self.sums.items():
            tensors[_SUMS + name] = torch.frombuffer(bytearray(one.to_bytes()), dtype=torch.uint8)
        tensors |= {_WINDOWS + name: values.contiguous() for name, values in self.windows.items()}
        content = bytes(safetensors.torch.save(tensors))
        return hashlib.sha256(content).hexdigest().encode() + content

    @classmethod
    def from_bytes(cls, data: bytes) -> Part:
        """Read it.

        Raises
        ------
        DamagedPartError
            If it is not what was written.
        """
        digest, content = data[:_DIGEST], data[_DIGEST:]
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise DamagedPartError
        tensors = safetensors.torch.load(content)
        return cls(
            rows=tensors[_ROWS],
            sums={
                name: BlockSums.from_bytes(values.numpy().tobytes())
                for name, values in _under(_SUMS, tensors).items()
            },
            windows=_under(_WINDOWS, tensors),
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def merged(parts: Iterable[Part], blocks: int) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Put parts together, one at a time.

    Parameters
    ----------
    parts : iterable of Part
        In the order of their windows.
    blocks : int
        How many there are in all.

    Returns
    -------
    sums : dict
        By field, then "statistic.sum" to (blocks, ...), float64.
    windows : dict
        What is kept window by window, in order.

    Raises
    ------
    ValueError
        If the parts sum up different statistics.
    """
    sums: dict[str, dict[str, Tensor]] = {}
    described: dict[str, tuple[str, ...]] = {}
    windows: dict[str, list[Tensor]] = {}
    for part in parts:
        for field, one in part.sums.items():
            if described.setdefault(field, one.described) != one.described:
                raise ValueError(f"cannot put sums of {one.described} to those of {described[field]}")
            found = sums.setdefault(field, {})
            for name, values in one.sums.items():
                whole = found.setdefault(name, values.new_zeros(blocks, *values.shape[1:]))
                whole.index_add_(0, part.rows, values)
        for name, values in part.windows.items():
            windows.setdefault(name, []).append(values)
    return sums, {name: torch.cat(values) for name, values in windows.items()}


@dataclass(frozen=True)
class PartFolder:
    """The parts of one model, or of the baselines of one pair.

    Attributes
    ----------
    url : str
    chunks : tuple of (int, int)
        First window and the one after the last, of every part that there is to be.
    """

    url: str
    chunks: tuple[tuple[int, int], ...]

    @classmethod
    def under(cls, output: str, decides: Mapping[str, Any], chunks: Iterable[tuple[int, int]]) -> PartFolder:
        """Give the folder of an evaluation.

        Parameters
        ----------
        output : str
        decides : mapping
            Everything that its parts depend on, as JSON takes it.
        chunks : iterable of (int, int)
        """
        text = json.dumps(decides, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(join(output, "parts", key), tuple(chunks))

    def missing(self) -> tuple[list[tuple[int, int]], list[str]]:
        """Give the chunks that are still to be scored, and the files among them that are damaged."""
        there = set(list_folder(self.url))
        missing, damaged = [], []
        for chunk in self.chunks:
            if _name(chunk) in there:
                try:
                    self.read(chunk)
                    continue
                except DamagedPartError as error:
                    damaged.append(str(error))
            missing.append(chunk)
        return missing, damaged

    def write(self, chunk: tuple[int, int], content: bytes) -> None:
        """Keep a part, whole or not at all."""
        write_bytes(self._file(chunk), content)

    def read(self, chunk: tuple[int, int]) -> Part:
        """Read a part.

        Raises
        ------
        DamagedPartError
            With its place.
        """
        file = self._file(chunk)
        try:
            return Part.from_bytes(read_bytes(file))
        except (DamagedPartError, UserError, ValueError, KeyError) as error:
            raise DamagedPartError(file) from error

    def _file(self, chunk: tuple[int, int]) -> str:
        return join(self.url, _name(chunk))


def _name(chunk: tuple[int, int]) -> str:
    first, stop = chunk
    return f"{first:07d}-{stop:07d}.part"
