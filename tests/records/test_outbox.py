import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records.outbox import Outbox, Retry

SOON = (0.001, 0.002)  # seconds between tries
ROOT = Path(__file__).resolve().parents[2]


class Server:
    """Takes records while it is up."""

    def __init__(self, up=True):
        self.up, self.got, self.asked = up, [], []

    def __call__(self, record):
        self.asked.append(time.monotonic())
        if not self.up:
            raise Retry("no route\nto host")
        if record.get("bad"):
            raise ValueError(record["bad"])
        self.got.append(record)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "tracking" / "sweep.jsonl")


def eventually(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def records(count, start=0):
    return [{"n": n} for n in range(start, start + count)]


def test_delivered_in_order_then_no_file_is_left(path):
    server = Server()
    outbox = Outbox(path, server)
    for record in records(50):
        outbox.put(record)
    assert outbox.flush(5)
    assert server.got == records(50)
    assert outbox.pending == 0
    assert not Path(path).exists()
    assert outbox.close()


def test_a_server_that_hangs_blocks_nobody(path):
    release = threading.Event()
    outbox = Outbox(path, lambda record: release.wait(10))
    begun = time.monotonic()
    for record in records(100):
        outbox.put(record)
    assert time.monotonic() - begun < 1
    assert outbox.pending == 100
    assert not outbox.flush(0.05)
    assert [json.loads(line) for line in Path(path).read_text().splitlines() if line] == records(100)
    release.set()
    assert outbox.flush(5)
    outbox.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["taken", "refused"]), st.booleans()), max_size=12)
)
def test_whatever_fails_each_is_delivered_once_and_in_order(plan):
    """Per record: how many tries fail before, whether it is taken at last, whether the next is put later."""
    left = [fails for fails, _, _ in plan]
    got = []

    def deliver(record):
        n = record["n"]
        if left[n]:
            left[n] -= 1
            raise Retry("later")
        if plan[n][1] == "refused":
            raise ValueError("never")
        got.append(n)

    outbox = Outbox(None, deliver, waits=SOON)
    for n, (_, _, pause) in enumerate(plan):
        outbox.put({"n": n})
        if pause:
            outbox.flush(5)
    assert outbox.close(5)
    assert got == [n for n, (_, end, _) in enumerate(plan) if end == "taken"]
    assert left == [0] * len(plan)


def test_the_next_outbox_delivers_what_was_left(path):
    first = Outbox(path, Server(up=False), waits=SOON)
    for record in records(3):
        first.put(record)
    assert not first.close(0.02)
    server = Server()
    second = Outbox(path, server)
    assert second.recovered == tuple(records(3))
    second.put({"n": 3})
    assert second.flush(5)
    assert server.got == records(4)
    assert not Path(path).exists()
    second.close()
    assert Outbox(path, server).recovered == ()


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 200), texts=st.lists(st.text(max_size=6), min_size=1, max_size=5))
def test_a_kill_in_mid_write_costs_that_record_alone(cut, texts, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("cut") / "box.jsonl")
    first = Outbox(path, Server(up=False), waits=(10, 10))
    for text in texts:
        first.put({"text": text})
    first.close()
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:cut])
    lengths = [len(json.dumps({"text": text})) for text in texts]
    ends = [sum(lengths[: i + 1]) + 2 * i + 1 for i in range(len(texts))]  # a record ends before its newline
    whole = [{"text": text} for text, end in zip(texts, ends, strict=True) if end <= cut]

    second = Outbox(path, Server(up=False), waits=(10, 10))
    assert list(second.recovered) == whole
    second.put({"text": "after"})
    second.close()
    third = Outbox(path, Server(up=False), waits=(10, 10))
    assert list(third.recovered) == [*whole, {"text": "after"}]
    third.close()


