"""Fields of a whole domain that need not be in memory: arrays in temporary files."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np

from pipeline.errors import TroubleError


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
        """Make a float32 array of zeros.

        Raises
        ------
        TroubleError
            If there is no room for it.
        """
        folder = self._folder or tempfile.gettempdir()
        size = 4 * math.prod(shape)
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk would end the process later on
                made = np.memmap(file, np.float32, "w+", shape=shape)
        except OSError as error:
            raise TroubleError(
                f"{folder}: no room for a whole field of {size / 2**20:.0f} MiB ({error.strerror}); free "
                "some, or give another folder with --set downscaling.scratch=FOLDER"
            ) from error
        self._maps.append(made)
        return made

    def rest(self) -> None:
        """Let go of the memory of all arrays; what is in them stays, and comes back when it is looked at."""
        for made in self._maps:
            made._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
