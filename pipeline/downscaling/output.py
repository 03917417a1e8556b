"""The fine fields as a Zarr group with CF metadata, written frame by frame from any process.

A task writes chunks that no other task touches, and the process that directs them notes it in the record. So
whatever is killed, the same command carries on, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import zarr

from pipeline.downscaling.output_plan import OutputPlan
from pipeline.downscaling.record import LOCK, MANIFEST, RECORD, Account, Record, refuse_foreign, state
from pipeline.errors import UserError, one_line
from pipeline.sources import axes
from pipeline.storage import files
from pipeline.store import layout
from pipeline.store.manifest import canonical

FINGERPRINT = "finescale_fingerprint"  # the group's attribute


@dataclass(frozen=True, eq=False)
class Output:
    """The arrays of an output: to be sent to any process, opened there at the first write.

    Attributes
    ----------
    url : str
    plan : OutputPlan
    """

    url: str
    plan: OutputPlan

    def __reduce__(self) -> tuple[Any, ...]:
        return Output, (self.url, self.plan)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk: blocks that are written begin at its multiples, and end there or at the last."""
        return self.plan.chunks[1]

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(layout.backend(self.url), mode="r+")

    def write(self, frame: int, member: int, rows: slice, values: np.ndarray) -> None:
        """Write rows of one member of one coarse frame.

        Parameters
        ----------
        frame : int
            Which of the plan's coarse frames.
        member : int
        rows : slice
        values : np.ndarray
            (tau, rows, W), NaN for missing.

        Raises
        ------
        ValueError
            If they do not fit, or the rows are no whole chunks.
        UserError
            If the store does not take them.
        """
        if not 0 <= member < self.plan.members:
            raise ValueError(f"member {member} of {self.plan.members}")
        self._put(self.plan.variable, frame, rows, values, (member,))

    def write_summary(
        self,
        frame: int,
        rows: slice,
        mean: np.ndarray,
        quantiles: np.ndarray | None = None,
        exceed: np.ndarray | None = None,
    ) -> None:
        """Write rows of the summary of one coarse frame's ensemble.

        Parameters
        ----------
        frame : int
            Which of the plan's coarse frames.
        rows : slice
        mean : np.ndarray
            (tau, rows, W), NaN for missing.
        quantiles, exceed : np.ndarray, optional
            (Q, tau, rows, W) and (E, tau, rows, W), where the plan has some.

        Raises
        ------
        ValueError
            If they do not fit, or the rows are no whole chunks.
        UserError
            If the store does not take them.
        """
        given = {"mean": mean, "quantile": quantiles, "exceedance": exceed}
        for kind, values in given.items():
            name = f"{self.plan.variable}_{kind}"
            if (values is not None and len(values) > 0) != (name in self.plan.arrays):
                raise ValueError(f"{name} is not what the plan has: {list(self.plan.arrays)}")
            if values is not None and len(values):
                self._put(name, frame, rows, values, () if kind == "mean" else (slice(None),))

    def _put(self, name: str, frame: int, rows: slice, values: np.ndarray, lead: tuple[Any, ...]) -> None:
        (H, W), step = self.plan.grid, self.chunk_rows
        start, stop = rows.start or 0, H if rows.stop is None else rows.stop
        if not 0 <= start < stop <= H or start % step or (stop % step and stop != H):
            raise ValueError(f"rows {start} to {stop} of {H} are no whole chunks of {step}")
        before = self.plan.arrays[name]
        length = (before[1],) if before is not None and lead == (slice(None),) else ()
        expected = (*length, self.plan.pair.time, stop - start, W)
        if values.shape != expected:
            raise ValueError(f"{name} has shape {values.shape}, not {expected}")
        with files.reached(self.url):
            self._group[name][(*lead, self.plan.slots(frame), slice(start, stop))] = canonical(values)


@contextlib.contextmanager
def writing(
    url: str, plan: OutputPlan, *, resume: bool = True, overwrite: bool = False
) -> Iterator[tuple[Output, Record]]:
    """Hold an output alone, created or as it was left, and save what was finished when it is let go.

    What an earlier command left unfinished is carried on if it was to have the same values (`resume`), also
    under `overwrite`, so that a killed command carries on when it is given again.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    plan : OutputPlan
    resume : bool
        Without it, an unfinished output of the same values is begun again.
    overwrite : bool
        Replace what an earlier downscaling has written here.

    Yields
    ------
    Output
        For the workers.
    Record
        For this process: `finished`, `mark`, `finish`; `complete` if there is nothing left to do.

    Raises
    ------
    UserError
        If something else is there, another process is writing to it, it has or was to have other values, or
        it is complete (without `resume`).
    """
    url = files.resolve(url)
    refuse_foreign(url)
    message = (
        f"output {url}: another downscaling is writing to it; wait for its end, or give another --output"
    )
    with contextlib.ExitStack() as stack:
        try:
            with files.reached(url):
                lease = stack.enter_context(files.leased(files.join(url, LOCK), message))
                account, complete = _prepared(url, plan, resume, overwrite)
                if complete:
                    files.remove(files.join(url, RECORD))  # of a process that was killed just before
        except OSError as error:  # of a system folder, say, whose permissions do not tell
            raise UserError(
                f"output {url}: cannot be written ({one_line(error)}); give another --output"
            ) from error
        record = Record(url, account, complete=complete, still_alone=lease.check)
        try:
            yield Output(url, plan), record
        except BaseException:
            with contextlib.suppress(UserError):  # what came first is what to tell
                record.close()
            raise
        record.close()


