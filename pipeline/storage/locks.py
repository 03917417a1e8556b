"""One holder at a time: a lock file of this machine, or a lease on an object store."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NoReturn

from pipeline.errors import TroubleError, UserError, one_line
from pipeline.storage.conditional import ABSENT, ConditionalObject, Seen, conditional_object
from pipeline.storage.holder import Holder

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: str, message: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a local lock file that the system frees when this process ends, however it ends.

    Parameters
    ----------
    path : str
    message : str
    patience : float
        Seconds to wait for another process to free it.

    Raises
    ------
    UserError
        With `message` and who it is, if another process holds it.
    """
    import fcntl

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+") as file:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    file.seek(0)
                    raise UserError(_refusal(message, Holder.from_json(file.read()))) from error
                time.sleep(0.2)
        file.truncate(0)
        with contextlib.suppress(OSError):  # a full disk does not keep it from being held
            file.write(Holder.this_process().to_json())
            file.flush()
        yield


def _refusal(message: str, holder: Holder | None, age: str = "") -> str:
    return f"{message} (held by {holder}{age})" if holder else message


class Lease:
    """What somebody holds who is in a `with leased(...)`."""

    def check(self) -> None:
        """Make sure that it is still held.

        Raises
        ------
        TroubleError
            If another process has it now, or may have, because this one could not renew it.
        """


@dataclass(frozen=True)
class LeaseTerms:
    """How long a lease lasts.

    Attributes
    ----------
    renewed_every : float
        Seconds between renewals.
    expires_after : float
        Seconds without a renewal after which anybody may take it.
    """

    renewed_every: float = 20.0
    expires_after: float = 120.0


def leased(
    url: str,
    message: str,
    *,
    patience: float = 0.0,
    terms: LeaseTerms | None = None,
    on_loss: Callable[[str], None] | None = None,
) -> AbstractContextManager[Lease]:
    """Hold a lock at a path or any fsspec URL, and give it back at the end.

    On a local path it is `locked`. Elsewhere it is an object that a thread renews; each step is made on
    condition that nobody else has made one (see `conditional.py`). The lease of a killed process is taken at
    once by another process of the same machine, and by all others when it was not renewed for two minutes.

    Parameters
    ----------
    url : str
    message : str
        What to say to a second one; who holds it is added.
    patience : float
        Seconds to wait for another process to give it back.
    terms : LeaseTerms, optional
    on_loss : callable, optional
        Called in a thread with what `check` would say, as soon as another process has been seen to have it.

    Returns
    -------
    context manager
        It gives the `Lease`; call its `check` before each step that must not be made by two.

    Raises
    ------
    UserError
        If another process holds it.
    """
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    if "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol):
        return _local_lease(path, message, patience)
    return _remote_lease(url, message, patience, terms or LeaseTerms(), on_loss)


@contextlib.contextmanager
def _local_lease(path: str, message: str, patience: float) -> Iterator[Lease]:
    with locked(path, message, patience):
        yield Lease()


@contextlib.contextmanager
def _remote_lease(
    url: str, message: str, patience: float, terms: LeaseTerms, on_loss: Callable[[str], None] | None
) -> Iterator[Lease]:
    until = time.monotonic() + patience
    while (lease := _RemoteLease.take(url, message, terms, last=time.monotonic() >= until)) is None:
        time.sleep(min(1.0, patience))
    thread = threading.Thread(target=lease.keep_renewing, args=[on_loss], name=f"lease {url}", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.ended.set()
        thread.join()
        lease.give_back()


class _RemoteLease(Lease):
    """A lease on an object store."""

    def __init__(
        self, url: str, place: ConditionalObject, holder: Holder, version: str, terms: LeaseTerms
    ) -> None:
        self._url, self._place, self._holder, self._version = url, place, holder, version
        self._terms = terms
        self._renewed, self._taken_by = time.monotonic(), ""
        self.ended = threading.Event()

    @classmethod
    def take(cls, url: str, message: str, terms: LeaseTerms, *, last: bool) -> _RemoteLease | None:
        """Take it, if it is free; if not, raise on the last try, else give none."""
        place, me = conditional_object(url), Holder.this_process()
        seen = place.read()
        if seen is not None and not _is_free(seen, terms):
            if last:
                _refuse(message, seen, terms)
            return None
        before = time.monotonic()
        with contextlib.suppress(FileExistsError):  # a rival was quicker, or our first try has succeeded
            place.write(me.to_json().encode(), ABSENT if seen is None else seen.version)
        now = place.read()  # whatever the answer was, this is who has it
        if now is None or _holder(now) != me:
            if last:
                _refuse(message, now, terms)
            return None
        lease = cls(url, place, me, now.version, terms)
        lease._renewed = before
        return lease

    def check(self) -> None:
        idle = time.monotonic() - self._renewed
        if self._taken_by:
            raise TroubleError(self._loss())
        if idle > 0.9 * self._terms.expires_after:  # before anybody else may take it
            raise TroubleError(
                f"{self._url}: this process could not renew its lease for {idle:.0f} s, another may have "
                "begun; check the network, then give the same command again"
            )

    def _loss(self) -> str:
        return f"{self._url}: this process has lost its lease to {self._taken_by}; see that only one runs"

    def keep_renewing(self, on_loss: Callable[[str], None] | None) -> None:
        """Renew it until `ended` is set or it is lost."""
        wait = self._terms.renewed_every
        while not self._taken_by and not self.ended.wait(wait):
            try:
                self._renew()
                wait = self._terms.renewed_every
            except Exception as error:  # a store raises many kinds; the lease lasts longer than most troubles
                log.warning("%s: lease not renewed (%s)", self._url, one_line(error))
                wait = self._terms.renewed_every / 4
        if self._taken_by and on_loss is not None:
            on_loss(self._loss())

    def _renew(self) -> None:
        before, mine = time.monotonic(), replace(self._holder, renewed=time.time())
        try:
            self._version = self._place.write(mine.to_json().encode(), self._version)
        except FileExistsError:
            seen = self._place.read()
            holder = _holder(seen)
            if seen is None or holder is None or holder.token != self._holder.token:
                self._taken_by = str(holder) if holder else "somebody who has given it back since"
                return
            self._version = seen.version  # the answer to our own write was lost
        self._renewed = before

    def give_back(self) -> None:
        """Delete it, unless it is another's by now."""
        try:
            if not self._taken_by:
                self._place.delete(self._version)
        except FileExistsError:
            return
        except Exception as error:  # it expires by itself
            log.warning("%s: lease not given back (%s)", self._url, one_line(error))


def _holder(seen: Seen | None) -> Holder | None:
    return Holder.from_json(seen.content) if seen else None


def _age(seen: Seen, holder: Holder | None) -> float:
    """Give the seconds since the last renewal: by the server's clock, or by both machines'."""
    if seen.age is not None:
        return seen.age
    return time.time() - holder.renewed if holder else math.inf


def _is_free(seen: Seen, terms: LeaseTerms) -> bool:
    holder = _holder(seen)
    return (holder is not None and holder.is_gone()) or _age(seen, holder) > terms.expires_after


def _refuse(message: str, seen: Seen | None, terms: LeaseTerms) -> NoReturn:
    holder = _holder(seen)
    age = (
        f", renewed {_age(seen, holder):.0f} s ago, free after {terms.expires_after:.0f} s without"
        if seen
        else ""
    )
    raise UserError(_refusal(message, holder, age))
