"""One driver at a time per name, its runs recorded, and none of them left open at the end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from pipeline.config import Config
from pipeline.records.guardian import Guardian
from pipeline.storage.files import Lease, join, leased
from pipeline.store.field_store import FieldStore
from pipeline.tracking import SWEEP, Tracker, tracking_uri


@contextmanager
def recorded(
    config: Config, store: FieldStore, name: str, what: str, tags: dict[str, str]
) -> Iterator[Tracker]:
    """Hold a name alone and give its tracker; at the end, whatever brought it about, its runs say how it was.

    Parameters
    ----------
    config : Config
        With an absolute output.
    store : FieldStore
    name : str
        Of the sweep or the training; the same name finds its runs again.
    what : str
        What has the name, for people: `sweep`.
    tags : dict
        For all its runs, besides data set and family.

    Raises
    ------
    UserError
        If another process holds the name, or MLflow does not answer.
    """
    recording: dict[str, Any] = {
        "uri": tracking_uri(config.tracking, config.output),
        "experiment": config.tracking.experiment or f"finescale/{store.info.name}/{config.model.family}",
        "output": config.output,
        "tags": {
            SWEEP: name,
            "finescale.dataset": store.info.name,
            "finescale.family": config.model.family,
            "finescale.data_fingerprint": store.info.fingerprint,
            **tags,
        },
    }
    lock = join(config.output, "locks", f"{name}.lock")
    with _alone(lock, f"{what} {name}", "--output" if what == "evaluation" else "--name"):
        tracker = Tracker(**recording)
        with _ending(tracker, Guardian(lock, recording)):
            yield tracker


def _alone(lock: str, who: str, flag: str) -> AbstractContextManager[Lease]:
    """Keep a second driver off: each would take the other's work for abandoned."""
    message = f"{who}: another process is running it; wait for its end, or give this one another {flag}"
    # The guardian of a killed driver may still be at work.
    return leased(lock, message, patience=30.0, on_loss=_stop)


def _stop(reason: str) -> None:
    """End at once, as if killed: studies and runs are another driver's by now, and nothing may touch them."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
    os._exit(2)


class _ending:  # noqa: N801 - reads as the statement it makes
    """Leave no run open, however the driver ends."""

    def __init__(self, tracker: Tracker, guardian: Guardian) -> None:
        self._tracker, self._guardian = tracker, guardian

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)  # `ray job stop` and schedulers end jobs so

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        self._tracker.end_all("KILLED" if interrupted else "FAILED")
        if self._tracker.close():  # else it goes on delivering for a while
            self._guardian.dismiss()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
