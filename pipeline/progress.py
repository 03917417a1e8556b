"""How long work shows itself: a bar under whatever is printed; without a terminal, a line now and then.

Rich is imported when the first bar is drawn, so that `--help` stays quick.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REDRAWS_PER_SECOND = 4
_QUIET_SECONDS = 30.0


def duration(seconds: float) -> str:
    """Say a duration in its one or two largest units: `42 s`, `6 min`, `2 h 5 min`, `3 d 4 h`."""
    seconds = round(max(0.0, seconds))
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = round(minutes / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def console_on(stream: IO[str]) -> Console:
    """Give a console on a stream; it is interactive if a person can be looking at it.

    FORCE_COLOR does not make a log file a terminal: a table that is redrawn would fill it.
    """
    from rich.console import Console

    return Console(file=stream, force_terminal=stream.isatty())


@contextmanager
def drawn(console: Console, draw: Callable[[], RenderableType]) -> Iterator[None]:
    """Keep what `draw` gives in the last lines of a terminal; it is gone afterwards, whatever happens.

    What is printed or logged meanwhile appears above. A stream that leads elsewhere, such as `> table.txt`,
    is left alone.

    Parameters
    ----------
    console : rich.console.Console
        An interactive one.
    draw : callable
        Called from another thread, a few times a second. What it gives must keep its height: Rich counts the
        lines to go back in one thread while another may be drawing.
    """
    from rich.live import Live

    streams = sys.stdout, sys.stderr
    live = Live(
        get_renderable=draw,
        console=console,
        refresh_per_second=REDRAWS_PER_SECOND,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
    )
    with live:
        live.refresh()
        handlers = _handlers_on(streams)
        try:
            for handler, stream in handlers:
                handler.setStream(sys.stdout if stream is streams[0] else sys.stderr)
            yield
        finally:
            for handler, stream in handlers:
                handler.setStream(stream)


def _handlers_on(streams: tuple[IO[str], ...]) -> list[tuple[logging.StreamHandler, IO[str]]]:
    """Find the log handlers that hold a stream of before the redirection: they would write into the bar."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {h for logger in loggers if isinstance(logger, logging.Logger) for h in logger.handlers}
    streaming = [handler for handler in handlers if isinstance(handler, logging.StreamHandler)]
    return [(handler, stream) for handler in streaming for stream in streams if handler.stream is stream]


@contextmanager
def progress(
    what: str,
    total: int,
    unit: str,
    *,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Show how far a piece of work is, on stderr.

    Parameters
    ----------
    what : str
        The work, as in `synthetic rain`.
    total : int
        How much there is to do.
    unit : str
        Of `total`, in the plural: `frames`.
    console : rich.console.Console, optional
    clock : callable
        Seconds from any start.

    Yields
    ------
    callable
        To be told how much more is done.
    """
    console = console or console_on(sys.stderr)
    work = _Work(what, total, unit, clock)
    if console.is_interactive:
        with drawn(console, work.bar):
            yield work.advance
        return

    told = clock()

    def advance(amount: int) -> None:
        nonlocal told
        work.advance(amount)
        if clock() - told >= _QUIET_SECONDS:
            told = clock()
            print(f"{what}: {work}", file=console.file, flush=True)

    yield advance


class _Work:
    """So much of so much, since when."""

    def __init__(self, what: str, total: int, unit: str, clock: Callable[[], float]) -> None:
        self._what, self._total, self._unit, self._clock = what, total, unit, clock
        self._start, self._done = clock(), 0

    def advance(self, amount: int) -> None:
        self._done += amount

    def __str__(self) -> str:
        done, seconds = self._done, self._clock() - self._start
        text = f"{done:,}/{self._total:,} {self._unit}"
        if not done or seconds <= 0:
            return text
        rate = done / seconds
        left = duration(max(0, self._total - done) / rate)
        return f"{text}, {rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s, {left} left"

    def bar(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        line = Table.grid(padding=(0, 1))
        for _ in range(3):
            line.add_column(no_wrap=True)
        bar = ProgressBar(total=max(1, self._total), completed=self._done, width=30)
        line.add_row(self._what, bar, str(self))
        return line
