"""Which parts of a downscaling are done: one small file, and what its output's folder says of itself."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from pipeline.errors import UserError, one_line
from pipeline.storage import files

log = logging.getLogger(__name__)

FORMAT = "finescale downscaled fields"
VERSION = 1
MANIFEST = "downscaled.json"  # there once everything is
RECORD = "downscaling.json"  # there while something is missing
LOCK = "downscaling.lock"
_SECONDS_BETWEEN = 1.0  # Google takes one write of an object per second
_LONGEST = 60  # characters of a value in a message


def state(url: str) -> Literal["absent", "incomplete", "complete", "foreign"]:
    """Tell what lies at a URL; `incomplete` is a downscaling at work or killed.

    Raises
    ------
    UserError
        If the place cannot be reached.
    """
    with files.reached(url):
        names = files.list_folder(url)
    if MANIFEST in names:
        return "complete"
    if RECORD in names:
        return "incomplete"
    # A rename that never happened leaves a temporary file, and nothing else was written before it.
    return "absent" if all(name.startswith((RECORD, LOCK)) or not name for name in names) else "foreign"


def refuse_foreign(url: str) -> None:
    """Keep off what is not ours.

    Raises
    ------
    UserError
        If something else lies there, or the place cannot be reached.
    """
    if state(url) == "foreign":
        raise UserError(f"output {url}: something else is there already; give another --output")


@dataclass(frozen=True)
class Account:
    """What an output says of itself: its manifest at the end, its record before.

    Attributes
    ----------
    fingerprint : str
    facts : dict
        What decides the values, by name.
    notes : dict
        What else is known of how they were made.
    shape : tuple of int
        (frames, parts).
    ready : bool
        Whether the arrays have been created.
    done : str
        The finished parts, as bits in base64.
    """

    fingerprint: str
    facts: dict[str, Any]
    notes: dict[str, Any]
    shape: tuple[int, int]
    ready: bool = False
    done: str = ""

    @classmethod
    def read(cls, url: str, name: str) -> Account:
        """Read it from a folder.

        Raises
        ------
        UserError
            If it is none, or that of a newer version.
        """
        try:
            known = json.loads(files.read_text(files.join(url, name)))
            if (known.pop("format"), known.pop("version")) != (FORMAT, VERSION):
                raise ValueError("of another format or version")
            known["shape"] = tuple(known["shape"])
            return cls(**known)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"output {url}: {name} cannot be read ({one_line(error)}); give another --output, or add "
                "--overwrite"
            ) from error

    def write(self, url: str, name: str) -> None:
        """Write it, whole or not at all."""
        head = {"format": FORMAT, "version": VERSION}
        text = json.dumps(head | asdict(self), indent=2, sort_keys=True) + "\n"
        files.write_text(files.join(url, name), text)

    def differences(self, facts: Mapping[str, Any]) -> str:
        """Say in which facts this output differs from others: `seed 0 (now 1), members 8 (now 4)`."""
        names = sorted(self.facts.keys() | facts.keys())
        other = [name for name in names if self.facts.get(name) != facts.get(name)]
        said = [f"{name} {_short(self.facts.get(name))} (now {_short(facts.get(name))})" for name in other]
        return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


class Record:
    """The finished parts of an output: read when it is opened, written by the one process that directs it.

    A part counts once what it wrote is there, so a kill costs what ended within the last second, and that is
    made again with the same bytes.

    Parameters
    ----------
    url : str
    account : Account
    complete : bool
        Whether the output was finished before.
    still_alone : callable
        Called before each write; raises if another process may be writing by now.

    Attributes
    ----------
    finished : np.ndarray
        (frames, parts) bool; the parts of a frame are its members, then its summary.
    complete : bool
    """

    def __init__(
        self,
        url: str,
        account: Account,
        *,
        complete: bool = False,
        still_alone: Callable[[], None] = lambda: None,
    ) -> None:
        self._url, self._account, self._still_alone = url, account, still_alone
        self._lock = threading.RLock()
        self._saved_at, self._timer = 0.0, threading.Timer(0, lambda: None)
        self.complete, self._closed = complete, False
        self.finished = np.full(account.shape, complete)
        if account.done:
            bits = np.frombuffer(base64.b64decode(account.done), "u1")
            self.finished = np.unpackbits(bits, count=self.finished.size).reshape(account.shape).astype(bool)

    def mark(self, frame: int, parts: int | slice | list[int]) -> None:
        """Note that parts of a frame are written; it is saved at once, or within a second.

        Raises
        ------
        UserError
            If it cannot be written, or another process has taken over.
        """
        with self._lock:
            self.finished[frame, parts] = True
            wait = self._saved_at + _SECONDS_BETWEEN - time.monotonic()
            if wait <= 0:
                self.save()
            elif not self._timer.is_alive():
                # A long task may come next: what ended before it is not to wait for its end.
                self._timer = threading.Timer(wait, self._save_later)
                self._timer.daemon = True
                self._timer.start()

    def save(self) -> None:
        """Write what is finished, unless the whole output is."""
        with self._lock:
            self._timer.cancel()
            if self.complete or self._closed:
                return
            self._still_alone()
            done = base64.b64encode(np.packbits(self.finished).tobytes()).decode()
            replace(self._account, done=done).write(self._url, RECORD)
            self._saved_at = time.monotonic()

    def close(self) -> None:
        """Save for the last time: another process may have the output from now on."""
        with self._lock:
            try:
                self.save()
            finally:
                self._closed = True

    def _save_later(self) -> None:
        try:
            self.save()
        except Exception as error:  # the next mark, or the end, raises it where it is heard
            log.warning("%s: not written (%s)", files.join(self._url, RECORD), one_line(error))

    def finish(self) -> None:
        """Write the manifest, once every part is finished.

        Raises
        ------
        ValueError
            If parts are missing.
        UserError
            If it cannot be written, or another process has taken over.
        """
        with self._lock:
            if not self.finished.all():
                raise ValueError(f"{np.sum(~self.finished)} of {self.finished.size} parts are not finished")
            if self.complete:
                return
            self._timer.cancel()
            self._still_alone()
            files.remove_unfinished(self._url)
            replace(self._account, done="").write(self._url, MANIFEST)
            files.remove(files.join(self._url, RECORD))
            self.complete = True
