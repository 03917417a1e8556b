"""Fields of a whole domain that need not be in memory: arrays in temporary files."""

from __future__ import annotations

import mmap
import tempfile

import numpy as np


class Scratch:
    """Makes large arrays in files without names, so that a kill leaves nothing behind.

    Parameters
    ----------
    folder : str, optional
        On a local disk; the system's temporary folder unless given.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._maps: list[np.memmap] = []

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        """Make a float32 array of zeros; on the file system it takes only what is written to."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            made = np.memmap(file, np.float32, "w+", shape=shape)
        self._maps.append(made)
        return made

    def rest(self) -> None:
        """Let go of the memory of all arrays; what is in them stays, and comes back when it is looked at."""
        for made in self._maps:
            made._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
