"""Saying what an ingest would do, and what it did."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.ingest.inputs import Plan
from pipeline.ingest.run import Ingested, Target
from pipeline.ingest.transfer import checked
from pipeline.sources.timeline import describe_gaps
from pipeline.store import manifest
from pipeline.store.field_store import FieldStore
from pipeline.store.frame_rows import WET, frame_statistics


def describe_plan(planned: Plan, target: Target, store: FieldStore | None) -> str:
    """Say what would be done with files whose headers are good, and show it on the first frame.

    Raises
    ------
    UserError
        If the first frame has values that cannot be.
    """
    if not planned.sources:
        return "\n".join(["dry run: nothing is written", *_table([("files", _nothing_new(planned))])])
    header, line = planned.header, planned.line
    assert line is not None
    factors = sorted(set(planned.factors))
    conversion = (
        "taken unchanged" if planned.request.units else f"times {', '.join(f'{f:g}' for f in factors)}"
    )
    rows, columns = header.grid
    statics = sorted(target.statics or ()) if store is None else store.info.statics
    lines = [
        ("store", f"{target.url} ({_what_would_be(target, store)})"),
        ("files", f"{len(planned.sources)} good headers; values are checked as they are read"),
        ("values", f"{header.variable} in {header.units or 'no units'}, {conversion}: {planned.units}"),
        ("shape", f"{_places(planned)} frames of {rows} x {columns} pixels"),
        ("period", f"{line.time(0)} to {line.time(line.frames - 1)}, every {line.cadence_seconds} s"),
        ("gaps", _planned_gaps(planned, store)),
        ("grid", f"y {_span(header.y)}, x {_span(header.x)}"),
        ("projection", (header.crs or "none given")[:90]),
        ("statics", ", ".join(statics) or "none"),
        ("dynamics", ", ".join(header.dynamics) or "none"),
        *_first_frame(planned),
    ]
    return "\n".join(["dry run: nothing is written", *_table(lines), *_skipped(planned)])


def _places(planned: Plan) -> int:
    assert planned.line is not None
    return len(np.unique(planned.line.entries[:, 0]))


def _what_would_be(target: Target, store: FieldStore | None) -> str:
    if store is not None:
        return f"{store.shape[0]} frames are there, up to {store.info.end}; what is new is added"
    found = manifest.state(target.url)
    return {"absent": "new", "incomplete": "replaces one whose ingest was cut short"}.get(found, "replaced")


def _planned_gaps(planned: Plan, store: FieldStore | None) -> str:
    line = planned.line
    assert line is not None
    there = np.zeros(line.frames, bool)
    there[line.entries[:, 0]] = True
    if store is not None:
        there[: store.shape[0]] |= store.rows.present
    edges = np.flatnonzero(np.diff(np.concatenate([[True], there, [True]]).astype(int)))
    gaps = [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return describe_gaps(gaps, line.start, line.cadence_seconds)


def _first_frame(planned: Plan) -> list[tuple[str, str]]:
    """Show what becomes of one frame's values."""
    assert planned.line is not None
    if not len(planned.line.entries):
        return []
    _, index, frame = planned.line.entries[0]
    source, factor, unit = planned.sources[index], planned.factors[index], planned.units
    raw = next(iter(source.blocks(frame, frame + 1)))[0]
    field = next(iter(checked(source, frame, frame + 1, factor, planned.request.rules)))[0][0]
    valid, wet, total, highest = frame_statistics(field)
    missing = f"{source.header.times[frame]}: {1 - valid / field.size:.1%} missing"
    if not valid:
        return [("first frame", missing)]
    read = f"{np.nanmin(raw):g} to {np.nanmax(raw):g} {source.header.units}"
    becomes = f"{np.nanmin(field):g} to {highest:.4g} {unit}, mean {total / valid:.3g}, {wet / valid:.1%} wet"
    return [("first frame", f"{missing}; {read} becomes {becomes}")]


def describe_ingested(done: Ingested) -> str:
    """Say what is in a store, and what this ingest changed of it."""
    store, info = done.store, done.store.info
    unit, statistics = info.units, store.statistics
    valid, wet = statistics[:, 0].sum(), statistics[:, 1].sum()
    frames, rows, columns = info.shape
    lines = [
        ("store", f"{store.url} ({_what_was_done(done)})"),
        ("field", f"{info.variable} of {info.name}, {unit}"),
        ("shape", f"{frames} frames of {rows} x {columns} pixels"),
        ("period", f"{info.start} to {info.end}, every {info.cadence_seconds:g} s"),
        ("gaps", describe_gaps(info.gaps, np.datetime64(info.start, "s"), int(info.cadence_seconds))),
        ("wet", f"{wet / valid:.1%} of the valid values above {WET:g} {unit}"),
        ("maximum", f"{np.nanmax(statistics[statistics[:, 0] > 0, 3]):.4g} {unit}"),
        ("missing", f"{info.missing_fraction:.1%}"),
        ("statics", ", ".join(info.statics) or "none"),
        ("dynamics", ", ".join(info.dynamics) or "none"),
        ("fingerprint", info.fingerprint),
        ("next", f"python jobs/ingest.py --check {store.url}"),
        ("", f"python jobs/tune_factors.py --store {store.url} --pairs 4x2"),
    ]
    return "\n".join([*_table(lines), *_skipped(done.planned)])


def _what_was_done(done: Ingested) -> str:
    frames = done.frames
    if done.created:
        return "written"
    if not done.changed and not frames.kept:
        passed = f"; {_nothing_new(done.planned)}" if done.planned.passed else ""
        return f"already there, with the same content{passed}"
    counted = (
        (frames.appended, "appended"),
        (frames.filled, "filled into gaps"),
        (frames.known, "there already"),
        (frames.kept, "differed and were left as they are"),
    )
    return "frames: " + ", ".join(f"{count} {what}" for count, what in counted if count)


def _nothing_new(planned: Plan) -> str:
    return f"{planned.passed} files passed over, the store has their times"


def _span(axis: np.ndarray) -> str:
    return f"{axis[0]:g} to {axis[-1]:g}"


def _table(lines: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{word:<12} {text}" for word, text in lines]


def _skipped(planned: Plan) -> list[str]:
    found = planned.faults.found
    head = f"{'skipped':<12} {len(found)} of {planned.faults.files} files:"
    return [head, *(f"  {fault}" for fault in found)] if found else []
