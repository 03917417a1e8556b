"""What a group of workers tells the process that waits for it, and on which way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class GroupStarted:
    """Message: so many workers have begun, or begun again."""

    workers: int


@dataclass(frozen=True)
class WorkersLost:
    """Message: some workers died; the group starts again from its last checkpoint."""

    ranks: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Message: there is no room for so many workers yet; it waits until nodes join."""

    workers: int


@dataclass(frozen=True)
class Warned:
    """Message: a warning that a worker logged."""

    text: str


def note_of(message: Any) -> str | None:
    """Say what a message has that a person must know; None if it is none of those here."""
    match message:
        case WorkersLost(ranks, reason):
            who = f"worker{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
            return f"{who} LOST: {reason}; starting again from the last checkpoint"
        case Waiting(workers):
            return f"waiting for room for {workers} worker{'s' * (workers > 1)} on the cluster"
        case Warned(text):
            return f"warning: {text}"
    return None


class Patience:
    """Tells, once each time, that workers have not started for long."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._since: float | None = time.monotonic()

    def note(self, message: Any) -> None:
        """Hear of a start or a loss."""
        if isinstance(message, GroupStarted):
            self._since = None
        elif isinstance(message, WorkersLost):
            self._since = time.monotonic()

    def is_over(self) -> bool:
        """Tell whether it is time to say so."""
        over = self._since is not None and time.monotonic() - self._since > _PATIENCE_SECONDS
        if over:
            self._since = None
        return over


class Mailbox:
    """Actor: messages on their way to the process that waits."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._refusal: str | None = None

    def put(self, message: Any) -> None:
        """Leave a message."""
        self._messages.append(message)

    def take(self) -> list[Any]:
        """Give what has come since the last time."""
        taken, self._messages = self._messages, []
        return taken

    def refuse(self, reason: str) -> None:
        """Say that the work cannot be done, however often it is tried."""
        self._refusal = reason

    def refusal(self) -> str | None:
        """Give the reason, if there is one."""
        return self._refusal
