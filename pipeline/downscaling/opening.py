"""What a user gives to be refined, opened as a store: it is one, or files are ingested into one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import TroubleError, UserError
from pipeline.ingest.inputs import Request
from pipeline.ingest.run import Ingested, Target, ingest
from pipeline.ingest.transfer import Progress
from pipeline.models.family import ModelSpec
from pipeline.sources.readers import Selection
from pipeline.sources.rules import OtherVariable, SourceRules
from pipeline.storage import files
from pipeline.store import manifest
from pipeline.store.field_store import FieldStore
from pipeline.store.frame_rows import present_in


def silent(what: str, total: int) -> Callable[[int], None]:
    """Show no progress."""
    return lambda done: None


@dataclass(frozen=True)
class InputRequest:
    """What is to be refined.

    Attributes
    ----------
    request : Request
        A field store, or files and how to read them, and the part that is wanted: coarse frames that end
        within its period, both ends included, or the one that it lies inside; and cells with their centres
        within its box.
    ingested_url : str
        Where files are ingested to; kept, so that the same command goes on from it.
    statics_url : str or None
        File with the static covariates on the fine pixels.
    coarsen : bool
        The input is fine, and is coarsened on the fly.
    overwrite : bool
        Replace what other files have left at `ingested_url`; what these have left is carried on.
    """

    request: Request
    ingested_url: str
    statics_url: str | None = None
    coarsen: bool = False
    overwrite: bool = False

    @property
    def selection(self) -> Selection:
        """The part that is wanted."""
        return self.request.selection or Selection()


def open_store(
    wanted: InputRequest, spec: ModelSpec, data: Mapping[str, Any], progress: Progress = silent
) -> FieldStore:
    """Open the store that was given, or ingest the files that were.

    Parameters
    ----------
    wanted : InputRequest
    spec : ModelSpec
    data : mapping
        What the model's card says about its data.
    progress : callable
        See `ingest`.

    Raises
    ------
    UserError
        If it is no store and no field, or files were ingested before that are not among these.
    """
    request = wanted.request
    if request.rules is None and len(request.paths) == 1 and _is_store(request.paths[0]):
        return _given(request)
    rules = _with_dynamics(request.rules, spec)
    selection = _with_context(wanted, spec, data)
    request = replace(request, rules=rules, selection=selection, only_new=False)
    url = files.resolve(wanted.ingested_url)
    replaceable = wanted.overwrite and manifest.state(url) in ("complete", "incomplete")
    try:
        done = ingest(request, Target(url), progress)
        _refuse_others(done)
    except TroubleError:
        raise
    except UserError:
        if not replaceable:
            raise
        done = ingest(request, Target(url, overwrite=True), progress)
    return done.store


def _is_store(path: str) -> bool:
    if path.startswith(("http://", "https://")):
        return False
    return manifest.state(files.resolve(path)) in ("complete", "incomplete")


def _given(request: Request) -> FieldStore:
    store = FieldStore.open(request.paths[0])
    if request.units is not None:
        raise UserError(f"--units {request.units}: store {store.url} is in {store.info.units}; leave it out")
    if request.variable not in (None, store.info.variable):
        raise UserError(
            f"--variable {request.variable}: the field of store {store.url} is {store.info.variable}; "
            "leave it out"
        )
    return store


def _with_dynamics(rules: SourceRules | None, spec: ModelSpec) -> SourceRules | None:
    """Have the model's dynamic covariates read, as the rules say or by their names."""
    names = [one.name for one in spec.dynamics]
    if not names:
        return rules.model_copy(update={"dynamics": {}}) if rules and rules.dynamics else rules
    if rules is not None and rules.reader != "grid":
        raise UserError(
            f"--source ({rules.description}): its files hold one field, and the model needs the dynamic "
            f"covariates {', '.join(names)}; ingest them together into a store, and give that"
        )
    rules = rules or SourceRules(description="grid with dynamic covariates")
    wanted = {name: rules.dynamics.get(name, OtherVariable(variable=name)) for name in sorted(names)}
    return rules.model_copy(update={"dynamics": wanted})


def _with_context(wanted: InputRequest, spec: ModelSpec, data: Mapping[str, Any]) -> Selection | None:
    """Select the L - 1 frames before the period too, and the one that it may lie inside.

    Of a fine field all is selected, as cells count from its corner.
    """
    selection = wanted.request.selection
    if wanted.coarsen or selection is None:
        return None
    start, stop, fine = selection.start, selection.stop, data.get("cadence_seconds")
    if start is not None and fine is not None:
        span = np.timedelta64(round(spec.pair.time * float(fine)), "s")
        if stop is not None:  # where the last frame ends that can hold all of the period
            stop = max(stop, start + span - np.timedelta64(1, "s"))
        return replace(selection, start=start - (spec.parameters.context - 1) * span, stop=stop)
    return replace(selection, start=None)


def _refuse_others(done: Ingested) -> None:
    """Refuse a store with frames of earlier files, which would be refined too, and seen as context."""
    line = done.planned.line
    there = present_in(done.store.info)
    given = np.zeros_like(there)
    if line is not None:
        given[line.entries[:, 0]] = True
    others = np.flatnonzero(there & ~given)
    if len(others):
        raise UserError(
            f"store {done.store.url}: holds {len(others)} frames that are not among those given now, the "
            f"first is {done.store.times[others[0]]}; replace it with --overwrite, or remove it"
        )
