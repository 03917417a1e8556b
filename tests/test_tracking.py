import contextlib
import json
import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import ViewType

from pipeline import UserError
from pipeline.mlflow_view.views import VALUES, View, page_of_run, page_of_view
from pipeline.tracking import KEY, NOTE, PARENT, ROLE, SWEEP, TrackedData, Tracker

logging.getLogger("mlflow").setLevel(logging.WARNING)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all tests here: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/sub/mlflow.db"


@pytest.fixture
def reopen(uri, request, tmp_path):
    """Give a tracker as a new driver has it; every test has an experiment and an output of its own."""
    opened = []

    def open_(sweep="s", experiment=request.node.name):
        tracker = Tracker(uri, experiment, str(tmp_path), {SWEEP: sweep, "finescale.dataset": "rain"})
        opened.append(tracker)
        return tracker

    yield open_
    for tracker in opened:
        tracker.close()


def run_of(tracker, key):
    """Give a run as the server has it, once everything is delivered."""
    assert tracker.flush(20)
    return tracker.client.get_run(tracker.run_id(key))


def all_runs(tracker, view=ViewType.ALL):
    assert tracker.flush(20)
    return tracker.client.search_runs([tracker.experiment_id], run_view_type=view)


def now():
    return int(time.time() * 1000)


def test_a_run_and_its_child(reopen):
    tracker = reopen()
    before = now()
    study = tracker.start("s/4x2", "4x2 study", tags={"role": "study"}, params={"pair": "4x2"})
    trial = tracker.start("s/4x2/0", "first", parent=study, params={"beta": 0.1 + 0.2, "L": 4})
    assert (study, trial) == ("s/4x2", "s/4x2/0")
    tracker.metrics(trial, {"loss": 2.0}, step=5)
    tracker.metrics(trial, {"loss": 1.0}, step=10)
    tracker.tag(trial, {"a": "1", "b": "2"})
    tracker.text(study, "notes/table.txt", "rain: \u2265 1 mm/h\n")
    tracker.text(study, "top.txt", "top")
    tracker.artifact(study, "figures/one.png", bytes(range(256)))
    tracker.end(trial, "FINISHED")
    tracker.end(study, "FINISHED")
    after = now()

    run = run_of(tracker, trial)
    assert run.info.status == tracker.status(trial) == "FINISHED"
    assert run.info.run_name == "first"
    assert before <= run.info.start_time <= run.info.end_time <= after
    assert run.data.params == {"beta": repr(0.1 + 0.2), "L": "4"}
    assert run.data.tags.items() >= {
        PARENT: tracker.run_id(study), KEY: "s/4x2/0", SWEEP: "s", "a": "1", "b": "2",
        "finescale.dataset": "rain",
    }.items()  # fmt: skip
    history = tracker.client.get_metric_history(tracker.run_id(trial), "loss")
    assert [(m.step, m.value) for m in history] == [(5, 2.0), (10, 1.0)]
    top = run_of(tracker, study)
    assert PARENT not in top.data.tags
    assert top.data.tags["role"] == "study"
    assert top.info.artifact_uri.startswith("file:///")
    assert [a.path for a in tracker.client.list_artifacts(top.info.run_id)] == ["figures", "notes", "top.txt"]
    folder = Path(top.info.artifact_uri.removeprefix("file://"))
    assert (folder / "notes" / "table.txt").read_text() == "rain: \u2265 1 mm/h\n"
    assert (folder / "figures" / "one.png").read_bytes() == bytes(range(256))


RAIN = TrackedData("rain", "0123abcd", '{"url": "u"}', "{}", '{"gaps": 0}')


def test_the_data_of_all_runs_from_now_on(reopen):
    tracker = reopen()
    before = tracker.start("before", "run")
    tracker.use_data(RAIN)
    after = [tracker.start(key, "run") for key in ("a", "b", "a")]  # one of them twice
    for key in after:
        (given,) = run_of(tracker, key).inputs.dataset_inputs
        assert (given.dataset.name, given.dataset.digest) == ("rain", "0123abcd")
        assert (given.dataset.source, given.dataset.profile) == ('{"url": "u"}', '{"gaps": 0}')
        assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]
    assert run_of(tracker, before).inputs.dataset_inputs == []


