"""Checks of the values in a field store, frame by frame; each gives a verdict and its reasons."""

from __future__ import annotations

import numpy as np

from pipeline.progress import duration
from pipeline.store.checks.findings import Subject, Verdict, counted, places, runs

Outcome = tuple[Verdict, str, str, tuple[int, ...]]
"""Verdict, what was found, what to do about it, and the frames concerned."""

_AGAIN = "ingest its files again with --overwrite"
_MEND = "mend or leave out these files and ingest again with --overwrite"
_MISSING_NOTE = 0.05  # of the values of pixels that are valid at times
_DRY_NOTE = 0.9  # of the frames
_DRIZZLE, _SHOWER = 0.02, 1.0  # mm/h: below these a mean and a maximum may leap as they like
_RAIN = 0.05  # mm/h: a mean over the domain that does not end within a frame


def reading(subject: Subject) -> Outcome:
    """Whether all bytes of the field can be decoded."""
    field = subject.scan.field
    if frames := places(field.unreadable):
        found = f"cannot be read: {subject.listed(frames)} ({field.error})"
        return Verdict.PROBLEM, found, f"copy the store again, or {_AGAIN}", frames
    return Verdict.OK, f"{counted(int(subject.scan.seen.sum()), 'frame')} read", "", ()


def plausible_range(subject: Subject) -> Outcome:
    """Whether all values are finite and such as rain can have."""
    field, limits, factor = subject.scan.field, subject.limits, subject.factor
    units = subject.info.units
    if not field.valid.any():
        return Verdict.NOTE, "no value to look at", "", ()
    infinite, outside = places(field.infinite > 0), places(field.outside > 0)
    faults = [f"infinite values in {subject.listed(infinite)}"] if infinite else []
    low, high = (bound / (factor or np.nan) for bound in (limits.least, limits.most))
    bounds = f"{low:g} to {high:g}"
    finite = np.isfinite(field.least)
    least = float(np.min(field.least, where=finite, initial=np.inf))
    most = float(np.max(field.most, where=finite, initial=-np.inf))
    found = f"{least:.4g} to {most:.4g} {units}"
    if outside:
        number = counted(int(field.outside.sum()), "value")
        what = "negative" if least < 0 <= low and most <= high else f"outside {bounds}"
        faults.append(f"{found}: {number} {what} in {subject.listed(outside)}")
    if faults:
        return Verdict.PROBLEM, "; ".join(faults), _MEND, tuple(sorted({*infinite, *outside}))
    if factor is None:
        return Verdict.OK, f"{found}, all finite", "", ()
    return Verdict.OK, f"{found}, within {bounds}", "", ()


def gaps(subject: Subject) -> Outcome:
    """How many frames no file had, and whether they are recorded in order."""
    total, recorded = subject.store.shape[0], subject.info.gaps
    end = 0
    for first, count in recorded:
        if first < end or count < 1 or first + count > total:
            found = f"recorded as {counted(count, 'frame')} from {first}: out of order or beyond the {total}"
            return Verdict.PROBLEM, found, _AGAIN, ()
        end = first + count
    if not recorded:
        return Verdict.OK, "none", "", ()
    seconds = subject.info.cadence_seconds
    lost = sum(count for _, count in recorded)
    longest = max(count for _, count in recorded)
    first_few = ", ".join(f"{count} from {subject.when(first)}" for first, count in recorded[:3])
    more = f" and {len(recorded) - 3} more" if len(recorded) > 3 else ""
    found = (
        f"{counted(len(recorded), 'gap')} of {counted(lost, 'frame')} in all ({lost / total:.1%}), "
        f"the longest {duration(longest * seconds)}: {first_few}{more}"
    )
    return Verdict.NOTE, found, "when the files come, ingest them into the same store", ()


def missing(subject: Subject) -> Outcome:
    """How much is missing outside gaps, and how much of that only at times."""
    counts, frames = subject.scan.counted, int(subject.scan.seen.sum())
    if not counts.any():
        return Verdict.PROBLEM, "every value is missing", f"check the variable and {_AGAIN}", ()
    never = float((counts == 0).mean())
    now_and_then = 1 - counts.sum() / (frames * np.count_nonzero(counts))
    if counts.min() == frames:
        return Verdict.OK, "nothing outside gaps", "", ()
    found = (
        f"{1 - counts.mean() / frames:.1%} of the values outside gaps: {never:.1%} of the pixels always, "
        f"the others {now_and_then:.1%} of the time"
    )
    if now_and_then > _MISSING_NOTE:
        return Verdict.NOTE, found, "see the map and the coverage in the figure", ()
    return Verdict.OK, found, "", ()


