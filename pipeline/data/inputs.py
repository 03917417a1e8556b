"""Many files as one field: their headers put in order, their values checked before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.data import manifest, timeline, units
from pipeline.data.sources import Header, Source, open_source
from pipeline.errors import UserError

WET = 0.1  # mm/h, for the summary's wet share

Progress = Callable[[str, int], Callable[[int], None]]
"""Called with what is done and out of how many frames; gives a function to tell how many more were done."""


@dataclass
class Statistics:
    """Sums over the values that were checked."""

    valid: int = 0
    wet: int = 0
    total: int = 0
    maximum: float = -np.inf

    def add(self, other: Statistics) -> None:
        """Count another file's values too."""
        self.valid += other.valid
        self.wet += other.wet
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)


@dataclass
class _Checked:
    """What one file's values came to, for one conversion factor."""

    factor: float
    digests: list[bytes] = field(default_factory=list)
    statistics: Statistics = field(default_factory=Statistics)


@dataclass(frozen=True)
class Faults:
    """What happens to a file with a fault of its own.

    Attributes
    ----------
    files : int
        How many were given.
    skip : bool
        Go on without it.
    found : list of str
        One line per file left out so far.
    """

    files: int
    skip: bool
    found: list[str] = field(default_factory=list)

    def note(self, error: UserError) -> None:
        """Note a fault; raise it unless faults are skipped, or when no file is left."""
        self.found.append(str(error))
        if not self.skip:
            hint = "; --skip-bad goes on without such files" if self.files > 1 else ""
            raise UserError(f"{error}{hint}") from error
        if len(self.found) == self.files:
            raise UserError(f"all {self.files} files are bad; the first: {self.found[0]}") from error


@dataclass(frozen=True)
class Plan:
    """Files that passed so far, in order, and what becomes of them.

    Attributes
    ----------
    sources : list of Source
    line : Timeline
    factors : list of float
        Per source, what its values are multiplied by.
    declared : str or None
        Units given by the user: nothing is converted.
    faults : Faults
    """

    sources: list[Source]
    line: timeline.Timeline
    factors: list[float]
    declared: str | None
    faults: Faults

    @property
    def units(self) -> str:
        """The store's units."""
        return self.declared or units.WANTED

    @property
    def header(self) -> Header:
        """The first file's."""
        return self.sources[0].header

    @property
    def shape(self) -> tuple[int, int, int]:
        """(time, y, x)."""
        return (len(self.line.times), *self.header.grid)


def plan(
    paths: Sequence[str],
    *,
    variable: str | None = None,
    declared_units: str | None = None,
    skip_bad: bool = False,
) -> Plan:
    """Read all headers and put the files in order.

    Parameters
    ----------
    paths : sequence of str
    variable : str, optional
    declared_units : str, optional
        Units of the store: no file's values are converted.
    skip_bad : bool
        Leave out files with a fault of their own, instead of stopping at the first.

    Raises
    ------
    UserError
        One line, for the first fault.
    """
    faults = Faults(len(paths), skip_bad)
    sources: list[Source] = []
    for path in paths:
        try:
            sources.append(open_source(path, variable))
        except UserError as error:
            faults.note(error)
    return _order(_of_one_grid(sources, faults), declared_units, faults)


def _of_one_grid(sources: list[Source], faults: Faults) -> list[Source]:
    """Keep the files that share variable and grid with most of the others."""
    kinds = Counter((source.header.variable, source.header.grid) for source in sources)
    usual, (rows, columns) = kinds.most_common(1)[0][0]
    kept: list[Source] = []
    for source in sources:
        header = source.header
        try:
            if (header.variable, header.grid) != (usual, (rows, columns)):
                raise UserError(
                    f"{source.path}: {header.variable} on {header.grid[0]} x {header.grid[1]} pixels, "
                    f"most files have {usual} on {rows} x {columns}"
                )
            for axis in ("y", "x") if kept else ():
                mine, theirs = getattr(header, axis), getattr(kept[0].header, axis)
                if not np.allclose(mine, theirs, rtol=1e-5, atol=1e-6):
                    raise UserError(
                        f"{source.path}: {axis} runs from {mine[0]:g} to {mine[-1]:g}, "
                        f"in {kept[0].path} from {theirs[0]:g} to {theirs[-1]:g}"
                    )
            kept.append(source)
        except UserError as error:
            faults.note(error)
    return kept