def test_links_of_a_note(reopen):
    """They are known when the note is delivered, and lead to runs of other sweeps too."""
    other = reopen("another sweep")
    other.start("another/study", "study")
    assert other.flush(20)
    tracker = reopen()
    study = tracker.start("s/4x2", "study", tags={NOTE: "[itself](run:s/4x2)"})
    assert run_of(tracker, study).data.tags[NOTE] == "itself"  # it had no page yet
    text = (
        "[one](run:s/4x2) [two](run:another/study) [gone](run:no/such) [v](view:k) [m](model:n) [x](http://y)"
    )
    tracker.note(study, text)
    here = tracker.experiment_id
    one, two = (page_of_run(here, run) for run in (tracker.run_id(study), other.run_id("another/study")))
    assert run_of(tracker, study).data.tags[NOTE] == (
        f"[one]({one}) [two]({two}) gone [v]({page_of_view(here, 'k')}) [m](#/models/n) [x](http://y)"
    )
    assert tracker.page(study) == f"http://127.0.0.1:5000/{one}"
    assert tracker.page("no/such") is None


def test_views_and_the_experiments_note_stay_as_a_person_left_them(reopen):
    tracker = reopen()
    experiment = tracker.experiment_id
    tracker.client.set_experiment_tag(experiment, NOTE, "mine")
    view = View("k", "metrics.m > 0", "metrics.m", ("metrics.m",))
    where = f"http://127.0.0.1:5000/{page_of_view(experiment, 'k')}"
    assert tracker.view(view) == where
    tracker.end(tracker.start("s", "sweep s", tags={ROLE: "sweep"}), "FINISHED")
    assert tracker.flush(20)
    tags = tracker.client.get_experiment(experiment).tags
    assert tags[NOTE] == "mine"
    assert json.loads(tags[view.tag])["searchFilter"] == "metrics.m > 0"
    assert json.loads(json.loads(tags[VALUES.tag])["state"])["searchFilter"] == VALUES.filter
    tracker.client.set_experiment_tag(experiment, view.tag, "changed")
    tracker.view(view)
    assert tracker.flush(20)
    assert tracker.client.get_experiment(experiment).tags[view.tag] == "changed"


def test_an_experiment_says_how_to_read_it(reopen):
    tracker = reopen()
    tracker.start("k", "trial", tags={ROLE: "trial"})
    assert tracker.flush(20)
    assert NOTE not in tracker.client.get_experiment(tracker.experiment_id).tags
    tracker.start("e", "evaluation", tags={ROLE: "evaluation"})
    assert tracker.flush(20)
    note = tracker.client.get_experiment(tracker.experiment_id).tags[NOTE]
    assert f"({page_of_view(tracker.experiment_id, VALUES.key)})" in note


@pytest.mark.parametrize("role", ["sweep", "training", "evaluation"])
def test_the_machine_is_watched_while_a_run_is_open(reopen, role):
    tracker = reopen()
    run = tracker.start("s", "run", tags={ROLE: role})
    tracker.start("t", "trial", tags={ROLE: "trial"})
    deadline = time.monotonic() + 30
    while "system/cpu_utilization_percentage" not in run_of(tracker, run).data.metrics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    tracker.end(run, "FINISHED")
    assert not any(thread.name == "system-metrics" for thread in threading.enumerate())
    assert not any(name.startswith("system/") for name in run_of(tracker, "t").data.metrics)


def test_a_closed_tracker_watches_nothing(reopen):
    tracker = reopen()
    tracker.start("s", "run", tags={ROLE: "sweep"})
    assert any(thread.name == "system-metrics" for thread in threading.enumerate())
    tracker.close()
    assert not any(thread.name == "system-metrics" for thread in threading.enumerate())


def test_what_is_not_finite_is_left_out(reopen):
    tracker = reopen()
    run = tracker.start("k", "run")
    tracker.metrics(run, {"nan": float("nan"), "inf": float("inf"), "one": 1.0})
    tracker.metrics(run, {"nan": float("nan")})
    assert run_of(tracker, run).data.metrics == {"one": 1.0}


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_how_runs_end(reopen, status):
    tracker = reopen()
    runs = [tracker.start(str(i), "run") for i in range(3)]
    tracker.end(runs[0], "FINISHED")
    assert [tracker.status(run) for run in runs] == ["FINISHED", "RUNNING", "RUNNING"]
    assert run_of(tracker, runs[1]).info.status == "RUNNING"
    tracker.end_all(status)
    assert [run_of(tracker, run).info.status for run in runs] == ["FINISHED", status, status]
    assert all(run_of(tracker, run).info.end_time for run in runs)
    tracker.end_all("FAILED")  # there is nothing left to end
    assert run_of(tracker, runs[1]).info.status == status