def _prepared(url: str, plan: OutputPlan, resume: bool, overwrite: bool) -> tuple[Account, bool]:
    """Create the output or find it; give what it says of itself, and whether it is complete."""
    found = state(url)
    if found in ("complete", "incomplete"):
        try:
            account = Account.read(url, MANIFEST if found == "complete" else RECORD)
        except UserError:
            if not overwrite:
                raise
            return _create(url, plan), False
        same = account.fingerprint == plan.fingerprint
        if not same and not overwrite:
            done = "was made" if found == "complete" else "was begun"
            raise UserError(
                f"output {url}: it {done} with {account.differences(plan.deciding)}; give another --output, "
                "or add --overwrite to replace it"
            )
        if found == "complete" and same and not overwrite:
            if not resume:
                raise UserError(f"output {url}: it is complete; add --overwrite to make it again")
            return account, True
        if found == "incomplete" and same and resume and account.ready:
            return account, False
    return _create(url, plan), False


def _create(url: str, plan: OutputPlan) -> Account:
    """Put a new output in place of what was there; killed in between, it is begun again."""
    account = Account(plan.fingerprint, plan.deciding, dict(plan.notes), (plan.frames, plan.parts))
    account.write(url, RECORD)
    files.remove(files.join(url, MANIFEST))
    for name in files.list_folder(url):
        if name not in (RECORD, LOCK, ""):
            files.remove_folder(files.join(url, name))
    complete = _attributes(plan)
    group = zarr.create_group(layout.backend(url), zarr_format=3, attributes=complete[""])
    for name, values in _coordinates(plan).items():
        layout.small_array(group, name, values, (name,), complete)
    if "crs" in complete:
        layout.small_array(group, "crs", np.zeros((), "i4"), (), complete)
    shape = (len(plan.axis), *plan.grid)
    for name, lead in plan.arrays.items():
        group.create_array(
            name,
            shape=shape if lead is None else (lead[1], *shape),
            chunks=plan.chunks if lead is None else (1, *plan.chunks),
            dtype="<f4",
            fill_value=float("nan"),  # frames that are not refined take no space
            dimension_names=(*(() if lead is None else lead[:1]), "time", "y", "x"),
            attributes=complete[name],
        )
    with layout.quiet():
        zarr.consolidate_metadata(group.store)
    account = replace(account, ready=True)
    account.write(url, RECORD)
    return account


def _coordinates(plan: OutputPlan) -> dict[str, np.ndarray]:
    """Give the coordinates of all dimensions."""
    values = {
        "member": np.arange(plan.members, dtype="<i4"),
        "quantile": np.asarray(plan.quantiles, "<f8"),
        "threshold": np.asarray(plan.exceed, "<f8"),
        "time": plan.axis.astype("int64"),
        "y": np.asarray(plan.y, "<f8"),
        "x": np.asarray(plan.x, "<f8"),
    }
    return {name: along for name, along in values.items() if len(along)}


def _attributes(plan: OutputPlan) -> dict[str, dict[str, Any]]:
    """Say everything in CF's words, by array; of the group under the empty name."""
    variable, units = plan.variable, plan.units
    given = dict(plan.attributes)
    if plan.crs is not None and "grid_mapping_name" not in given.get("crs", {}):
        with contextlib.suppress(
            UserError, RuntimeError
        ):  # without pyproj, or for a text that it cannot read
            given["crs"] = axes.cf_of_crs(plan.crs, "output")["crs"] | dict(given.get("crs", {}))
    complete = layout.complete_attributes(given, f"{variable}, downscaled", variable, units, plan.crs)
    complete[""] |= _plain({**plan.notes, **plan.facts, "pair": str(plan.pair)})
    complete[""][FINGERPRINT] = plan.fingerprint
    field = complete[variable]
    long_name = field["long_name"]
    complete[f"{variable}_mean"] = field | {
        "long_name": f"{long_name}: mean of the ensemble",
        "cell_methods": "realization: mean",
    }
    complete[f"{variable}_quantile"] = field | {"long_name": f"{long_name}: quantile of the ensemble"}
    kept = {key: value for key, value in field.items() if key == "grid_mapping"}
    complete[f"{variable}_exceedance"] = kept | {
        "long_name": f"probability that {long_name} exceeds the threshold",
        "units": "1",
    }
    complete["member"] = {"standard_name": "realization", "long_name": "member of the ensemble", "units": "1"}
    complete["quantile"] = {"long_name": "quantile of the ensemble", "units": "1"}
    complete["threshold"] = {"long_name": f"threshold of {long_name}", "units": units}
    return complete


def _plain(values: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Bring values to what an attribute of NetCDF can be."""
    described = {name: value for name, value in values.items() if value is not None}
    return {
        name: value if isinstance(value, str | int | float) and not isinstance(value, bool) else _text(value)
        for name, value in described.items()
    }


def _text(value: Mapping[str, Any] | Sequence[Any] | bool) -> str:
    return json.dumps(value)
