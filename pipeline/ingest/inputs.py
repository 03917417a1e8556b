"""Many files as one field: their headers read and compared, their frames given places in time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline import units
from pipeline.errors import TroubleError, UserError
from pipeline.ingest.patterns import expand
from pipeline.sources import timeline
from pipeline.sources.readers import Header, Selection, Source, name_times, open_source
from pipeline.sources.rules import SourceRules


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes
    ----------
    paths : tuple of str
        Files, patterns, URLs; none: what the rules name.
    rules : SourceRules or None
        None: recognised by each file's content.
    selection : Selection
    variable : str or None
    units : str or None
        Declared: values are taken unchanged.
    skip_bad : bool
        Leave out files with a fault of their own, instead of stopping at the first.
    only_new : bool
        Pass over frames whose time is in the store already, without looking at their values.
    ingest_flags : bool
        It was given to `jobs/ingest.py`, whose flags messages may offer.
    """

    paths: tuple[str, ...]
    rules: SourceRules | None = None
    selection: Selection | None = None
    variable: str | None = None
    units: str | None = None
    skip_bad: bool = False
    only_new: bool = False
    ingest_flags: bool = True


@dataclass(frozen=True)
class Faults:
    """What happens to a file with a fault of its own.

    Attributes
    ----------
    files : int
        How many were given.
    skip : bool
        Go on without it.
    can_skip : bool
        Whether the user could ask for that.
    found : list of str
        One line per file left out so far.
    """

    files: int
    skip: bool
    can_skip: bool = True
    found: list[str] = field(default_factory=list)

    def note(self, error: UserError) -> None:
        """Note a fault; raise it unless faults are skipped, or when no file is left.

        Trouble outside is no fault of a file, and is always raised.
        """
        if isinstance(error, TroubleError):
            raise error
        self.found.append(str(error))
        if not self.skip:
            hint = "; --skip-bad goes on without such files" if self.can_skip and self.files > 1 else ""
            raise UserError(f"{error}{hint}") from error
        if len(self.found) == self.files:
            raise UserError(f"all {self.files} files are bad; the first: {self.found[0]}") from error


@dataclass(frozen=True)
class Plan:
    """Files whose headers are good, and where their frames go.

    Attributes
    ----------
    request : Request
    sources : list of Source
        Empty if there is nothing new to read.
    line : Timeline or None
        None without sources.
    factors : list of float
        Per source, what its values are multiplied by.
    faults : Faults
    passed : int
        Files passed over because the store has their times.
    """

    request: Request
    sources: list[Source]
    line: timeline.Timeline | None
    factors: list[float]
    faults: Faults
    passed: int = 0

    @property
    def units(self) -> str:
        """The store's units."""
        return self.request.units or units.WANTED

    @property
    def header(self) -> Header:
        """The first file's."""
        return self.sources[0].header


def plan(request: Request, axis: timeline.Axis | None = None) -> Plan:
    """Read all headers and give the frames their places.

    Parameters
    ----------
    request : Request
    axis : Axis, optional
        That of the store to be added to.

    Raises
    ------
    UserError
        One line, for the first fault.
    """
    rules = request.rules
    given = request.paths or (rules.files if rules else ())
    if not given:
        raise UserError("no files given; name some, or give a --source that knows where its files are")
    paths = expand(given, anonymous=bool(rules and rules.anonymous))
    fresh = [path for path in paths if not _known_by_name(path, request, axis)]
    faults = Faults(len(fresh), request.skip_bad, request.ingest_flags)
    sources: list[Source] = []
    for path in fresh:
        try:
            sources.append(open_source(path, rules, request.selection, request.variable))
        except UserError as error:
            faults.note(error)
    passed = len(paths) - len(fresh)
    sources = _of_one_grid(_within(sources, request), faults)
    return order(request, sources, faults, axis, passed)


def _known_by_name(path: str, request: Request, axis: timeline.Axis | None) -> bool:
    if not request.only_new or axis is None or request.rules is None:
        return False
    times = name_times(path, request.rules)
    return times is not None and bool(axis.has(times).all())


