"""What a person sees while a sweep runs: a table on a terminal; elsewhere a line a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.factors import FactorPair, ScaleParameters
from pipeline.progress import console_on, drawn, duration
from pipeline.tuning.pace import Pace, time_left

Ending = Literal["complete", "pruned", "failed", "killed"]

_STATUS_SECONDS = 60.0
_LINES_AROUND_ROWS = 5  # heading, pairs left out, overall, note, cursor


@dataclass(frozen=True)
class _Row:
    """A pair: how many trials, and the best."""

    wanted: int
    done: int
    pruned: int
    failed: int = 0
    best: float | None = None
    parameters: ScaleParameters | None = None
    given_up: bool = False

    @property
    def missing(self) -> int:
        return 0 if self.given_up else max(0, self.wanted - self.done)

    @property
    def trials(self) -> str:
        pruned = f" ({self.pruned})" if self.pruned else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done}/{self.wanted}{pruned}{failed}"


@dataclass(frozen=True)
class _Trial:
    """A running trial: when it was last heard of, and what it said."""

    parameters: ScaleParameters
    started: float
    heard: float
    doing: str = "starting"
    steps: Mapping[str, int] = field(default_factory=dict)  # by stage, those that are behind it
    cached: int = 0
    scoring: bool = False


class LiveTable:
    """The table of a sweep under way, or the lines that stand for it where there is no terminal.

    Told by one thread. The thread that draws only takes copies of what is kept here, whose values never
    change. Ray Tune pickles its callbacks before it starts, so nothing is opened before the `with`.

    Parameters
    ----------
    pairs : sequence of FactorPair
        In the order of the rows.
    trials : int
        Trials wanted of each pair.
    steps_per_trial : int
        Training steps of a trial that shares nothing and is not pruned.
    counts : mapping of FactorPair to int
        Trials that earlier runs have done, pruned ones included.
    best : mapping of FactorPair to float or None
        Lowest CRPS of those.
    pruned : mapping of FactorPair to int, optional
        How many of `counts` were pruned.
    best_parameters : mapping of FactorPair to ScaleParameters or None, optional
        Whose CRPS `best` is.
    console : rich.console.Console, optional
        None: on stdout.
    clock : callable
        Seconds from any start.
    """

    def __init__(
        self,
        pairs: Sequence[FactorPair],
        *,
        trials: int,
        steps_per_trial: int,
        counts: Mapping[FactorPair, int],
        best: Mapping[FactorPair, float | None],
        pruned: Mapping[FactorPair, int] | None = None,
        best_parameters: Mapping[FactorPair, ScaleParameters | None] | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = {
            pair: _Row(
                trials,
                counts.get(pair, 0),
                (pruned or {}).get(pair, 0),
                best=best.get(pair),
                parameters=(best_parameters or {}).get(pair),
            )
            for pair in pairs
        }
        self._steps, self._console, self._clock = max(1, steps_per_trial), console, clock
        self._running: dict[tuple[FactorPair, int], _Trial] = {}
        self._pace, self._at_once, self._note = Pace(), 1, ""
        self._start = self._told = clock()
        self._drawing = ExitStack()

    def __enter__(self) -> LiveTable:
        self._start = self._told = self._clock()
        self._console = self._console or console_on(sys.stdout)
        if self._console.is_interactive:
            self._drawing.enter_context(drawn(self._console, self._table))
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the table away; closing twice is no mistake."""
        self._drawing.close()

    def started(self, pair: FactorPair, number: int, parameters: ScaleParameters) -> None:
        """Show a trial that runs now."""
        now = self._clock()
        self._running[pair, number] = _Trial(parameters, now, now)
        self._at_once = max(self._at_once, len(self._running))
        self._tell()

    def progress(
        self, pair: FactorPair, number: int, stage: str, step: int, steps: int, *, cached: bool = False
    ) -> None:
        """Show how far a stage is, also one whose `steps` came from the cache."""
        trial = self._running.get((pair, number))
        if trial is None:  # a late word from a process that was given up
            return
        now, before = self._clock(), trial.steps.get(stage)
        # A stage's first report may hold waiting, preparation and what a checkpoint brought: not measured.
        if not cached and before is not None and step > before:
            self._pace = self._pace.trained(step - before, now - trial.heard)
        self._running[pair, number] = replace(
            trial,
            heard=now,
            doing=f"{stage} {100 * step // max(1, steps)} %",
            steps={**trial.steps, stage: step},
            cached=trial.cached + (step if cached else 0),
            scoring=False,
        )
        self._tell()

    def scoring(self, pair: FactorPair, number: int) -> None:
        """Show a trial that is being scored."""
        trial = self._running.get((pair, number))
        if trial is not None:
            self._running[pair, number] = replace(trial, heard=self._clock(), doing="scoring", scoring=True)
        self._tell()

    def ended(self, pair: FactorPair, number: int, outcome: Ending, crps: float | None) -> None:
        """Count a trial; one that was killed will be repeated, so that its progress is taken back."""
        trial, row, now = self._running.pop((pair, number), None), self._rows[pair], self._clock()
        if outcome == "failed":
            self._rows[pair] = replace(row, failed=row.failed + 1)
        elif outcome != "killed":
            row = replace(row, done=row.done + 1, pruned=row.pruned + (outcome == "pruned"))
            if outcome == "complete" and crps is not None and (row.best is None or crps < row.best):
                row = replace(row, best=crps, parameters=trial.parameters if trial else None)
            self._rows[pair] = row
            if trial is not None:
                scoring = now - trial.heard if trial.scoring and outcome == "complete" else None
                self._pace = self._pace.end(now - trial.started, scoring)
        self._tell()

    def give_up(self, pair: FactorPair) -> None:
        """Expect no more trials of a pair than those that run."""
        self._rows[pair] = replace(self._rows[pair], given_up=True)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        console = self._console or console_on(sys.stdout)
        if console.is_interactive:
            console.print(Text(line))
        else:
            print(line, file=console.file, flush=True)

    def note(self, text: str | None) -> None:
        """Set what stands under the table until it is changed; None: nothing."""
        self._note = text or ""
        self._tell()

    def _tell(self) -> None:
        """Where no table is: print where the sweep stands, if the last such line is old enough."""
        now, console = self._clock(), self._console
        if console is None or console.is_interactive or now - self._told < _STATUS_SECONDS:
            return
        self._told = now
        counts = ", ".join(f"{pair} {row.done}/{row.wanted}" for pair, row in self._rows.items())
        best = ", ".join(_score(row.best) for row in self._rows.values())
        left = self._left()
        rest = [f"about {duration(left)} left"] if left is not None else []
        self.say("; ".join([counts, f"best {best}", *rest, *([self._note] if self._note else [])]))

    def _left(self) -> float | None:
        """Seconds to the end of the last trial; None until anything has been measured."""
        running, pace, now = dict(self._running), self._pace, self._clock()
        waiting = sum(
            max(0, row.missing - sum(of == pair for of, _ in running)) for pair, row in self._rows.items()
        )
        cached = sum(trial.cached for trial in running.values()) / max(1, len(running))
        each = pace.new(self._steps - cached)
        if each is None:
            return None if waiting or running else 0.0
        rests = []
        for trial in running.values():
            rest = pace.per_scoring if trial.scoring else pace.rest(self._steps - sum(trial.steps.values()))
            rests.append(max(0.0, (rest or 0.0) - (now - trial.heard)))
        return time_left(rests, waiting, each, self._at_once)

    def _share(self) -> float:
        """How much of the sweep is done, 0 to 1; running trials count by their steps."""
        rows, running = list(self._rows.values()), list(self._running.values())
        done = sum(row.done for row in rows)
        begun = sum(min(1.0, sum(trial.steps.values()) / self._steps) for trial in running)
        return min(1.0, (done + begun) / max(1, done + sum(row.missing for row in rows)))

    def _table(self) -> Group:
        """Draw the pairs that fit on the screen, running ones before others, and the whole below."""
        assert self._console is not None
        rows, running = dict(self._rows), dict(self._running)
        now_running = {pair: [n for of, n in running if of == pair] for pair in rows}
        room = max(1, self._console.height - _LINES_AROUND_ROWS)
        urgent = sorted(rows, key=lambda pair: (not now_running[pair], rows[pair].missing == 0))
        shown = set(urgent[:room])

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("pair", justify="right", no_wrap=True)
        table.add_column("trials (pruned)", no_wrap=True)
        for name in ("best CRPS", "beta", "L"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("running", no_wrap=True, overflow="ellipsis", ratio=1)
        for pair, row in rows.items():
            if pair in shown:
                doing = ", ".join(f"#{n} {running[pair, n].doing}" for n in now_running[pair])
                table.add_row(*_cells(pair, row), doing or ("given up" if row.given_up else ""))
        parts: list[Any] = [table]
        if len(shown) < len(rows):
            parts.append(Text(f"and {len(rows) - len(shown)} more pairs", style="dim"))
        parts.append(self._overall())
        parts.append(Text(self._note, style="yellow", no_wrap=True, overflow="ellipsis"))  # or an empty line
        return Group(*parts)

    def _overall(self) -> Table:
        share, left = self._share(), self._left()
        minutes, seconds = divmod(int(self._clock() - self._start), 60)
        elapsed = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        line = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(4):
            line.add_column(no_wrap=True)
        line.add_row(
            ProgressBar(total=1.0, completed=share, width=20),
            f"{share:.0%}".replace("%", " %"),
            f"elapsed {elapsed}",
            f"left {'-' if left is None else duration(left)}",
        )
        return line


def _score(crps: float | None) -> str:
    return "-" if crps is None else f"{crps:.4f}"


def _cells(pair: FactorPair, row: _Row) -> tuple[str, ...]:
    """Lay out a row but for what runs."""
    best = row.parameters
    beta, context = (f"{best.beta:.4f}", str(best.context)) if best else ("", "")
    return (str(pair), row.trials, _score(row.best), beta, context)
