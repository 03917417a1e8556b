"""The report on a field store: every check on a line, and a page of figures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError
from pipeline.progress import duration
from pipeline.storage import files
from pipeline.store.checks.catalogue import run_checks
from pipeline.store.checks.findings import Finding, Limits, Subject, Verdict, counted, rain_factor
from pipeline.store.checks.scan import scan
from pipeline.store.field_store import FieldStore
from pipeline.store.manifest import one_line

Progress = Callable[[str, int], Callable[[int], None]]
"""Called with what is done and out of how many frames; gives a function to tell how many more were done."""


_WIDTH = 110  # letters of a line


@dataclass(frozen=True)
class StoreReport:
    """What a check of a store came to.

    Attributes
    ----------
    findings : tuple of Finding
        One per check.
    text : str
        Lines for the terminal.
    figure : str or None
        Where the page of figures was written.
    """

    findings: tuple[Finding, ...]
    text: str
    figure: str | None

    @property
    def problems(self) -> list[str]:
        """One line per problem, with its remedy."""
        return [str(finding) for finding in self.findings if finding.verdict is Verdict.PROBLEM]


def check_store(
    url: str,
    *,
    figure: str | None = None,
    lenient: bool = False,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> StoreReport:
    """Check a store, reading it once; with a figure, draw it.

    Parameters
    ----------
    url : str
    figure : str, optional
        Path or URL of the PNG; none: no figure.
    lenient : bool
        Say that problems are not held against the store; they are found all the same.
    progress : callable, optional
    limits : Limits, optional

    Raises
    ------
    UserError
        If the store cannot be opened, or the figure not be written.
    """
    store, limits = FieldStore.open(url), limits or Limits()
    factor = rain_factor(store.info)
    low, high = (-np.inf, np.inf) if factor is None else (limits.least / factor, limits.most / factor)
    advance = progress("checking", store.shape[0]) if progress else None
    found = scan(store, low, high, advance)
    findings = tuple(run_checks(store, found, limits))
    if figure is not None:
        _draw(Subject(store, found, limits), findings, figure)
    return StoreReport(findings, _text(store, findings, figure, lenient=lenient), figure)


def summary(findings: Sequence[Finding]) -> str:
    """Put all checks on one line, the problems first: `1 problem (gaps), 2 notes (...), 15 ok`."""
    parts = []
    for verdict, word in ((Verdict.PROBLEM, "problem"), (Verdict.NOTE, "note")):
        names = [finding.name for finding in findings if finding.verdict is verdict]
        if names:
            parts.append(f"{counted(len(names), word)} ({', '.join(names)})")
    fine = sum(finding.verdict is Verdict.OK for finding in findings)
    return ", ".join([*parts, f"{fine} ok"])


def _text(store: FieldStore, findings: Sequence[Finding], figure: str | None, *, lenient: bool) -> str:
    info = store.info
    frames, rows, columns = info.shape
    facts = [
        ("store", store.url),
        ("field", f"{info.variable} of {info.name}, {info.units}"),
        ("shape", f"{frames} frames of {rows} x {columns} pixels"),
        ("period", f"{info.start} to {info.end}, every {duration(info.cadence_seconds)}"),
    ]
    width = max(12, *(len(finding.name) for finding in findings))
    lines = [f"{word:<{width}} {text}" for word, text in facts]
    for finding in findings:
        lines += _wrapped(f"{finding.name:<{width}} {finding.verdict.value:<8} ", finding.found)
        if finding.remedy and finding.verdict is not Verdict.OK:
            lines += _wrapped(" " * (width + 10), f"-> {finding.remedy}")
    rule = "-" * _WIDTH
    lines[len(facts) : len(facts)] = [rule]
    said = summary(findings)
    if lenient and any(finding.verdict is Verdict.PROBLEM for finding in findings):
        said += "; lenient: problems are let pass"
    if figure is not None:
        lines += [rule, f"{'figure':<{width}} {figure}"]
    else:
        lines.append(rule)
    return "\n".join([*lines, f"{'summary':<{width}} {said}"])


def _wrapped(head: str, text: str) -> list[str]:
    """Put a text behind a head, further lines below its start."""
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)) or [head]


def _draw(subject: Subject, findings: Sequence[Finding], figure: str) -> None:
    # Matplotlib takes a while to import, and is not needed without a figure.
    from pipeline.store.checks.figure import store_figure, to_png

    info = subject.info
    title = f"{info.name}: {info.variable}, {info.start} to {info.end}. {summary(findings)}"
    try:
        files.write_bytes(files.resolve(figure), to_png(store_figure(subject, findings, title)))
    except OSError as error:
        raise UserError(
            f"figure {figure}: cannot be written ({one_line(error)}); choose another place with --figure"
        ) from error