def _within(sources: list[Source], request: Request) -> list[Source]:
    """Leave out the files that have no frame in the period asked for.

    Raises
    ------
    UserError
        If none has.
    """
    kept = [source for source in sources if len(source.header.times)]
    if sources and not kept:
        chosen = request.selection or Selection()
        if chosen.start is None and chosen.stop is None:
            raise UserError(f"{sources[0].path}: no frame in it, nor in the other files; choose others")
        period = f"from {chosen.start or 'the first'} to {chosen.stop or 'the last'}"
        flags = "--start or --stop" if request.ingest_flags else "--time"
        raise UserError(f"{sources[0].path}: no frame {period}, nor in the other files; change {flags}")
    return kept


def _of_one_grid(sources: list[Source], faults: Faults) -> list[Source]:
    """Keep the files that share variable and grid with most of the others."""
    kinds = Counter((source.header.variable, source.header.grid) for source in sources)
    usual, (rows, columns) = kinds.most_common(1)[0][0] if kinds else ("", (0, 0))
    kept: list[Source] = []
    for source in sources:
        header = source.header
        try:
            if (header.variable, header.grid) != (usual, (rows, columns)):
                raise UserError(
                    f"{source.path}: {header.variable} on {header.grid[0]} x {header.grid[1]} pixels, "
                    f"most files have {usual} on {rows} x {columns}"
                )
            if kept:
                first = kept[0].header
                same_place(source.path, header.y, header.x, kept[0].path, first.y, first.x)
                # Ten years of files would each keep coordinates of their own.
                source.header = replace(header, y=first.y, x=first.x, attributes=first.attributes)
            kept.append(source)
        except UserError as error:
            faults.note(error)
    return kept


def same_place(
    mine: str, y: np.ndarray, x: np.ndarray, theirs: str, other_y: np.ndarray, other_x: np.ndarray
) -> None:
    """Check that two grids of one size lie in the same place.

    Raises
    ------
    UserError
        Naming both and the first axis that differs.
    """
    for axis, here, there in (("y", y, other_y), ("x", x, other_x)):
        pixel = abs(float(there[-1] - there[0])) / max(1, len(there) - 1) or 1.0
        if np.abs(here - there).max() > 0.01 * pixel:
            raise UserError(
                f"{mine}: {axis} runs from {here[0]:g} to {here[-1]:g}, "
                f"in {theirs} from {there[0]:g} to {there[-1]:g}"
            )


def order(
    request: Request,
    sources: list[Source],
    faults: Faults,
    axis: timeline.Axis | None,
    passed: int = 0,
) -> Plan:
    """Give the frames of the sources their places, and find what turns their values into the store's."""
    while True:
        if not sources:
            return Plan(request, [], None, [], faults, passed)
        times = [source.header.times for source in sources]
        if request.only_new and axis is not None:
            times = [np.where(axis.has(t), np.datetime64("NaT"), t) for t in times]
        line = timeline.build(times, [source.path for source in sources], axis)
        factors: list[float] = []
        kept: list[Source] = []
        for source in sources:
            try:
                factors.append(1.0 if request.units else _factor(source, line.cadence_seconds))
                kept.append(source)
            except UserError as error:
                faults.note(error)
        if len(kept) == len(sources):
            return Plan(request, sources, line, factors, faults, passed)
        sources = kept  # without the bad ones the cadence may be another


def _factor(source: Source, cadence: int) -> float:
    """Find what turns a file's values into mm/h; a sum that does not say over what is one over the cadence.

    Raises
    ------
    UserError
        If the units are none of rain, or the file's own times tell of another cadence.
    """
    header, where = source.header, f"{source.path}: {source.header.variable}"
    steps = np.diff(np.unique(header.times)).astype("int64")
    is_sum = units.to_mm_per_hour(header.units, 1.0, where) != units.to_mm_per_hour(header.units, 2.0, where)
    if is_sum and header.interval_seconds is None and len(steps) and np.median(steps) != cadence:
        raise UserError(
            f"{where} is a sum in {header.units}, and its times are {np.median(steps):g} s apart where the "
            f"store's are {cadence} s; say what a sum stands for with `accumulation` in a --source"
        )
    return units.to_mm_per_hour(header.units, header.interval_seconds or cadence, where)