KILLED = """
import os, signal, sys
from pipeline.records.outbox import Outbox, Retry
def deliver(record):
    if record["n"] >= 2:
        raise Retry("down")
outbox = Outbox(sys.argv[1], deliver)
for n in range(20):
    outbox.put({"n": n})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing(path):
    done = subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    server = Server()
    outbox = Outbox(path, server)
    assert outbox.close(5)
    numbers = [record["n"] for record in server.got]
    assert numbers[0] <= 2  # what had been delivered may be there for the second time
    assert numbers == list(range(numbers[0], 20))


def test_waits_double_up_to_the_longest():
    server = Server(up=False)
    outbox = Outbox(None, server, waits=(0.05, 0.2))
    outbox.put({})
    eventually(lambda: len(server.asked) == 6)
    server.up = True
    outbox.close(5)
    gaps = [b - a for a, b in zip(server.asked, server.asked[1:], strict=False)]
    for gap, least in zip(gaps[:5], [0.05, 0.1, 0.2, 0.2, 0.2], strict=True):
        assert gap >= least
    assert gaps[4] < 0.7  # not 0.8


def test_a_flush_does_not_wait_for_the_next_try():
    server = Server(up=False)
    outbox = Outbox(None, server, waits=(60, 60))
    outbox.put({})
    eventually(lambda: server.asked)
    server.up = True
    assert outbox.flush(5)
    assert len(server.asked) == 2


def test_one_line_when_it_falls_silent_and_one_when_it_is_back(path, caplog):
    server = Server(up=False)
    outbox = Outbox(path, server, server="MLflow http://host", waits=SOON)
    with caplog.at_level(logging.INFO, "pipeline.records.outbox"):
        for record in records(7):
            outbox.put(record)
        eventually(lambda: len(server.asked) > 5)
        server.up = True
        assert outbox.flush(5)
        outbox.put({"n": 7})
        outbox.close(5)
    silent, back = caplog.messages
    assert silent == f"MLflow http://host does not take records (no route to host); they wait in {path}"
    assert back == "MLflow http://host takes records again; 7 of them are late"
    assert server.got == records(8)


def test_what_is_refused_is_dropped_with_its_reason(caplog):
    server = Server()
    outbox = Outbox(None, server, waits=SOON)
    with caplog.at_level(logging.WARNING, "pipeline.records.outbox"):
        for record in [{"bad": "too long"}, {"n": 0}, {"bad": "too long"}, {"bad": "no run"}, {"n": 1}]:
            outbox.put(record)
        assert outbox.close(5)
    assert server.got == records(2)
    assert [message.split(": ", 1)[1] for message in caplog.messages] == ["too long", "no run"]


def test_a_record_that_may_be_the_trouble_is_given_up(caplog):
    asked = []

    def deliver(record):
        asked.append(record["n"])
        if record["n"] == 0:
            raise Retry("error 500", tries=3)

    outbox = Outbox(None, deliver, waits=SOON)
    with caplog.at_level(logging.WARNING, "pipeline.records.outbox"):
        outbox.put({"n": 0})
        outbox.put({"n": 1})
        assert outbox.close(5)
    assert asked == [0, 0, 0, 1]
    assert any("did not take a record: error 500" in message for message in caplog.messages)


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_is_left_at_the_end_is_said(on_disk, path, caplog):
    outbox = Outbox(path if on_disk else None, Server(up=False), waits=SOON)
    outbox.put({})
    outbox.put({})
    with caplog.at_level(logging.WARNING, "pipeline.records.outbox"):
        assert not outbox.close(0.05)
        assert not outbox.close()
    assert caplog.messages[-1].startswith("server has not taken 2 records; they")
    assert caplog.messages[-1].endswith(f"wait in {path} for the next start" if on_disk else "are lost")


def test_a_closed_outbox_leaves_the_file_to_the_next(path):
    release, begun, delivered = threading.Event(), threading.Event(), threading.Event()

    def hang(record):
        begun.set()
        release.wait(10)
        delivered.set()

    first = Outbox(path, hang)
    first.put({"n": 0})
    assert begun.wait(5)
    first.close()
    second = Outbox(path, Server(up=False), waits=SOON)
    release.set()
    assert delivered.wait(5)
    time.sleep(0.05)
    assert second.pending == 1
    assert Path(path).exists()
    second.close()


def test_a_disk_that_cannot_be_written_costs_no_record(path, caplog):
    server = Server(up=False)
    outbox = Outbox(path, server, waits=SOON)
    os.mkdir(path)
    with caplog.at_level(logging.WARNING, "pipeline.records.outbox"):
        for record in records(3):
            outbox.put(record)
        server.up = True
        assert outbox.close(5)
    assert server.got == records(3)
    assert sum("memory only" in message for message in caplog.messages) == 1


def test_a_long_outage_is_not_held_against_the_record(path):
    """The server is away for long, answers with one error while it starts, and then takes everything."""
    answers, got = [Retry("no route")] * 12 + [Retry("error 500", tries=2)], []

    def deliver(record):
        if answers:
            raise answers.pop(0)
        got.append(record)

    outbox = Outbox(path, deliver, waits=SOON)
    outbox.put({"n": 0})
    assert outbox.flush(5)
    assert got == [{"n": 0}]
    assert outbox.close()