def empty_frames(subject: Subject) -> Outcome:
    """Whether frames are wholly missing without being recorded as gaps."""
    frames = places(subject.scan.seen & (subject.scan.field.valid == 0))
    if frames:
        remedy = "leave these files out and ingest again with --overwrite, so that they count as gaps"
        return (
            Verdict.PROBLEM,
            f"wholly missing, not recorded as gaps: {subject.listed(frames)}",
            remedy,
            frames,
        )
    return Verdict.OK, "none outside the gaps", "", ()


def coverage(subject: Subject) -> Outcome:
    """Whether frames lack many of the pixels that the others have."""
    scan, limits = subject.scan, subject.limits
    some = scan.seen & (scan.field.valid > 0)
    if not some.any():
        return Verdict.NOTE, "no valid frame", "", ()
    usual = float(np.median(scan.field.valid[some]))
    lost = np.where(some, 1 - scan.field.valid / usual, 0.0)
    poor = places(lost > limits.lost_note)
    usually = f"{usual / scan.counted.size:.1%} of the grid"
    if not poor:
        return Verdict.OK, f"{usually}, never {limits.lost_note:.0%} less", "", ()
    found = f"usually {usually}, down to {usual * (1 - lost.max()) / scan.counted.size:.1%}: less in "
    remedy = "see the coverage in the figure; leave the files out if the radars had failed"
    worst = Verdict.PROBLEM if lost.max() > limits.lost_problem else Verdict.NOTE
    return worst, found + subject.listed(poor), remedy, poor


def constant(subject: Subject) -> Outcome:
    """Whether frames have the same rain everywhere."""
    field = subject.scan.field
    flat = (field.valid > 1) & (field.infinite == 0) & (field.least == field.most) & (field.most != 0)
    if frames := places(flat & subject.scan.seen):
        found = f"{field.most[frames[0]]:.4g} {subject.info.units} everywhere in {subject.listed(frames)}"
        return Verdict.PROBLEM, found, _MEND, frames
    return Verdict.OK, "no frame with the same rain everywhere", "", ()


def frozen(subject: Subject) -> Outcome:
    """Whether wet frames repeat the one before: a recording that stood still."""
    field, limits = subject.scan.field, subject.limits
    wet = np.nan_to_num(field.most) * (subject.factor or 1) > limits.wet
    if subject.factor == 1:  # only then are the wet pixels counted at a threshold that means something
        wet &= field.wet >= limits.frozen_wet
    same = field.repeats & wet & (field.most > field.least)  # `constant` names the others
    if frames := places(same):
        longest = max(count for _, count in runs(same))
        row = f", up to {longest} in a row" if longest > 1 else ""
        found = f"the same as the frame before{row}: {subject.listed(frames)}"
        return Verdict.PROBLEM, found, _MEND, frames
    return Verdict.OK, "no wet frame repeats the one before", "", ()


def leaps(subject: Subject) -> Outcome:
    """Whether a frame's total or maximum is far from both neighbours'; a robust comparison of logarithms."""
    field, limits = subject.scan.field, subject.limits
    if subject.factor is None:
        return Verdict.OK, "not looked at: no units of rain", "", ()
    usable = subject.scan.seen & (field.valid > 0) & (field.infinite == 0)
    totals = _leaps(field.mean * subject.factor, usable, _DRIZZLE, limits.leap, limits.leap_scales)
    peaks = _leaps(field.most * subject.factor, usable, _SHOWER, limits.leap_maximum, limits.leap_scales)
    frames, high = places((totals != 0) | _blank(subject, usable)), places(peaks > 0)
    quick = subject.info.cadence_seconds <= limits.continuous_seconds
    if frames:
        verdict = Verdict.PROBLEM if quick else Verdict.NOTE
        remedy = _MEND if quick else "look at them: at this cadence it can be real"
        found = f"total far from both neighbours' in {subject.listed(frames)}"
        found += f"; maximum, in {subject.listed(high)}" if high else ""
        return verdict, found, remedy, tuple(sorted({*frames, *high}))
    if high:
        remedy = "look at them: clutter or interference, if it is not a cell of its own"
        return Verdict.NOTE, f"maximum far above both neighbours' in {subject.listed(high)}", remedy, high
    return Verdict.OK, "totals and maxima follow their neighbours", "", ()


