import io
import re
import sys

import pytest
from ray import cloudpickle
from rich.console import Console

from pipeline import FactorPair, ScaleParameters
from pipeline.tuning.live import LiveTable

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
A, B = FactorPair(4, 2), FactorPair(8, 1)
FIRST, SECOND = ScaleParameters(beta=0.0139, context=5), ScaleParameters(beta=0.0237, context=3)


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


class Screen:
    """A table on a terminal that is written down; `rows` gives the last one drawn."""

    def __init__(self, pairs=(A, B), height=30, **options):
        self.out, self.clock = io.StringIO(), Clock()
        self.console = Console(
            file=self.out, force_terminal=True, width=100, height=height, _environ={"TERM": "xterm"}
        )
        settings = {"trials": 8, "steps_per_trial": 10, "counts": {}, "best": {}, **options}
        self.table = LiveTable(pairs, console=self.console, clock=self.clock, **settings)
        self.table.__enter__()

    def rows(self):
        self.table.close()  # draws a last time
        frame = ESCAPES.sub("", self.out.getvalue()).rpartition("pair  trials (pruned)")[2]
        return [row.strip() for row in re.split(r"[\r\n]+", frame)[1:] if row.strip()]

    def cells(self):
        """Give the pairs' rows, cut into their cells."""
        return {row.split()[0]: re.split(r"\s{2,}", row)[1:] for row in self.rows() if re.match(r"\d+x", row)}

    def overall(self):
        """Give share, elapsed and left."""
        (row,) = [row for row in self.rows() if "elapsed" in row]
        return re.fullmatch(r"━*[╸╺]?━* *(\d+ %)  elapsed (\S+)  left (.*)", row).groups()

    def trial(self, number, *moments, pair=A, parameters=FIRST):
        """Start a trial and report (clock, stage, step of 5)."""
        self.table.started(pair, number, parameters)
        for seconds, stage, step in moments:
            self.clock.seconds = seconds
            self.table.progress(pair, number, stage, step, 5)


def test_rows():
    screen = Screen(counts={A: 3, B: 2}, pruned={A: 1}, best={A: 0.0837, B: None}, best_parameters={A: FIRST})
    screen.trial(4, (1, "mean", 5), (2, "residual", 3))
    screen.trial(5, (3, "mean", 1))
    screen.trial(6)
    screen.table.started(B, 2, SECOND)
    screen.table.scoring(B, 2)
    assert screen.cells() == {
        "4x2": ["3/8 (1)", "0.0837", "0.0139", "5", "#4 residual 60 %, #5 mean 20 %, #6 starting"],
        "8x1": ["2/8", "-", "#2 scoring"],
    }


def test_ends_are_counted_and_the_best_is_kept():
    screen = Screen(best={A: 0.09})
    for number, parameters, outcome, crps in (
        (0, FIRST, "complete", 0.1),
        (1, SECOND, "complete", 0.08),
        (2, FIRST, "complete", 0.085),
        (3, FIRST, "pruned", 0.01),  # on a few windows only
        (4, FIRST, "failed", None),
    ):
        screen.table.started(A, number, parameters)
        screen.table.ended(A, number, outcome, crps)
    screen.table.ended(B, 0, "complete", 0.5)  # a trial that was found scored was never started
    assert screen.cells() == {
        "4x2": ["4/8 (1), 1 failed", "0.0800", "0.0237", "3"],
        "8x1": ["1/8", "0.5000"],
    }


def test_overall_share_and_elapsed():
    screen = Screen(trials=2, counts={A: 1})
    screen.trial(1, (0, "mean", 5), (0, "residual", 1))
    screen.clock.seconds = 3723.9
    assert screen.overall()[:2] == ("40 %", "1:02:03")  # (1 + 0.6) of 4


def test_a_killed_trial_takes_its_progress_back():
    screen = Screen(trials=2)
    screen.trial(0, (10, "mean", 5), (20, "residual", 5))
    screen.table.ended(A, 0, "killed", None)
    assert screen.cells() == {"4x2": ["0/2", "-"], "8x1": ["0/2", "-"]}
    assert screen.overall() == ("0 %", "0:00:20", "-")  # nor is it taken for a cheap trial


def test_late_words_change_nothing():
    screen = Screen()
    screen.trial(0)
    screen.table.ended(A, 0, "complete", 0.1)
    screen.table.progress(A, 0, "mean", 3, 5)
    screen.table.scoring(A, 0)
    assert screen.cells()["4x2"] == ["1/8", "0.1000", "0.0139", "5"]


def left(screen):
    return screen.overall()[2]


# 10 steps a trial; the first report of a stage holds preparation, so that 1 s a step comes from the second.
MEASURED = ((10, "mean", 2), (12, "mean", 4))


def test_time_left_is_unknown_at_first():
    screen = Screen()
    screen.trial(0, *MEASURED[:1])
    assert left(screen) == "-"


@pytest.mark.parametrize(("later", "said"), [(0, "16 s"), (4, "12 s"), (100, "10 s")])
def test_time_left_by_steps(later, said):
    screen = Screen([A], trials=2)
    screen.trial(0, *MEASURED)
    screen.clock.seconds += later
    assert left(screen) == said  # 6 steps, less the time without word, and a trial of 10


def test_steps_from_the_cache_cost_nothing_and_are_expected_again():
    screen = Screen([A], trials=3)
    screen.table.started(A, 0, FIRST)
    screen.table.progress(A, 0, "mean", 5, 5, cached=True)
    screen.clock.seconds = 50
    screen.table.progress(A, 0, "residual", 1, 5)
    screen.clock.seconds = 54
    screen.table.progress(A, 0, "residual", 3, 5)
    assert left(screen) == "24 s"  # 2 s a step: 2 steps of this trial, 5 of each of two others


