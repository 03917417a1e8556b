"""Records on their way to a server that may not answer: kept in order, and on disk, until each is delivered.

Whoever puts a record never waits for the server. A process that is killed leaves its undelivered records in
the file; the next one delivers them first. Some may then be delivered twice, so delivery must be idempotent.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

Record = dict[str, Any]


class Retry(Exception):  # noqa: N818 - reads as the order it is
    """Raised by `deliver` for what may pass: the record is tried again before any that follows it.

    Parameters
    ----------
    reason : str
    tries : int, optional
        Give the record up after so many tries, for it alone may be the trouble; none: never.
    """

    def __init__(self, reason: str, tries: int | None = None) -> None:
        super().__init__(reason)
        self.tries = tries


class Outbox:
    """A queue of JSON-able records that one thread delivers in order.

    Parameters
    ----------
    path : str, optional
        Local file that holds the undelivered records; none: they live in memory only. One outbox owns it.
        It survives a kill of the process, not a power cut.
    deliver : callable
        Takes one record, in the outbox's thread. It raises `Retry` for what may pass; for anything else that
        it raises the record is dropped, with a warning.
    server : str
        What log lines call the other side.
    waits : (float, float)
        Seconds before the second try, doubled for each after it, and the longest.

    Attributes
    ----------
    recovered : tuple of dict
        What an earlier process had left in the file.
    """

    def __init__(
        self,
        path: str | None,
        deliver: Callable[[Record], None],
        *,
        server: str = "server",
        waits: tuple[float, float] = (1.0, 30.0),
    ) -> None:
        self._path, self._deliver, self._server, self._waits = path, deliver, server, waits
        self.recovered = _read(path) if path else ()
        self._queue = deque(self.recovered)
        self._changed, self._hurry = threading.Condition(), threading.Event()
        self._closed = self._silent = self._unwritable = False
        self._complaints: set[str] = set()
        if path:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        threading.Thread(target=self._work, name="outbox", daemon=True).start()

    @property
    def pending(self) -> int:
        """Number of records not yet delivered."""
        return len(self._queue)

    def put(self, record: Record) -> None:
        """Add a record; returns at once."""
        line = json.dumps(record)
        with self._changed:
            self._queue.append(record)
            self._write(line)
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all is delivered, at most `timeout` seconds; tells whether it is."""
        self._hurry.set()
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue, timeout)

    def close(self, timeout: float = 0.0) -> bool:
        """Flush, then deliver no more; what is left stays in the file. Tells whether all is delivered."""
        self.flush(timeout)
        with self._changed:
            if self._queue and not self._closed:
                fate = f"wait in {self._path} for the next start" if self._path else "are lost"
                log.warning("%s has not taken %d records; they %s", self._server, len(self._queue), fate)
            self._closed = True
            self._hurry.set()
            self._changed.notify_all()
            return not self._queue

    def _work(self) -> None:
        first, longest = self._waits
        tries, wait = 0, first
        while (record := self._next()) is not None:
            try:
                self._deliver(record)
                self._note_answer()
            except Retry as error:
                tries += error.tries is not None  # while nobody answers, no record is to blame
                if error.tries is None or tries < error.tries:
                    self._note_silence(error)
                    hurried = self._hurry.wait(wait)
                    self._hurry.clear()
                    wait = first if hurried else min(2 * wait, longest)
                    continue
                self._note_loss(error)
            except Exception as error:  # whatever it is, the records behind this one must not wait for ever
                self._note_loss(error)
            tries, wait = 0, first
            self._done()

    def _next(self) -> Record | None:
        """Wait for a record; it stays in the queue until it is done. None: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            return None if self._closed else self._queue[0]

    def _done(self) -> None:
        with self._changed:
            if self._closed:  # another outbox may own the file by now; it delivers this record again
                return
            self._queue.popleft()
            if not self._queue and self._path:
                with contextlib.suppress(OSError):
                    os.remove(self._path)
            self._changed.notify_all()

    def _write(self, line: str) -> None:
        """Append a record; each begins on a line of its own, whatever became of the one before."""
        if not self._path:
            return
        try:
            with open(self._path, "a", encoding="ascii") as file:
                file.write(f"\n{line}\n")
        except OSError as error:
            if not self._unwritable:
                log.warning("%s: %s; records are kept in memory only", self._path, error.strerror or error)
            self._unwritable = True

    def _note_silence(self, error: Exception) -> None:
        if not self._silent:
            where = self._path or "memory"
            log.warning("%s does not take records (%s); they wait in %s", self._server, _line(error), where)
        self._silent = True

    def _note_answer(self) -> None:
        if self._silent:
            late = len(self._queue)
            log.warning("%s takes records again; %d of them are late", self._server, late)
        self._silent = False

    def _note_loss(self, error: Exception) -> None:
        reason = _line(error)
        if reason not in self._complaints:
            log.warning("%s did not take a record: %s", self._server, reason)
        self._complaints.add(reason)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _read(path: str) -> tuple[Record, ...]:
    """Read what was left; a line that a kill cut short is no record."""
    records = []
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    return tuple(records)
