"""How a sweep is opened and closed: all checks before anything is written, nothing left open at the end.

A sweep carries on where it stopped: ended trials are in the studies' storage, shared stages and unfinished
trials in the output, runs in MLflow.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from pipeline import environment
from pipeline.code_version import code_version
from pipeline.config import Config
from pipeline.data.dataset import open_dataset
from pipeline.data.store import FieldStore
from pipeline.factors import FactorPair
from pipeline.files import join, locked
from pipeline.guardian import Guardian
from pipeline.tracking import SWEEP, Tracker, check_reachable, tracking_uri
from pipeline.tuning.kept import keep, output_id
from pipeline.tuning.plan import PairPlan, last_rungs, plan_sweep, sweep_id
from pipeline.tuning.storage import check_storage, open_storage
from pipeline.tuning.study import PairStudy
from pipeline.tuning.sweep import Sweep


def dataset_shape(config: Config) -> tuple[int, int, int]:
    """Give (time, y, x) of the job's data set; synthetic rain is not made for that."""
    if config.data.store is None:
        synthetic = config.data.synthetic
        return synthetic.frames, synthetic.height, synthetic.width
    return FieldStore.open(config.data.store).info.shape


@contextmanager
def open_sweep(config: Config, name: str | None = None) -> Iterator[Sweep]:
    """Check everything, then start Ray, open the studies and the runs; at the end leave none of them open.

    Parameters
    ----------
    config : Config
    name : str, optional
        Of a sweep that has been run, to be opened whatever has changed since.

    Raises
    ------
    UserError
        For anything the user can put right, before anything is written.
    """
    config = config.model_copy(update={"output": environment.resolve_output(config.output)})
    uri = tracking_uri(config.tracking, config.output)
    plans = plan_sweep(config, dataset_shape(config))
    check_storage(config.tuning, config.output)
    check_reachable(uri)
    print("starting Ray, checking the data ...", flush=True)
    environment.start_ray(config)
    store = open_dataset(config.data, config.output)
    _check_windows(config, store, plans)

    todays = sweep_id(config, store, output_id(config.output))
    if name not in (None, todays):
        print(f"note: {name} was made by other code or on other data; models are scored as of today")
    sweep = name or todays
    recording: dict[str, Any] = {
        "uri": uri,
        "experiment": config.tracking.experiment or f"finescale/{store.info.name}/{config.model.family}",
        "output": config.output,
        "tags": _tags(config, store, sweep) | ({} if name else {"finescale.code": code_version()}),
    }
    with _alone(config.output, sweep):
        tracker = Tracker(**recording)
        guardian = Guardian.over(_lock_file(config.output, sweep), recording)
        storage = open_storage(config.tuning, config.output)
        others = keep(config, sweep)
        opened = Sweep(
            config,
            store,
            sweep,
            tracker,
            _open_studies(config, storage, sweep, plans),
            _open_studies(config, storage, sweep, _plan_others(config, others)),
        )
        with _ending(opened, guardian):
            opened.start_runs()
            yield opened


def _tags(config: Config, store: FieldStore, sweep: str) -> dict[str, str]:
    """Give what all runs of a sweep can be found by."""
    return {
        SWEEP: sweep,
        "finescale.dataset": store.info.name,
        "finescale.family": config.model.family,
        "finescale.data_fingerprint": store.info.fingerprint,
    }


def _open_studies(
    config: Config, storage: Any, sweep: str, plans: tuple[PairPlan, ...]
) -> dict[FactorPair, PairStudy]:
    rungs = last_rungs(config)
    return {
        plan.pair: PairStudy(
            storage, f"{sweep}/{plan.pair}", plan.entry, config.tuning, plan.max_context, rungs, config.seed
        )
        for plan in plans
    }


def _plan_others(config: Config, pairs: tuple[FactorPair, ...]) -> tuple[PairPlan, ...]:
    if not pairs:
        return ()
    tuning = config.tuning.model_copy(update={"pairs": pairs})
    return plan_sweep(config.model_copy(update={"tuning": tuning}), dataset_shape(config))


def _alone(output: str, sweep: str) -> AbstractContextManager[None]:
    """Keep a second driver off the same sweep: each would take the other's trials for abandoned."""
    file = _lock_file(output, sweep)
    if file is None:
        return nullcontext()
    message = f"sweep {sweep}: another process is running it; wait for its end, or give this one a --name"
    return locked(file, message, patience=30.0)  # the guardian of a killed driver may still be at work


def _lock_file(output: str, sweep: str) -> str | None:
    """Give the sweep's lock file; none on object stores, which have no locks."""
    return None if "://" in output else join(output, "studies", f"{sweep}.lock")


def _check_windows(config: Config, store: FieldStore, plans: tuple[PairPlan, ...]) -> None:
    """Find out now, not in a trial, if a split holds no usable window."""
    from pipeline.tuning.trial import prepared

    for plan in plans:
        data = prepared(config, store, plan.pair)
        data.training_windows(1)
        for split in ("validation", "test"):
            data.scored_windows(split, 1, config.scoring, config.seed)


class _ending:  # noqa: N801 - reads as the statement it makes
    """Leave no run open and no trial running, however a sweep ends."""

    def __init__(self, sweep: Sweep, guardian: Guardian | None) -> None:
        self._sweep, self._guardian = sweep, guardian

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)  # `ray job stop` and schedulers end jobs so

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        tracker = self._sweep.tracker
        try:
            for study in self._sweep.studies.values():
                study.suspend()
        finally:
            interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
            tracker.end_all("KILLED" if interrupted else "FAILED")
            if tracker.close() and self._guardian:  # else it goes on delivering for a while
                self._guardian.dismiss()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
