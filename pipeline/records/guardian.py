"""The last word for a driver that was given none: a small process that ends its runs when it is killed.

It sleeps on a pipe that only the driver holds, so it wakes at the driver's end, whatever brought it about. A
driver that ends by itself says so first. Otherwise the guardian delivers what the driver had left for MLflow
and ends its runs as KILLED; a machine that dies as a whole leaves that to the next start of the same sweep.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_DONE = "done"


class Guardian:
    """A guardian of this process.

    Parameters
    ----------
    lock : str
        The sweep's lock, a path or a URL: whoever holds it has taken the sweep over.
    tracker : dict
        Arguments of `Tracker`.
    """

    def __init__(self, lock: str, tracker: dict[str, Any]) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.records.guardian"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # what is meant for the driver's group, such as Ctrl-C, is not for this
        )
        # By the pipe: arguments can be read by everyone on the machine, and a URI may hold a password.
        self._say(json.dumps({"lock": lock, "tracker": tracker}))

    def dismiss(self) -> None:
        """Say that this process ends its runs itself."""
        self._say(_DONE)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError:  # it is gone; its absence harms nobody who ends by himself
            return


def _watch() -> None:
    charge = json.loads(sys.stdin.readline())
    if sys.stdin.readline().strip() == _DONE:  # else the pipe has closed without a word
        return
    from pipeline import environment
    from pipeline.storage.files import leased
    from pipeline.tracking import Tracker

    environment.prepare()

    with leased(charge["lock"], "the sweep has been taken over", patience=5.0):
        Tracker(**charge["tracker"]).close(timeout=20.0)  # to open it is to end what was left running


if __name__ == "__main__":
    _watch()