def test_an_interrupted_sweep(reopen):
    dead = reopen()
    study, trial, done = (dead.start(key, key, params={"p": 1}) for key in ("study", "trial", "done"))
    dead.metrics(study, {"m": 1.0})
    dead.end(done, "FINISHED")
    assert dead.flush(20)
    other = reopen("another sweep")
    stranger = other.start("stranger", "study")
    assert other.flush(20)

    tracker = reopen()
    expected = {study: "KILLED", trial: "KILLED", done: "FINISHED"}
    assert {key: tracker.status(key) for key in expected} == expected
    assert {key: run_of(tracker, key).info.status for key in expected} == expected
    assert tracker.status(stranger) is None
    assert tracker.run_id(stranger) is None
    assert run_of(other, stranger).info.status == "RUNNING"

    tracker.start("study", "study", tags={"new": "tag"}, params={"p": 2, "q": 3})
    again = run_of(tracker, "study")
    assert again.info.run_id == dead.run_id("study")
    assert again.info.status == tracker.status("study") == "RUNNING"
    assert again.data.params == {"p": "1", "q": "3"}
    assert (again.data.metrics, again.data.tags["new"]) == ({"m": 1.0}, "tag")
    tracker.start("new", "new")
    tracker.end_all("FINISHED")
    other.end_all("FINISHED")
    assert other.flush(20)
    assert {run.info.status for run in all_runs(tracker)} == {"FINISHED", "KILLED"}
    assert len(all_runs(tracker)) == 5


def test_more_runs_than_a_page(reopen, monkeypatch):
    tracker = reopen()
    keys = [str(i) for i in range(5)]
    for key in keys:
        tracker.end(tracker.start(key, "run"), "FINISHED")
    assert tracker.flush(20)
    search = mlflow.MlflowClient.search_runs

    def two_a_page(self, *arguments, **more):
        return search(self, *arguments, **more | {"max_results": 2})

    monkeypatch.setattr(mlflow.MlflowClient, "search_runs", two_a_page)
    again = reopen()
    monkeypatch.undo()
    assert [again.run_id(key) for key in keys] == [tracker.run_id(key) for key in keys]


@pytest.mark.parametrize("richer", [0, 1])
def test_of_two_runs_with_one_key_the_one_that_holds_more_counts(reopen, richer):
    """The older one or the newer: a request that timed out may be carried out late."""
    tracker = reopen()
    tags = {SWEEP: "s", KEY: "k"}
    ids = [tracker.client.create_run(tracker.experiment_id, 1000 + i, tags).info.run_id for i in range(2)]
    tracker.client.log_metric(ids[richer], "m", 1.0)
    again = reopen()
    assert again.run_id("k") == ids[richer]
    again.end(again.start("k", "run"), "FINISHED")
    (active,) = all_runs(again, ViewType.ACTIVE_ONLY)
    (deleted,) = all_runs(again, ViewType.DELETED_ONLY)
    assert (active.info.run_id, active.info.status) == (ids[richer], "FINISHED")
    assert (deleted.info.run_id, deleted.info.status) == (ids[1 - richer], "KILLED")


def test_of_two_equal_runs_the_newer_counts(reopen):
    tracker = reopen()
    tags = {SWEEP: "s", KEY: "k"}
    _, newer = (
        tracker.client.create_run(tracker.experiment_id, 1000 + i, tags).info.run_id for i in range(2)
    )
    assert reopen().run_id("k") == newer


def test_a_run_that_was_made_unheard_is_used(reopen):
    """Its request timed out, and the server made it all the same."""
    tracker = reopen()
    made = tracker.client.create_run(tracker.experiment_id, tags={SWEEP: "s", KEY: "k"}).info.run_id
    tracker.start("k", "run", params={"p": 1})
    assert run_of(tracker, "k").info.run_id == made
    assert run_of(tracker, "k").data.params == {"p": "1"}
    assert len(all_runs(tracker)) == 1


@pytest.fixture
def locked(uri):
    """A database that another process writes to: MLflow cannot."""

    @contextlib.contextmanager
    def lock():
        connection = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
            connection.close()

    return lock


