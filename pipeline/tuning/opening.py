"""How a sweep is opened and closed: all checks before anything is written, nothing left open at the end.

A sweep carries on where it stopped: ended trials are in the studies' storage, shared stages and unfinished
trials in the output, runs in MLflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline import environment
from pipeline.code_version import code_version
from pipeline.config import Config
from pipeline.data.dataset import open_dataset, opened
from pipeline.factors import FactorPair
from pipeline.records.recording import recorded
from pipeline.storage.files import reached
from pipeline.store.field_store import FieldStore
from pipeline.tracking import check_reachable, tracking_uri
from pipeline.tuning.kept import keep, output_id
from pipeline.tuning.plan import PairPlan, last_rungs, plan_sweep, sweep_id
from pipeline.tuning.storage import open_storage
from pipeline.tuning.study import PairStudy
from pipeline.tuning.sweep import Sweep


def dataset_shape(config: Config) -> tuple[int, int, int]:
    """Give (time, y, x) of the job's data set; synthetic rain is not made for that."""
    if config.data.store is None:
        synthetic = config.data.synthetic
        return synthetic.frames, synthetic.height, synthetic.width
    with reached(config.data.store):
        return opened(config.data.store, config.data.until).info.shape


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
    with reached(config.output):  # before Ray is started
        pass
    check_reachable(uri)
    print("starting Ray, checking the data ...", flush=True)
    each = {"CPU": config.tuning.cpus_per_trial, "GPU": config.tuning.gpus_per_trial}
    environment.start_ray(config, each, processes=config.tuning.workers_per_trial)
    store = open_dataset(config.data, config.output)
    _check_windows(config, store, plans)

    todays = sweep_id(config, store, output_id(config.output))
    if name not in (None, todays):
        print(f"note: {name} was made by other code or on other data; models are scored as of today")
    sweep = name or todays
    tags = {} if name else {"finescale.code": code_version()}
    with recorded(config, store, sweep, "sweep", tags) as tracker:
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
        try:
            opened.start_runs()
            yield opened
        finally:  # leave no trial running
            for study in opened.studies.values():
                study.suspend()


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


def _check_windows(config: Config, store: FieldStore, plans: tuple[PairPlan, ...]) -> None:
    """Find out now, not in a trial, if a split holds no usable window."""
    from pipeline.tuning.scoring import checked

    for plan in plans:
        checked(config, store, plan.pair)