def test_time_left_by_ended_trials():
    screen = Screen([A], trials=4)
    screen.trial(0, *MEASURED, (13, "mean", 5), (14, "residual", 1), (18, "residual", 5))
    screen.table.scoring(A, 0)
    screen.clock.seconds = 22
    screen.table.ended(A, 0, "complete", 0.1)  # 22 s, 4 s of it scoring
    screen.table.started(A, 1, FIRST)
    screen.clock.seconds = 30
    screen.table.ended(A, 1, "pruned", 0.2)  # 8 s: 15 s on average
    screen.trial(2, (30, "mean", 5), (30, "residual", 4))
    assert left(screen) == "20 s"  # 1 step and scoring, and a trial of 15 s


def test_time_left_while_scoring():
    screen = Screen([A], trials=2)
    screen.trial(0, (30, "residual", 5))
    screen.table.scoring(A, 0)
    screen.clock.seconds = 37
    screen.table.ended(A, 0, "complete", 0.1)
    screen.trial(1)
    screen.table.scoring(A, 1)
    screen.clock.seconds = 40
    assert left(screen) == "4 s"


def test_only_scoring_is_taken_for_scoring():
    screen = Screen([A], trials=2)
    screen.trial(0, *MEASURED)
    screen.clock.seconds = 40
    screen.table.ended(A, 0, "complete", 0.1)
    screen.trial(1, (41, "mean", 5), (42, "residual", 4))
    assert left(screen) == "1 s"


def test_a_stage_that_another_trial_finished_is_no_measure():
    screen = Screen([A], trials=2)
    screen.trial(0, (10, "mean", 2))
    screen.clock.seconds = 100
    screen.table.progress(A, 0, "mean", 5, 5, cached=True)
    assert left(screen) == "-"


def test_trials_run_at_once():
    screen = Screen(trials=3)
    for pair in (A, B):
        screen.table.started(pair, 0, FIRST)
    screen.clock.seconds = 10
    for pair in (A, B):
        screen.table.ended(pair, 0, "complete", 0.1)
    assert left(screen) == "20 s"  # four of 10 s, two at once


def test_nothing_is_left_at_the_end():
    screen = Screen([A], trials=1)
    screen.trial(0, *MEASURED)
    screen.table.ended(A, 0, "complete", 0.1)
    assert screen.overall() == ("100 %", "0:00:12", "0 s")


def test_a_pair_given_up_is_not_waited_for():
    screen = Screen(trials=2)
    screen.table.started(A, 0, FIRST)
    screen.clock.seconds = 10
    screen.table.ended(A, 0, "complete", 0.1)
    screen.table.give_up(B)
    assert screen.cells()["8x1"] == ["0/2", "-", "given up"]
    assert screen.overall() == ("50 %", "0:00:10", "10 s")


def test_more_pairs_than_the_screen_has_lines():
    pairs = [FactorPair(space, 2) for space in range(1, 11)]
    screen = Screen(pairs, height=9)
    screen.table.started(pairs[8], 0, FIRST)
    assert list(screen.cells()) == ["1x2", "2x2", "3x2", "9x2"]
    assert "and 6 more pairs" in screen.rows()
    assert left(screen) == "-"


def test_note_stands_below_until_it_is_taken_away():
    text = "MLflow does not answer: 34 records wait"
    screen = Screen()
    screen.table.note(text)
    assert screen.rows()[-1] == text
    screen = Screen()
    screen.table.note(text)
    screen.table.note(None)
    assert text not in screen.rows()


def test_a_line_stays_above():
    screen = Screen()
    screen.table.say("4x2 trial 0: [bold] CRPS 0.1")
    written = ESCAPES.sub("", screen.out.getvalue())
    assert "4x2 trial 0: [bold] CRPS 0.1\n" in written
    assert written.index("CRPS 0.1") < written.rindex("pair  trials")


def test_the_terminal_is_left_clean():
    streams = sys.stdout, sys.stderr
    screen = Screen()
    with pytest.raises(KeyboardInterrupt), screen.table:
        raise KeyboardInterrupt
    screen.table.close()
    assert (sys.stdout, sys.stderr) == streams
    written = screen.out.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is back
    screen.table.say("still heard")
    assert screen.out.getvalue().endswith("still heard\n")


def test_without_a_terminal_a_line_a_minute(capsys):
    clock = Clock()
    table = LiveTable([A, B], trials=8, steps_per_trial=10, counts={A: 2}, best={B: 0.0945}, clock=clock)
    with table:
        said = []
        for seconds in (0, 59, 60, 61, 119, 121):
            clock.seconds = seconds
            table.started(A, seconds, FIRST)
            said.append(capsys.readouterr().out)
            if seconds == 60:
                table.ended(A, 0, "complete", 0.0837)
                table.note("MLflow does not answer: 34 records wait")
        table.say("a line")
        assert capsys.readouterr().out == "a line\n"
    assert said[:2] + said[3:5] == [""] * 4
    assert said[2] == "4x2 2/8, 8x1 0/8; best -, 0.0945\n"
    # 60 s a trial; of up to 5 at once the last began just now, 8 wait behind
    assert said[5] == (
        "4x2 3/8, 8x1 0/8; best 0.0837, 0.0945; about 2 min left; MLflow does not answer: 34 records wait\n"
    )
    assert capsys.readouterr() == ("", "")


def test_ray_tune_may_pickle_it_before_it_begins(capsys):
    table = LiveTable([A], trials=1, steps_per_trial=10, counts={}, best={})
    with cloudpickle.loads(cloudpickle.dumps(table)) as copy:
        copy.say("heard")
    assert capsys.readouterr().out == "heard\n"
