"""The values: read once, checked, and put where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError
from pipeline.ingest.inputs import Faults, Plan, order
from pipeline.sources.readers import Source
from pipeline.sources.rules import SourceRules
from pipeline.sources.timeline import Axis
from pipeline.store import manifest
from pipeline.store.writer import FrameDiffersError, StoreWriter

_STORE = "the store"

Progress = Callable[[str, int], Callable[[int], None]]
"""Called with what is done and out of how many frames; gives a function to tell how many more were done."""


@dataclass
class Transferred:
    """What became of the frames.

    Attributes
    ----------
    appended, filled, known, kept : int
        Behind the last frame; into a gap; there already, with the same values; there already with others.
    """

    appended: int = 0
    filled: int = 0
    known: int = 0
    kept: int = 0


def without_bad_values(
    planned: Plan, axis: Axis | None, *, keep_stored: bool, tell: Callable[[int], None]
) -> Plan:
    """Read every value once, before anything is written, and leave out the files that have bad ones.

    Raises
    ------
    UserError
        If faults are not skipped, or no file is left; or if two files contradict each other.
    """
    kept: list[Source] = []
    seen: dict[int, tuple[bytes, str]] = {}  # of times that come more than once: digest and file
    doubled = _doubled(planned.sources)
    for source, factor in zip(planned.sources, planned.factors, strict=True):
        moments = source.header.times.astype("datetime64[s]").astype("int64").tolist()
        at, here = 0, dict(seen)
        try:
            for fields in checked(source, 0, len(moments), factor, planned.request.rules):
                for frame in zip(*fields, strict=True):
                    moment, at = moments[at], at + 1
                    if moment in doubled and not keep_stored:
                        digest = manifest.frame_digest(*frame)
                        before, path = here.setdefault(moment, (digest, source.path))
                        if before != digest:
                            raise _ContradictionError(
                                _contradiction(planned, source, np.datetime64(moment, "s"), path)
                            )
                tell(len(fields[0]))
            kept.append(source)
            seen = here
        except _ContradictionError:
            raise
        except UserError as error:
            planned.faults.note(error)
    if len(kept) == len(planned.sources):
        return planned
    return order(planned.request, kept, planned.faults, axis, planned.passed)


class _ContradictionError(UserError):
    """Two files, each good in itself, of which one must be wrong."""


def _doubled(sources: Sequence[Source]) -> set[int]:
    """Find the times (seconds) that come more than once."""
    times = np.concatenate(
        [source.header.times.astype("datetime64[s]").astype("int64") for source in sources]
    )
    values, counts = np.unique(times, return_counts=True)
    return set(values[counts > 1].tolist())


def _contradiction(planned: Plan, source: Source, time: np.datetime64, there: str) -> str:
    remedy = "leave the file out"
    if planned.request.ingest_flags:
        remedy += ", or add --keep-stored to keep what came first"
    elif there == _STORE:
        remedy += ", or add --overwrite"
    return f"{source.path}: time {time} comes twice, with other values in {there}; {remedy}"


def transfer(
    planned: Plan, writer: StoreWriter, known: int, *, keep_stored: bool, tell: Callable[[int], None]
) -> Transferred:
    """Put every frame of a plan into the store.

    Parameters
    ----------
    planned : Plan
    writer : StoreWriter
    known : int
        Frames of the store before.
    keep_stored : bool
        Go on where a file has other values than the store, and keep the store's.
    tell : callable
        Told how many frames were done.

    Raises
    ------
    UserError
        For values that cannot be, a file that cannot be read, or one that contradicts the store.
    """
    done, line = Transferred(), planned.line
    assert line is not None
    came_from: dict[int, str] = {}  # places of this command's frames, for the message
    for index, first, stop, places in line.runs():
        source, k = planned.sources[index], 0
        blocks = checked(source, first, stop, planned.factors[index], planned.request.rules)
        for fields in _noted(blocks, planned.faults):
            for frame in zip(*fields, strict=True):
                place = int(places[k])
                k += 1
                try:
                    new = writer.put(place, frame, manifest.frame_digest(*frame))
                except FrameDiffersError as error:
                    if not keep_stored:
                        there = came_from.get(place, _STORE)
                        raise UserError(_contradiction(planned, source, line.time(place), there)) from error
                    done.kept += 1
                    continue
                came_from[place] = source.path
                done.known += not new
                done.appended += new and place >= known
                done.filled += new and place < known
            tell(len(fields[0]))
        if k != stop - first:
            raise UserError(f"{source.path}: {k} frames for {stop - first} times")
    return done


def _noted(blocks: Iterator[Sequence[np.ndarray]], faults: Faults) -> Iterator[Sequence[np.ndarray]]:
    """Give blocks, and say of a fault in them what can be done about it."""
    try:
        yield from blocks
    except UserError as error:
        faults.note(error)
        raise


def checked(
    source: Source, start: int, stop: int, factor: float, rules: SourceRules | None
) -> Iterator[Sequence[np.ndarray]]:
    """Read frames [start, stop) in the store's units, and refuse values that cannot be.

    Yields
    ------
    sequence of np.ndarray
        (n, H, W) float32: the field, then every dynamic covariate.

    Raises
    ------
    UserError
    """
    others = [source.blocks(start, stop, name) for name in source.header.dynamics]
    limits = rules.valid_range if rules else None
    at = start
    for block in source.blocks(start, stop):
        # In double precision, so that 0.01 mm in 5 minutes is the float32 nearest to 0.12 mm/h.
        values = np.asarray(block.astype(np.float64) * factor, np.float32)
        _refuse_impossible(source, values, at, factor, limits)
        extras = [np.asarray(next(other), np.float32) for other in others]
        for name, extra in zip(source.header.dynamics, extras, strict=True):
            if extra.shape != values.shape:
                raise UserError(f"{source.path}: {name} has {extra.shape} values, the field {values.shape}")
            if np.isinf(extra).any():
                raise UserError(f"{source.path}: {name} has infinite values; mark them as missing first")
        at += len(values)
        yield values, *extras


def _refuse_impossible(
    source: Source, values: np.ndarray, at: int, factor: float, limits: tuple[float, float] | None
) -> None:
    name, header = source.header.variable, source.header
    lowest = np.nanmin(values, initial=np.inf)
    highest = np.nanmax(values, initial=-np.inf)
    if highest == np.inf or lowest == -np.inf:
        raise UserError(f"{source.path}: {name} has infinite values; mark them as missing first")
    if lowest < 0 and not (limits and limits[0] < 0):
        smallest = f"{lowest / factor:g} {header.units}".strip()
        raise UserError(
            f"{source.path}: {name} has negative values, down to {smallest}; "
            "set them to 0, or mark them as missing, first"
        )
    if limits and (lowest < limits[0] or (highest > limits[1] and np.isfinite(highest))):
        odd = lowest if lowest < limits[0] else highest
        k = int(np.flatnonzero(np.nanmax(np.abs(np.where(values == odd, 1, 0)), axis=(1, 2)))[0])
        raise UserError(
            f"{source.path}: {name} is {odd:g} at {header.times[at + k]}, outside {limits[0]:g} to "
            f"{limits[1]:g} (valid_range of the source); mend the file, or give a --source with other limits"
        )
