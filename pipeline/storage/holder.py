"""Who holds a lock, as it is written into it."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes
    ----------
    host : str
    pid : int
    started : float
        When the process began, in seconds since 1970: the same number may be another process later.
    machine : str
        Of the kernel and its process numbers; empty where the system does not tell.
    since : float
        When it took the lock, in seconds since 1970.
    renewed : float
        When it last said that it is alive.
    token : str
        Of this holding alone.
    """

    host: str
    pid: int
    started: float
    machine: str
    since: float
    renewed: float
    token: str

    @classmethod
    def this_process(cls) -> Holder:
        """Describe this process, as a holder from now on."""
        import psutil  # type: ignore[import-untyped, unused-ignore]

        now = time.time()
        started = psutil.Process().create_time()
        return cls(socket.gethostname(), os.getpid(), started, _machine(), now, now, uuid.uuid4().hex)

    @classmethod
    def from_json(cls, text: str | bytes) -> Holder | None:
        """Read what `to_json` gave; none if it is something else."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def to_json(self) -> str:
        """Describe the holder in a file."""
        return json.dumps(asdict(self)) + "\n"

    def is_gone(self) -> bool:
        """Tell whether it was a process of this machine that has ended."""
        import psutil

        if not self.machine or self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
            return not alive or abs(process.create_time() - self.started) > 1.0
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC)
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%d %H:%M:%S} UTC"


def _machine() -> str:
    """Name what process numbers count in: this boot of the kernel, and the container."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
