import io
import os
import pty
import re
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.progress import console_on, duration, progress

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3590, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (86399, "1 d 0 h"),
        (76 * 3600, "3 d 4 h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0, 1e7))
def test_duration_is_right_to_half_its_last_unit(seconds):
    parts = re.findall(r"(\d+) (\w+)", duration(seconds))
    said = sum(int(number) * UNITS[unit] for number, unit in parts)
    slack = 0.5 + 30 * (parts[-1][1] == "h")  # seconds, then minutes, are rounded before hours
    assert abs(said - seconds) <= UNITS[parts[-1][1]] / 2 + slack


def test_without_a_terminal_a_line_now_and_then():
    clock, out = Clock(), io.StringIO()
    with progress("writing", 1000, "frames", console=Console(file=out), clock=clock) as advance:
        said = []
        for seconds in (10, 29, 30, 40, 59, 61):
            clock.seconds = seconds
            advance(100)
            said.append(out.getvalue().count("\n"))
    assert said == [0, 0, 1, 1, 1, 2]
    assert out.getvalue().splitlines() == [
        "writing: 300/1,000 frames, 10 frames/s, 1 min left",  # 700 frames at 10 a second: 70 s
        "writing: 600/1,000 frames, 9.8 frames/s, 41 s left",  # 400 * 61 / 600
    ]


def test_short_work_says_nothing(capsys):
    with progress("writing", 3, "frames") as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def on_terminal(**options):
    out = io.StringIO()
    return out, Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"}, **options)


def test_bar():
    clock, (out, console) = Clock(), on_terminal()
    with progress("synthetic rain", 240, "frames", console=console, clock=clock) as advance:
        clock.seconds = 10
        advance(60)
        advance(60)
    rows = [row.strip() for row in ESCAPES.sub("", out.getvalue()).split("\r")]
    assert rows[0].startswith("synthetic rain ━")
    assert rows[0].endswith(" 0/240 frames")
    assert [row for row in rows if row][-1].endswith(" 120/240 frames, 12 frames/s, 10 s left")
    assert out.getvalue().endswith("\x1b[1A\x1b[2K")  # nothing of it stays


@pytest.mark.parametrize("total", [0, 5])
def test_more_than_was_announced(total):
    clock, (out, console) = Clock(), on_terminal()
    with progress("reading", total, "frames", console=console, clock=clock) as advance:
        clock.seconds = 1
        advance(7)
    assert f"7/{total} frames, 7.0 frames/s, 0 s left" in out.getvalue()


def test_an_error_leaves_the_terminal_as_it_was():
    out, console = on_terminal()
    streams = sys.stdout, sys.stderr
    with pytest.raises(KeyboardInterrupt), progress("reading", 5, "frames", console=console):
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr) == streams
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")  # the cursor is back


def test_forced_colours_make_no_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not console_on(io.StringIO()).is_interactive


OTHERS = textwrap.dedent(
    """
    import logging, sys, time, warnings
    logger = logging.getLogger("other")
    logger.addHandler(logging.StreamHandler())
    from pipeline.progress import progress
    with progress("reading", 9, "frames") as advance:
        for step in range(3):
            advance(3)
            print("a line on stdout")
            print("a line on stderr", file=sys.stderr)
            logger.warning("a logged line")
            time.sleep(0.3)
    print("the end on stdout")
    logger.warning("the end logged")
    """
)


def in_terminal(code, **options):
    """Run Python with a terminal as its stderr, and as its stdout unless told; give rows, rest of stdout."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=theirs, env=environment, **{"stdout": theirs, **options}
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not block:
            break
        written += block
    os.close(ours)
    piped = process.communicate(timeout=60)[0]
    assert process.returncode == 0, written
    rows = [row.strip() for row in re.split(r"[\r\n]+", ESCAPES.sub("", written.decode()))]
    return rows, (piped or b"").decode().splitlines()


def test_lines_of_others_stand_alone_in_a_real_terminal():
    rows, _ = in_terminal(OTHERS)
    for line in ("a line on stdout", "a line on stderr", "a logged line"):
        assert rows.count(line) == 3
    assert {"the end on stdout", "the end logged"} <= set(rows)
    assert any(re.match(r"reading ━+.* 9/9 frames, ", row) for row in rows)


def test_what_is_sent_elsewhere_goes_there():
    rows, piped = in_terminal(OTHERS, stdout=subprocess.PIPE)
    assert piped == ["a line on stdout"] * 3 + ["the end on stdout"]
    assert rows.count("a line on stderr") == rows.count("a logged line") == 3
    assert "a line on stdout" not in rows


def test_rich_waits_until_it_is_needed():
    code = "import sys, pipeline.progress; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
