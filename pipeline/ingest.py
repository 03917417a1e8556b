"""Bringing files into a field store, and saying what was done."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipeline import files
from pipeline.data import inputs, manifest, units
from pipeline.data.inputs import Plan, Progress, Statistics
from pipeline.data.store import FieldStore, refuse_to_replace, write_store
from pipeline.errors import UserError


def expand(patterns: Sequence[str]) -> list[str]:
    """Expand shell patterns that arrived unexpanded, and sort what they match.

    Raises
    ------
    UserError
        If a pattern matches nothing, or a file comes twice.
    """
    found: list[str] = []
    for pattern in patterns:
        matches = [pattern]
        if glob.has_magic(pattern):
            matches = sorted(_matches(pattern))
            if not matches:
                raise UserError(f"{pattern}: no file matches")
        found += matches
    doubled = [path for path, count in Counter(files.resolve(path) for path in found).items() if count > 1]
    if doubled:
        raise UserError(f"{doubled[0]}: given twice")
    return found


def _matches(pattern: str) -> list[str]:
    if "://" not in pattern:
        return glob.glob(pattern)
    import fsspec

    fs, inside = fsspec.core.url_to_fs(pattern)
    return [fs.unstrip_protocol(path) for path in fs.glob(inside)]


def write(
    planned: Plan,
    digests: Iterable[bytes],
    url: str,
    *,
    name: str | None = None,
    statics: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[FieldStore, bool]:
    """Write the store, unless the very same one is there already.

    Returns
    -------
    store : FieldStore
    written : bool
        False if it was there.

    Raises
    ------
    UserError
        If something else is there, or the place cannot be written to.
    """
    url = files.resolve(url)
    if url in [files.resolve(source.path) for source in planned.sources]:
        raise UserError(f"store {url}: is one of the files to be read; choose another place")
    header = planned.header
    covariates = {key: planned.sources[0].static(key) for key in statics}
    name = name or default_name(url)
    content = manifest.fingerprint(header.variable, planned.units, planned.line.times, digests, covariates)
    if manifest.state(url) == "complete" and not overwrite:
        there = FieldStore.open(url)
        same = (there.info.fingerprint, there.info.name, there.info.crs) == (content, name, header.crs)
        if same and np.array_equal(there.y, header.y) and np.array_equal(there.x, header.x):
            return there, False
    refuse_to_replace(url, overwrite)
    try:
        store = write_store(
            url,
            _frames(planned),
            times=planned.line.times,
            y=header.y,
            x=header.x,
            name=name,
            variable=header.variable,
            units=planned.units,
            crs=header.crs,
            statics=covariates,
            attributes=_attributes(planned),
            source=_note(planned),
            expected=content,
            overwrite=overwrite,
            progress=progress("writing", len(planned.line.times)) if progress else None,
        )
    except OSError as error:
        raise UserError(f"store {url}: cannot be written ({manifest.one_line(error)})") from error
    return store, True


def default_name(url: str) -> str:
    """Name a data set by its store: `knmi` for `/data/knmi.zarr`."""
    return PurePosixPath(url.rstrip("/")).name.removesuffix(".zarr") or "field"


def _frames(planned: Plan) -> Iterator[np.ndarray]:
    """Read the frames along the time axis: neighbours in one file are read together."""
    origin = planned.line.origin
    start = 0
    while start < len(origin):
        index, frame = origin[start]
        stop = start + 1
        while index >= 0 and stop < len(origin) and tuple(origin[stop]) == (index, frame + stop - start):
            stop += 1
        if index < 0:
            yield np.full(planned.header.grid, np.nan, np.float32)
        else:
            yield from inputs.converted(
                planned.sources[index], frame, frame + stop - start, planned.factors[index]
            )
        start = stop


def _attributes(planned: Plan) -> dict[str, dict[str, Any]]:
    """Keep the first file's attributes; a standard name that does not fit the new units goes."""
    attributes = {key: dict(values) for key, values in planned.header.attributes.items()}
    data = attributes.setdefault(planned.header.variable, {})
    if planned.units == units.WANTED:
        data["standard_name"] = "lwe_precipitation_rate"
    return attributes


def _note(planned: Plan) -> dict[str, Any]:
    return {
        "files": len(planned.sources),
        "first_file": PurePosixPath(planned.sources[0].path).name,
        "units": planned.header.units,
        "skipped": planned.faults.found,
        "gaps": [{"after": after, "before": before, "frames": n} for after, before, n in planned.line.gaps],
    }


def describe_plan(planned: Plan, url: str, *, overwrite: bool) -> str:
    """Say what would be done with files whose headers are good.

    Raises
    ------
    UserError
        If the store could not be written there.
    """
    url = files.resolve(url)
    found = manifest.state(url)
    if found == "complete" and not overwrite:
        target = (
            "a complete store is there: kept if it has the same content, else refused without --overwrite"
        )
    else:
        refuse_to_replace(url, overwrite)
        target = {"absent": "new", "incomplete": "replaces an incomplete one"}.get(found, "replaced")
    header = planned.header
    factors = sorted(set(planned.factors))
    conversion = "taken unchanged" if planned.declared else f"times {', '.join(f'{f:g}' for f in factors)}"
    lines = [
        ("store", f"{url} ({target})"),
        ("files", f"{len(planned.sources)} good headers; values are checked before anything is written"),
        ("values", f"{header.variable} in {header.units or 'no units'}, {conversion}: {planned.units}"),
        *_axes(planned),
    ]
    return "\n".join(["dry run: nothing is written", *_table(lines), *_skipped(planned)])


def describe_store(store: FieldStore, planned: Plan, statistics: Statistics, *, written: bool) -> str:
    """Say what is in a store that was just written, or was there already."""
    info = store.info
    unit = info.units
    lines = [
        ("store", f"{store.url} ({'written' if written else 'already there, with the same content'})"),
        ("field", f"{info.variable} of {info.name}, {unit}"),
        *_axes(planned),
        ("wet", f"{statistics.wet / statistics.valid:.1%} of the valid values above {inputs.WET:g} {unit}"),
        ("maximum", f"{statistics.maximum:.4g} {unit}"),
        ("missing", f"{info.missing_fraction:.1%}"),
        ("statics", ", ".join(info.statics) or "none"),
        ("fingerprint", info.fingerprint),
        ("next", f"python jobs/tune_factors.py --store {store.url} --pairs 4x2"),
    ]
    return "\n".join([*_table(lines), *_skipped(planned)])


def _axes(planned: Plan) -> list[tuple[str, str]]:
    line = planned.line
    frames, rows, columns = planned.shape
    gaps = "none"
    if line.gaps:
        after, before, count = line.gaps[0]
        more = f" and {len(line.gaps) - 1} more" if len(line.gaps) > 1 else ""
        where = f"{count} between {after} and {before}{more}"
        gaps = f"{line.filled} frames that no file has, set to missing ({where})"
    return [
        ("shape", f"{frames} frames of {rows} x {columns} pixels"),
        ("period", f"{line.times[0]} to {line.times[-1]}, every {line.cadence_seconds} s"),
        ("gaps", gaps),
    ]


def _table(lines: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{word:<12} {text}" for word, text in lines]


def _skipped(planned: Plan) -> list[str]:
    found = planned.faults.found
    head = f"{'skipped':<12} {len(found)} of {planned.faults.files} files:"
    return [head, *(f"  {fault}" for fault in found)] if found else []