def _order(sources: list[Source], declared: str | None, faults: Faults) -> Plan:
    """Build the time axis and find every file's conversion."""
    while True:
        line = timeline.build([s.header.times for s in sources], [s.path for s in sources])
        factors: list[float] = []
        kept: list[Source] = []
        for source in sources:
            header = source.header
            try:
                interval = header.interval_seconds or line.cadence_seconds
                where = f"{source.path}: {header.variable}"
                factors.append(1.0 if declared else units.to_mm_per_hour(header.units, interval, where))
                kept.append(source)
            except UserError as error:
                faults.note(error)
        if len(kept) == len(sources):
            return Plan(sources, line, factors, declared, faults)
        sources = kept  # without the bad ones the cadence may be another


def check(planned: Plan, progress: Progress | None = None) -> tuple[Plan, list[bytes], Statistics]:
    """Read every value once, before anything is written.

    Returns
    -------
    plan : Plan
        Without the files whose values are bad, where those are skipped.
    digests : list of bytes
        Digest of every frame on the plan's time axis, which make the fingerprint.
    statistics : Statistics

    Raises
    ------
    UserError
        If a value is negative or infinite, a file cannot be read, or nothing but missing values is there.
    """
    results: dict[str, _Checked] = {}
    tell = progress("checking", sum(len(s.header.times) for s in planned.sources)) if progress else None
    while True:
        kept: list[Source] = []
        for source, factor in zip(planned.sources, planned.factors, strict=True):
            done = results.get(source.path)
            try:
                if done is None or done.factor != factor:
                    results[source.path] = _check_values(source, factor, tell)
                kept.append(source)
            except UserError as error:
                planned.faults.note(error)
        if len(kept) == len(planned.sources):
            break
        planned = _order(kept, planned.declared, planned.faults)

    statistics = Statistics()
    for source in planned.sources:
        statistics.add(results[source.path].statistics)
    if statistics.valid == 0:
        header = planned.header
        raise UserError(f"{planned.sources[0].path}: {header.variable} is missing everywhere")
    empty = manifest.frame_digest(np.full(planned.header.grid, np.nan, "f4"))
    digests = [
        empty if index < 0 else results[planned.sources[index].path].digests[frame]
        for index, frame in planned.line.origin
    ]
    return planned, digests, statistics


def _check_values(source: Source, factor: float, tell: Callable[[int], None] | None) -> _Checked:
    checked = _Checked(factor)
    name = source.header.variable
    for block in converted(source, 0, len(source.header.times), factor):
        valid = block[~np.isnan(block)]
        if not np.isfinite(valid).all():
            raise UserError(f"{source.path}: {name} has infinite values; mark them as missing first")
        if valid.size and valid.min() < 0:
            smallest = f"{valid.min() / factor:g} {source.header.units}".strip()
            raise UserError(
                f"{source.path}: {name} has negative values, down to {smallest}; "
                "set them to 0, or mark them as missing, first"
            )
        wet = int((valid > WET).sum())
        highest = float(valid.max()) if valid.size else -np.inf
        checked.statistics.add(Statistics(valid.size, wet, block.size, highest))
        checked.digests += [manifest.frame_digest(frame) for frame in block]
        if tell is not None:
            tell(len(block))
    if len(checked.digests) != len(source.header.times):
        raise UserError(f"{source.path}: {len(checked.digests)} frames for {len(source.header.times)} times")
    return checked


def converted(source: Source, start: int, stop: int, factor: float) -> Iterator[np.ndarray]:
    """Read frames `start` to `stop` of a source as (n, H, W) float32 blocks in the store's units."""
    for block in source.blocks(start, stop):
        # In double precision, so that 0.01 mm in 5 minutes is the float32 nearest to 0.12 mm/h.
        yield np.asarray(block.astype(np.float64) * factor, np.float32)
