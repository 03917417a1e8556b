"""Checks of a field store: the list of all, and those of what describes the values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.errors import UserError
from pipeline.progress import duration
from pipeline.store import manifest
from pipeline.store.checks import frame_checks
from pipeline.store.checks.findings import Finding, Limits, Subject, UnreadableError, Verdict, counted, places
from pipeline.store.checks.scan import Scan
from pipeline.store.field_store import FieldStore

_AGAIN = "ingest its files again with --overwrite"
_EVEN = 0.01  # of the spacing: what coordinates rounded to float32 or to metres may be off
_DAY = 86400


def run_checks(store: FieldStore, scan: Scan, limits: Limits | None = None) -> list[Finding]:
    """Check a store that was scanned.

    Parameters
    ----------
    store : FieldStore
    scan : Scan
        Made with `limits` as the plausible range, see `pipeline.store.checks.report`.
    limits : Limits, optional

    Returns
    -------
    list of Finding
        One per check, always the same checks in the same order.
    """
    subject = Subject(store, scan, limits or Limits())
    findings = []
    for name, check in CHECKS.items():
        try:
            findings.append(Finding(name, *check(subject)))
        except UnreadableError as error:
            findings.append(Finding(name, Verdict.PROBLEM, str(error), _AGAIN))
    return findings


def units(subject: Subject) -> frame_checks.Outcome:
    """Whether the units are known ones of rain."""
    info = subject.info
    if subject.factor is None:
        what = f"{info.variable} in {info.units!r}, which are no units of rain: no range to check it against"
        return Verdict.NOTE, what, "if it is rain, ingest it again with the units it has", ()
    scale = "" if subject.factor == 1 else f", {subject.factor:g} mm/h each"
    return Verdict.OK, f"{info.variable} in {info.units}{scale}", "", ()


def time(subject: Subject) -> frame_checks.Outcome:
    """Whether the stored times rise evenly from the start by the cadence."""
    info, frames = subject.info, subject.store.shape[0]
    # Not `store.times`: those are computed from the manifest, other readers take the array.
    stored = subject.array("time")[:frames].astype("int64")
    expected = subject.store.times.astype("datetime64[s]").astype("int64")
    if len(stored) < frames:
        return Verdict.PROBLEM, f"{len(stored)} times for {frames} frames", _AGAIN, ()
    steps = np.diff(stored)
    for faults, what in (
        (steps <= 0, "does not come after the one before"),
        (steps != info.cadence_seconds, f"is not {info.cadence_seconds:g} s after the one before"),
    ):
        if faults.any():
            first = int(np.flatnonzero(faults)[0]) + 1
            at = np.datetime64(int(stored[first]), "s")
            found = f"{counted(int(faults.sum()), 'uneven step')}, first at frame {first}: {at} {what}"
            return Verdict.PROBLEM, found, _AGAIN, tuple(i + 1 for i in places(faults))
    if stored[0] != expected[0] or str(subject.store.times[-1]) != info.end:
        begin, end = (np.datetime64(int(stored[i]), "s") for i in (0, -1))
        found = f"{begin} to {end}, but {manifest.MANIFEST} says {info.start} to {info.end}"
        return Verdict.PROBLEM, found, _AGAIN, ()
    return Verdict.OK, f"{frames} frames, {info.start} to {info.end}, rising evenly", "", ()


def cadence(subject: Subject) -> frame_checks.Outcome:
    """Whether the time between frames is one that rain is recorded at."""
    seconds = subject.info.cadence_seconds
    if seconds <= 0 or seconds != int(seconds):
        return Verdict.PROBLEM, f"{seconds:g} s is no whole positive number of seconds", _AGAIN, ()
    every = f"every {duration(seconds)}"
    if not 60 <= seconds <= 31 * _DAY:
        return Verdict.NOTE, f"{every}: unusual for a field of rain", "check the times of the files", ()
    if _DAY % seconds and seconds % _DAY:
        return Verdict.NOTE, f"{every}: does not divide a day", "check the times of the files", ()
    return Verdict.OK, every, "", ()


def coordinates(subject: Subject) -> frame_checks.Outcome:
    """Whether y and x are finite, monotonic and evenly spaced."""
    said = []
    for name, size in zip(("y", "x"), subject.store.shape[1:], strict=True):
        values = subject.array(name).astype("f8")
        steps = np.diff(values)
        fault = ""
        if values.shape != (size,):
            fault = f"has {values.size} values for {size} pixels"
        elif not np.isfinite(values).all():
            fault = f"has {counted(int((~np.isfinite(values)).sum()), 'value')} that are not finite"
        elif size > 1 and not ((steps > 0).all() or (steps < 0).all()):
            fault = "is not monotonic"
        elif size > 1 and np.abs(steps - steps.mean()).max() > _EVEN * abs(steps.mean()):
            widths = np.abs(steps)
            fault = f"is not evenly spaced: steps of {widths.min():g} to {widths.max():g}"
        if fault:
            return Verdict.PROBLEM, f"{name} {fault}", "regrid the files to an even grid and ingest again", ()
        said.append(f"{name} {values[0]:g} to {values[-1]:g}")
    return Verdict.OK, f"{', '.join(said)}, evenly spaced", "", ()


def projection(subject: Subject) -> frame_checks.Outcome:
    """Whether it is known where on Earth the grid lies."""
    crs = (subject.info.crs or "").strip()
    if not crs:
        remedy = "nothing needs it to train; maps and distances do"
        return Verdict.NOTE, "none: where on Earth the grid lies is not known", remedy, ()
    return Verdict.OK, " ".join(crs.split())[:80], "", ()


def statics(subject: Subject) -> frame_checks.Outcome:
    """Whether the static covariates are finite and tell pixels apart."""
    names, grid = subject.info.statics, subject.store.shape[1:]
    constant = []
    for name in names:
        values = subject.array(name)
        if values.shape != grid:
            return Verdict.PROBLEM, f"{name} is {values.shape}, the grid is {grid}", _AGAIN, ()
        bad = int((~np.isfinite(values)).sum())
        if bad:
            remedy = "fill it in the files and ingest again with --overwrite"
            return Verdict.PROBLEM, f"{name}: {counted(bad, 'pixel')} not finite", remedy, ()
        if values.min() == values.max():
            constant.append(f"{name} ({values.flat[0]:g})")
    if constant:
        return Verdict.NOTE, f"the same everywhere: {', '.join(constant)}", "it can teach nothing", ()
    return Verdict.OK, ", ".join(names) or "none", "", ()


def digests(subject: Subject) -> frame_checks.Outcome:
    """Whether the values, and all else that the fingerprint stands for, are those that were written."""
    store, scan, info = subject.store, subject.scan, subject.info
    remedy = f"copy the store again, or {_AGAIN}"
    whole = scan.present & scan.digests.any(axis=1)  # those that could be computed
    try:
        stored = store.digests
    except UserError:  # the first format had none
        stored = None
    except Exception as error:  # every codec has exceptions of its own for bad bytes
        found = f"the digests of the frames cannot be read ({manifest.one_line(error)})"
        return Verdict.PROBLEM, found, remedy, ()
    changed = whole & (stored != scan.digests).any(axis=1) if stored is not None else np.zeros_like(whole)
    if changed.any():
        frames = places(changed)
        return Verdict.PROBLEM, f"other values than were written in {subject.listed(frames)}", remedy, frames
    if stored is not None and (wrong := places(_misstated(subject))):
        return Verdict.PROBLEM, f"wrong statistics recorded of {subject.listed(wrong)}", remedy, wrong
    if (whole == scan.present).all() and _fingerprint(subject) != info.fingerprint:
        part = "time, units or a static covariate" if stored is not None else "something"
        return Verdict.PROBLEM, f"{part} changed: fingerprint other than {info.fingerprint[:12]}", remedy, ()
    if stored is None:
        found = "fingerprint as written; an older format, without a digest of each frame"
        return Verdict.NOTE, found, f"to add frames to it, {_AGAIN}", ()
    return Verdict.OK, f"{counted(int(whole.sum()), 'frame')} as written, fingerprint too", "", ()


def _misstated(subject: Subject) -> np.ndarray:
    """Tell of which frames the recorded statistics are not those of the values, (T,) bool."""
    field = subject.scan.field
    ours = np.stack([field.valid, field.wet, field.total, field.most], axis=1).astype("f8")
    agree = np.isclose(subject.store.statistics, ours, rtol=1e-6, atol=1e-9, equal_nan=True).all(axis=1)
    return subject.scan.seen & (field.infinite == 0) & ~agree


def _fingerprint(subject: Subject) -> str:
    """Compute a store's fingerprint from what was read; a gap counts as a frame of missing values."""
    scan, info = subject.scan, subject.info
    empty = np.full(info.shape[1:], np.nan, "f4")
    blank = np.frombuffer(manifest.frame_digest(*[empty] * (1 + len(info.dynamics))), np.uint8)
    frames = np.where(scan.present[:, None], scan.digests, blank)
    read = {name: subject.array(name) for name in info.statics}
    return manifest.fingerprint(info.variable, info.units, subject.store.times, frames, read, info.dynamics)


CHECKS: dict[str, Callable[[Subject], frame_checks.Outcome]] = {
    "units": units,
    "time": time,
    "cadence": cadence,
    "coordinates": coordinates,
    "projection": projection,
    "reading": frame_checks.reading,
    "digests": digests,
    "range": frame_checks.plausible_range,
    "gaps": frame_checks.gaps,
    "missing": frame_checks.missing,
    "empty frames": frame_checks.empty_frames,
    "coverage": frame_checks.coverage,
    "constant": frame_checks.constant,
    "frozen": frame_checks.frozen,
    "leaps": frame_checks.leaps,
    "dry": frame_checks.dry,
    "statics": statics,
    "dynamics": frame_checks.dynamics,
}
