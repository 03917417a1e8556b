"""Who may train which shared stage now: one trial at a time, for as long as it is heard of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

LEASE_SECONDS = 120.0  # a trial that has not reported for so long is taken for dead


class Claims(Protocol):
    """Who may train which stage now."""

    def claim(self, key: str, owner: str) -> bool:
        """Take or renew the right to train `key`; False if another has it."""
        ...

    def release(self, key: str, owner: str) -> None:
        """Give it back."""
        ...

    def forget(self, owner: str) -> None:
        """Drop all claims of a trial that has ended."""
        ...


class LeasedClaims:
    """Claims that end by themselves when their owner falls silent; run as a Ray actor by `sweep`."""

    def __init__(self, seconds: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._held: dict[str, tuple[str, float]] = {}

    def claim(self, key: str, owner: str) -> bool:
        """Take or renew; the owner of a lease that has run out has lost it."""
        holder, until = self._held.get(key, (owner, 0.0))
        if holder != owner and until > self._clock():
            return False
        self._held[key] = (owner, self._clock() + self._seconds)
        return True

    def release(self, key: str, owner: str) -> None:
        """Give the right back, if it is held."""
        if self._held.get(key, ("", 0.0))[0] == owner:
            del self._held[key]

    def forget(self, owner: str) -> None:
        """Drop all claims of a trial that has ended."""
        self._held = {key: held for key, held in self._held.items() if held[0] != owner}


class RemoteClaims:
    """`LeasedClaims` living in a Ray actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def claim(self, key: str, owner: str) -> bool:
        """Ask the actor."""
        import ray

        return bool(ray.get(self._actor.claim.remote(key, owner)))

    def release(self, key: str, owner: str) -> None:
        """Tell the actor."""
        import ray

        ray.get(self._actor.release.remote(key, owner))

    def forget(self, owner: str) -> None:
        """Tell the actor, without waiting."""
        self._actor.forget.remote(owner)
