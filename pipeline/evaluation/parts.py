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
from safetensors import SafetensorError
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation.statistics import ConservationStatistics
from pipeline.evaluation.sums import BlockSums
from pipeline.storage.files import join, list_folder, read_bytes, write_bytes

_DIGEST = 64  # hex digits
_SUMS, _WINDOWS, _ROWS = "sums/", "windows/", "rows"

Bounds = tuple[int, int]
"""First window of a chunk and the one after its last."""


class DamagedPartError(Exception):
    """A part that is not what was written."""


@dataclass(frozen=True)
class WindowScores(ConservationStatistics):
    """What is known of an ensemble window by window: 40 bytes for each, whatever is scored.

    Attributes
    ----------
    crps : Tensor
        (B,), mean over the window's valid pixels; NaN without any.
    """

    crps: Tensor


@dataclass(frozen=True)
class Part:
    """The scores of some windows.

    Attributes
    ----------
    rows : Tensor
        (k,) int64: the blocks that these windows are in; row i of every sum is block `rows[i]`.
    sums : dict of str to BlockSums
        By field (`ensemble`, `bicubic`, ...), each with k blocks.
    windows : WindowScores or None
        Of an ensemble.
    """

    rows: Tensor
    sums: dict[str, BlockSums]
    windows: WindowScores | None

    def to_bytes(self) -> bytes:
        """Write it, with its digest before it."""
        tensors = {_ROWS: self.rows}
        for name, one in self.sums.items():
            tensors[_SUMS + name] = torch.frombuffer(bytearray(one.to_bytes()), dtype=torch.uint8)
        if self.windows is not None:
            tensors |= {_WINDOWS + name: values.contiguous() for name, values in vars(self.windows).items()}
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
        try:
            tensors = safetensors.torch.load(content)
            sums = {
                name: BlockSums.from_bytes(values.numpy().tobytes())
                for name, values in _under(_SUMS, tensors).items()
            }
            windows = _under(_WINDOWS, tensors)
            return cls(tensors[_ROWS], sums, WindowScores(**windows) if windows else None)
        except (SafetensorError, UserError, KeyError, TypeError) as error:
            raise DamagedPartError from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def merged(parts: Iterable[Part], blocks: int) -> tuple[dict[str, dict[str, Tensor]], WindowScores | None]:
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
    windows : WindowScores or None
        In order.

    Raises
    ------
    ValueError
        If the parts sum up different statistics.
    """
    sums: dict[str, dict[str, Tensor]] = {}
    described: dict[str, tuple[str, ...]] = {}
    windows: list[WindowScores] = []
    for part in parts:
        for field, one in part.sums.items():
            if described.setdefault(field, one.described) != one.described:
                raise ValueError(f"cannot put sums of {one.described} to those of {described[field]}")
            found = sums.setdefault(field, {})
            for name, values in one.sums.items():
                whole = found.setdefault(name, values.new_zeros(blocks, *values.shape[1:]))
                whole.index_add_(0, part.rows, values)
        if part.windows is not None:
            windows.append(part.windows)
    return sums, windows[0].merge(*windows[1:]) if windows else None


@dataclass(frozen=True)
class PartFolder:
    """The parts of one model, or of the references of one pair.

    Attributes
    ----------
    url : str
    chunks : tuple of (int, int)
        Of every part that there is to be.
    """

    url: str
    chunks: tuple[Bounds, ...]

    @classmethod
    def under(cls, output: str, decides: Mapping[str, Any], chunks: Iterable[Bounds]) -> PartFolder:
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

    def missing(self) -> tuple[list[Bounds], list[str]]:
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

    def write(self, chunk: Bounds, content: bytes) -> None:
        """Keep a part, whole or not at all."""
        write_bytes(self._file(chunk), content)

    def read(self, chunk: Bounds) -> Part:
        """Read a part.

        Raises
        ------
        DamagedPartError
            With its place.
        """
        file = self._file(chunk)
        try:
            return Part.from_bytes(read_bytes(file))
        except DamagedPartError as error:
            raise DamagedPartError(file) from error

    def _file(self, chunk: Bounds) -> str:
        return join(self.url, _name(chunk))


def _name(chunk: Bounds) -> str:
    first, stop = chunk
    return f"{first:07d}-{stop:07d}.part"
