"""Remote files as h5py can read them without standing still for ever."""

from __future__ import annotations

import gc
import io
import threading
from typing import Any


class _Pause:
    """No automatic garbage collection while any thread is within."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._resume = False

    def __enter__(self) -> None:
        with self._lock:
            if self._within == 0:
                self._resume = gc.isenabled()
                gc.disable()
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0 and self._resume:
                gc.enable()


_pause = _Pause()


class Stream(io.RawIOBase):
    """A remote file to be read, during whose reads no garbage is collected.

    h5py holds one lock of its whole process while it waits for a read, and takes it to free an object. If
    the thread that fetches the bytes collects such an object meanwhile, both wait for each other.

    Parameters
    ----------
    remote : file object
        As fsspec opens it; it is not closed.
    """

    def __init__(self, remote: Any) -> None:
        self._remote = remote

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that any part of it can be."""
        return True

    def tell(self) -> int:
        """Give the position, in bytes."""
        return int(self._remote.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, in bytes, and give it."""
        return int(self._remote.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the file goes; give the number of bytes."""
        with _pause:
            content = self._remote.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
