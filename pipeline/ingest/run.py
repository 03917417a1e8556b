"""Ingest: make a store of files, or add them to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import units
from pipeline.errors import TroubleError, UserError
from pipeline.ingest.fit import check_names, check_statics, read_statics, refuse_unlike, refuse_unwritable
from pipeline.ingest.inputs import Plan, Request, order, plan
from pipeline.ingest.transfer import Progress, Transferred, transfer, without_bad_values
from pipeline.sources.timeline import Axis
from pipeline.storage import files
from pipeline.storage.cloud import reached
from pipeline.store import manifest
from pipeline.store.field_store import FieldStore
from pipeline.store.manifest import LOCK, MARKER, StoreInfo
from pipeline.store.writer import StoreWriter, clear, create_group, refuse_to_replace, writing


@dataclass(frozen=True)
class Target:
    """The store that frames go to.

    Attributes
    ----------
    url : str
        Absolute.
    name : str or None
        Of the data set; none: the store's.
    statics : mapping of str to (float or None)
        Static covariates to take from the first file, with what stands for their missing values.
    overwrite : bool
        Replace what is there.
    keep_stored : bool
        Where a file has other values than the store, keep the store's.
    """

    url: str
    name: str | None = None
    statics: Mapping[str, float | None] | None = None
    overwrite: bool = False
    keep_stored: bool = False

    def opened(self) -> FieldStore | None:
        """Open the store that is added to; none if a new one is made.

        Raises
        ------
        UserError
            If something else is there, or the store cannot be added to.
        """
        if self.overwrite or manifest.state(self.url) != "complete":
            refuse_to_replace(self.url, self.overwrite)
            return None
        store = FieldStore.open(self.url)
        if self.name not in (None, store.info.name):
            raise UserError(
                f"store {self.url}: its name is {store.info.name}, not {self.name}; leave --name out, or "
                "add --overwrite to replace the store"
            )
        return store


@dataclass(frozen=True)
class Ingested:
    """What an ingest did.

    Attributes
    ----------
    store : FieldStore
    planned : Plan
    frames : Transferred
    created : bool
        The store is new.
    """

    store: FieldStore
    planned: Plan
    frames: Transferred
    created: bool

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return self.created or bool(self.frames.appended or self.frames.filled)


def planned_for(request: Request, target: Target) -> tuple[Plan, FieldStore | None]:
    """Read all headers, and the static covariates of a new store, and see how the files fit what is there.

    Raises
    ------
    UserError
        One line, for the first fault.
    """
    store = target.opened()
    planned = plan(request, _axis(store))
    check_names(planned, target.statics or {})
    if any(files.resolve(source.path) == target.url for source in planned.sources):
        raise UserError(f"store {target.url}: is one of the files to be read; choose another place")
    if planned.sources:
        refuse_unwritable(target.url)
    if store is not None and planned.sources:
        refuse_unlike(store, planned)
    if store is not None:
        check_statics(target.statics or {}, store)
    elif planned.sources:
        read_statics(planned, target.statics or {}, store)  # only its values tell whether some are missing
    return planned, store


def ingest(request: Request, target: Target, progress: Progress) -> Ingested:
    """Make a store of files, or add them to the one that is there.

    Frames count from the manifest that follows their block. So a kill costs one block at most, and the same
    command carries on; a fault in a file leaves the store as it was before the command.

    Parameters
    ----------
    request : Request
    target : Target
    progress : callable

    Raises
    ------
    UserError
        One line, for the first fault.
    """
    planned, store = planned_for(request, target)
    if not planned.sources:
        if store is None:
            raise UserError(f"store {target.url}: no file is left to make it of")
        return Ingested(store, planned, Transferred(), created=False)
    if request.skip_bad or target.overwrite:
        # Once files were left out the time axis may be another; and nothing is replaced by bad values.
        total = sum(len(source.header.times) for source in planned.sources)
        tell = progress("checking", total)
        planned = without_bad_values(planned, _axis(store), keep_stored=target.keep_stored, tell=tell)
    try:
        with reached(target.url), writing(target.url) as lease:
            store = target.opened()  # another ingest may have ended since
            planned = order(request, planned.sources, planned.faults, _axis(store), planned.passed)
            if store is not None:
                refuse_unlike(store, planned)
            statics = read_statics(planned, target.statics or {}, store)
            frames = _write(planned, target, store, statics, progress, lease)
    except OSError as error:
        raise UserError(f"store {target.url}: cannot be written ({manifest.one_line(error)})") from error
    return Ingested(FieldStore.open(target.url), planned, frames, created=store is None)


def _write(
    planned: Plan,
    target: Target,
    store: FieldStore | None,
    statics: Mapping[str, np.ndarray],
    progress: Progress,
    lease: files.Lease,
) -> Transferred:
    """Write the frames; a fault in a file leaves the store as it was, trouble outside what counts by then."""
    line, url = planned.line, target.url
    assert line is not None
    if store is None:
        info = _new_info(planned, target, statics)
        clear(url, keep=(LOCK, MARKER))
        header = planned.header
        create_group(url, info, header.y, header.x, line.frames, statics, _attributes(planned))
    else:
        info = store.info
    known = info.shape[0]
    tell = progress("ingesting", len(line.entries))
    try:
        writer = StoreWriter(
            url, info, line.start, line.frames, statics, step_by_step=True, still_alone=lease.check
        )
    except (KeyError, ValueError) as error:
        reason = manifest.one_line(error)
        raise UserError(
            f"store {url}: its arrays cannot be read ({reason}); ingest again with --overwrite"
        ) from error
    try:
        done = transfer(planned, writer, known, keep_stored=target.keep_stored, tell=tell)
        if done.appended + done.filled or store is None:
            writer.close()
        if not writer.rows.statistics[:, 0].any():
            raise UserError(f"{planned.sources[0].path}: {info.variable} is missing everywhere")
    except TroubleError:
        raise
    except UserError:
        if store is None:
            clear(url, keep=(LOCK, MARKER))
        else:
            writer.rollback()
        raise
    return done


def _new_info(planned: Plan, target: Target, statics: Mapping[str, np.ndarray]) -> StoreInfo:
    header, line = planned.header, planned.line
    assert line is not None
    note = {"first_file": files.last_name(planned.sources[0].path), "units": header.units}
    if planned.request.rules:
        note["description"] = planned.request.rules.description
    return StoreInfo(
        name=target.name or default_name(target.url),
        variable=header.variable,
        units=planned.units,
        shape=(0, *header.grid),
        cadence_seconds=float(line.cadence_seconds),
        start=str(line.start),
        end=str(line.start),
        fingerprint="",
        statics=tuple(sorted(statics)),
        dynamics=header.dynamics,
        crs=header.crs,
        source=note,
    )


def _attributes(planned: Plan) -> dict[str, dict[str, Any]]:
    """Keep the first file's attributes; a standard name that does not fit the new units goes."""
    attributes = {key: dict(values) for key, values in planned.header.attributes.items()}
    data = attributes.setdefault(planned.header.variable, {})
    if planned.units == units.WANTED:
        data["standard_name"] = "lwe_precipitation_rate"
    return attributes


def _axis(store: FieldStore | None) -> Axis | None:
    if store is None:
        return None
    info = store.info
    return Axis(np.datetime64(info.start, "s"), int(info.cadence_seconds), store.rows.present)


def default_name(url: str) -> str:
    """Name a data set by its store: `knmi` for `/data/knmi.zarr`."""
    return files.last_name(url).removesuffix(".zarr") or "field"