def test_what_a_killed_driver_left_is_delivered_at_the_next_start(reopen, tmp_path, uri, request, locked):
    reopen().close()  # the experiment is there
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, uri, request.node.name, str(tmp_path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert killed.stdout.readline() == "open\n"
    with locked():
        killed.stdin.write("go\n")
        killed.stdin.flush()
        assert killed.wait(60) == -signal.SIGKILL
    time.sleep(0.1)
    left = now()

    tracker = reopen()
    assert tracker.pending or tracker.run_id("done")
    assert (tracker.status("done"), tracker.status("open")) == ("FINISHED", "KILLED")
    done, open_ = run_of(tracker, "done"), run_of(tracker, "open")
    assert (done.info.status, open_.info.status) == ("FINISHED", "KILLED")
    assert done.info.start_time <= done.info.end_time < left <= open_.info.end_time
    assert [m.value for m in tracker.client.get_metric_history(tracker.run_id("done"), "m")] == [
        0.0,
        1.0,
        2.0,
    ]
    assert open_.data.tags[PARENT] == done.info.run_id
    assert len(all_runs(tracker)) == 2
    assert list((tmp_path / "tracking").iterdir()) == []


KILLED = f"""
import os, signal, sys
from pipeline.tracking import Tracker
uri, experiment, output = sys.argv[1:]
tracker = Tracker(uri, experiment, output, {{{SWEEP!r}: "s"}})
print("open", flush=True)
sys.stdin.readline()
tracker.start("done", "run")
for step in range(3):
    tracker.metrics("done", {{"m": step}}, step)
tracker.start("open", "run", parent="done")
tracker.end("done", "FINISHED")
assert tracker.pending == 6
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_delivered_twice_is_as_once(reopen, tmp_path):
    """A driver killed between a delivery and its note of it leaves a file with what MLflow has."""
    tracker = reopen()
    box = tmp_path / "tracking" / "s.jsonl"
    kept = []
    put = tracker._outbox.put
    tracker._outbox.put = lambda record: (kept.append(record), put(record))
    tracker.use_data(RAIN)
    run = tracker.start("k", "run", params={"p": 1})
    for step in range(3):
        tracker.metrics(run, {"m": step}, step)
    tracker.tag(run, {"a": "b"})
    tracker.note(run, "[k](run:k)")
    tracker.view(VALUES)
    tracker.text(run, "a.txt", "text")
    tracker.end(run, "FAILED")
    before = run_of(tracker, run)
    tracker.close()
    box.parent.mkdir(exist_ok=True)
    box.write_text("".join(json.dumps(record) + "\n" for record in kept))

    again = reopen()
    assert again.status(run) == "FAILED"
    after = run_of(again, run)
    assert after.to_dictionary() == before.to_dictionary()
    assert len(again.client.get_metric_history(after.info.run_id, "m")) == 3
    assert len(all_runs(again)) == 1


def test_what_mlflow_refuses_costs_a_record_and_a_line(reopen, caplog):
    tracker = reopen()
    run = tracker.start("k", "run")
    with caplog.at_level(logging.WARNING, "pipeline.records.outbox"):
        tracker.metrics("no such run", {"m": 1.0})
        tracker.metrics("no such run", {"m": 2.0})
        tracker.end("no such run", "FINISHED")
        tracker.metrics(run, {"a name that MLflow does not take: *": 1.0})
        tracker.register(run, "/no/such/model", "name", crps=1.0, scored_on="f")
        tracker.metrics(run, {"m": 1.0})
        assert run_of(tracker, run).data.metrics == {"m": 1.0}
    assert len(caplog.messages) == 4
    assert tracker.registered(run) is None


def test_a_deleted_experiment(reopen, one_line):
    tracker = reopen()
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(UserError) as raised:
        reopen()
    one_line(raised, "deleted", "tracking.experiment")


@pytest.mark.parametrize("uri", ["/tmp/mlruns-of-nobody", "nonsense://user:secret@host/db"])
def test_uris_that_mlflow_does_not_take(uri, tmp_path, one_line):
    with pytest.raises(UserError) as raised:
        Tracker(uri, "e", str(tmp_path), {SWEEP: "s"})
    one_line(raised, "MLflow")
    assert "secret" not in str(raised.value)