def _leaps(values: np.ndarray, usable: np.ndarray, floor: float, factor: float, scales: float) -> np.ndarray:
    """Give the sign of every leap, (T,): 0 where a value is near to one of its neighbours or has not both.

    Values are compared as log(value + floor). A leap is a step away from both neighbours by more than
    `factor` and more than `scales` times the usual step (its median absolute deviation, where it rains).
    """
    level = np.log(np.where(usable, np.maximum(np.nan_to_num(values), 0), 0) + floor)
    steps = np.diff(level)
    both = usable[1:] & usable[:-1]
    rainy = both & (np.maximum(level[1:], level[:-1]) > np.log(2 * floor))
    usual = 1.4826 * float(np.median(np.abs(steps[rainy]))) if rainy.any() else 0.0
    threshold = max(np.log(factor), scales * usual)
    found = np.zeros(len(values), int)
    up, down = steps[:-1], -steps[1:]  # from the one before, and from the one after
    away = both[:-1] & both[1:] & (np.sign(up) == np.sign(down))
    away &= np.minimum(np.abs(up), np.abs(down)) > threshold
    found[1:-1] = np.where(away, np.sign(up), 0)
    return found


def _blank(subject: Subject, usable: np.ndarray) -> np.ndarray:
    """Tell which frames are dry between two rainy ones: zeros in place of missing values, (T,) bool."""
    mean, most = (v * (subject.factor or 1) for v in (subject.scan.field.mean, subject.scan.field.most))
    rainy = usable & (np.nan_to_num(mean) > _RAIN)
    found = usable & (np.nan_to_num(most) <= subject.limits.wet)
    found[[0, -1]] = False
    found[1:-1] &= rainy[:-2] & rainy[2:]
    return found


def dry(subject: Subject) -> Outcome:
    """How often and how long it is dry."""
    field, factor = subject.scan.field, subject.factor
    if factor is None:
        return Verdict.OK, "not looked at: no units of rain", "", ()
    some = subject.scan.seen & (field.valid > field.infinite)
    without = some & (np.nan_to_num(field.most) * factor <= subject.limits.wet)
    if not some.any():
        return Verdict.NOTE, "no valid frame", "", ()
    threshold = f"{subject.limits.wet:g} mm/h"
    if without.sum() == some.sum():
        return Verdict.PROBLEM, f"no value above {threshold}: nothing to learn", "check the units", ()
    share = without.sum() / some.sum()
    found = f"{share:.1%} of the frames without a value above {threshold}"
    if without.any():
        first, count = max(runs(without), key=lambda run: run[1])
        spell = duration(count * subject.info.cadence_seconds)
        found += f", the longest spell {spell} from {subject.when(first)}"
    verdict = Verdict.NOTE if share > _DRY_NOTE else Verdict.OK
    return verdict, found, "few windows to train on" if verdict is Verdict.NOTE else "", ()


def dynamics(subject: Subject) -> Outcome:
    """Whether the dynamic covariates are there, finite, seldom missing and not constant."""
    scan = subject.scan
    size = int(scan.seen.sum()) * scan.counted.size
    notes: list[str] = []
    said: list[str] = []
    for name, series in scan.dynamics.items():
        if bad := places(series.unreadable):
            found = f"{name} cannot be read: {subject.listed(bad)} ({series.error})"
            return Verdict.PROBLEM, found, _AGAIN, bad
        if infinite := places(series.infinite > 0):
            return Verdict.PROBLEM, f"{name}: infinite values in {subject.listed(infinite)}", _MEND, infinite
        if not series.valid.any():
            return Verdict.PROBLEM, f"{name}: every value is missing", f"leave it out or {_AGAIN}", ()
        least, most = float(np.nanmin(series.least)), float(np.nanmax(series.most))
        lost = 1 - series.valid[scan.seen].sum() / max(size, 1)
        line = f"{name} {least:.4g} to {most:.4g}, {lost:.1%} missing"
        (notes if least == most or lost > _MISSING_NOTE else said).append(line)
    if notes:
        found = f"constant, or often missing: {'; '.join(notes)}"
        return Verdict.NOTE, found, "check it in the files: a model can learn little from it", ()
    return Verdict.OK, "; ".join(said) or "none", "", ()
