import http.server
import logging
import threading

import mlflow
import pytest
from mlflow.entities import ViewType

from pipeline import UserError
from pipeline.config import TrackingSettings
from pipeline.environment import without_secrets
from pipeline.tracking import KEY, PARENT, SWEEP, Tracker, check_reachable, tracking_uri

logging.getLogger("mlflow").setLevel(logging.WARNING)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all tests here: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/sub/mlflow.db"


@pytest.fixture
def reopen(uri, request):
    """Give a tracker as a new driver has it; every test has an experiment of its own."""

    def open_(sweep="s", experiment=request.node.name):
        output = uri.removeprefix("sqlite:///").removesuffix("/mlflow.db")
        return Tracker(uri, experiment, output, {SWEEP: sweep, "finescale.dataset": "rain"})

    return open_


def run_of(tracker, run_id):
    return tracker.client.get_run(run_id)


def test_a_run_and_its_child(reopen, uri):
    tracker = reopen()
    study = tracker.start("s/4x2", "4x2 study", tags={"role": "study"}, params={"pair": "4x2"})
    trial = tracker.start("s/4x2/0", "first", parent=study, params={"beta": 0.1 + 0.2, "L": 4})
    tracker.metrics(trial, {"loss": 2.0}, step=5)
    tracker.metrics(trial, {"loss": 1.0}, step=10)
    tracker.tag(trial, {"a": "1", "b": "2"})
    tracker.text(study, "notes/table.txt", "rain\n")
    tracker.image(study, "figures/one.png", b"png")
    tracker.end(trial, "FINISHED")
    tracker.end(study, "FINISHED")

    run = run_of(tracker, trial)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params == {"beta": repr(0.1 + 0.2), "L": "4"}
    assert run.data.tags.items() >= {
        PARENT: study, KEY: "s/4x2/0", SWEEP: "s", "a": "1", "b": "2", "finescale.dataset": "rain"
    }.items()  # fmt: skip
    assert [(m.step, m.value) for m in tracker.client.get_metric_history(trial, "loss")] == [
        (5, 2.0),
        (10, 1.0),
    ]
    top = run_of(tracker, study)
    assert PARENT not in top.data.tags
    assert top.data.tags["role"] == "study"
    assert top.info.artifact_uri.startswith("file:///")
    assert [a.path for a in tracker.client.list_artifacts(study)] == ["figures", "notes"]
    assert mlflow.artifacts.load_text(f"{top.info.artifact_uri}/notes/table.txt") == "rain\n"


def test_what_is_not_finite_is_left_out(reopen):
    tracker = reopen()
    run = tracker.start("k", "run")
    tracker.metrics(run, {"nan": float("nan"), "inf": float("inf"), "one": 1.0})
    tracker.metrics(run, {"nan": float("nan")})
    assert run_of(tracker, run).data.metrics == {"one": 1.0}
    tracker.end(run, "FINISHED")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_how_runs_end(reopen, status):
    tracker = reopen()
    runs = [tracker.start(str(i), "run") for i in range(3)]
    tracker.end(runs[0], "FINISHED")
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
    other = reopen("another sweep")
    stranger = other.start("study", "study")

    tracker = reopen()
    statuses = {run: run_of(tracker, run).info.status for run in (study, trial, done, stranger)}
    assert statuses == {study: "KILLED", trial: "KILLED", done: "FINISHED", stranger: "RUNNING"}

    assert tracker.start("study", "study", tags={"new": "tag"}, params={"p": 2}) == study
    again = run_of(tracker, study)
    assert again.info.status == "RUNNING"
    assert (again.data.params, again.data.metrics, again.data.tags["new"]) == ({"p": "1"}, {"m": 1.0}, "tag")
    assert tracker.start("new", "new") not in (study, trial, done)
    tracker.end_all("FINISHED")
    other.end_all("FINISHED")
    runs = tracker.client.search_runs([tracker.experiment_id], run_view_type=ViewType.ALL)
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    assert len(runs) == 5


def test_more_runs_than_a_page(reopen, monkeypatch):
    tracker = reopen()
    runs = {str(i): tracker.start(str(i), "run") for i in range(5)}
    search = mlflow.MlflowClient.search_runs

    def two_a_page(self, *arguments, **more):
        return search(self, *arguments, **more | {"max_results": 2})

    monkeypatch.setattr(mlflow.MlflowClient, "search_runs", two_a_page)
    again = reopen()
    monkeypatch.undo()
    assert {key: again.start(key, "run") for key in runs} == runs
    again.end_all("FINISHED")


def test_a_server_that_fails_costs_a_record(reopen, caplog):
    tracker = reopen()
    run = tracker.start("k", "run")
    with caplog.at_level(logging.WARNING, "pipeline.tracking"):
        tracker.metrics("no such run", {"m": 1.0})
        tracker.tag("no such run", {"a": "b"})
        tracker.text("no such run", "a.txt", "a")
        tracker.end("no such run", "FINISHED")
    assert len(caplog.records) == 4
    tracker.end(run, "FINISHED")


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


def test_where_runs_go(monkeypatch, one_line):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(TrackingSettings(), "/runs") == "sqlite:////runs/mlflow.db"
    with pytest.raises(UserError) as raised:
        tracking_uri(TrackingSettings(), "gs://bucket/runs")
    one_line(raised, "gs://bucket/runs", "--tracking-uri")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env:5000")
    assert tracking_uri(TrackingSettings(), "gs://bucket/runs") == "http://env:5000"
    assert tracking_uri(TrackingSettings(uri="http://set:5000"), "/runs") == "http://set:5000"


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1",
        "http://user:secret@127.0.0.1:1/",
        "http://user:secret@no-such-host.invalid",
        "http://127.0.0.1:port",
        "http://user:secret@127.0.0.1:port",
        "http://",
    ],
)
def test_an_unreachable_server(uri, one_line):
    with pytest.raises(UserError) as raised:
        check_reachable(uri)
    one_line(raised, "MLflow server", "not reachable")
    assert "secret" not in str(raised.value)
    assert "user" not in str(raised.value)


@pytest.fixture
def server():
    """A server that knows who asks, and answers `health` alone."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200 if self.path.endswith("/health") else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


def test_a_reachable_server(server):
    port, asked = server
    check_reachable(f"http://127.0.0.1:{port}")
    check_reachable(f"http://us%40er:secret@127.0.0.1:{port}/mlflow/")
    check_reachable("sqlite:////nowhere/mlflow.db")
    assert asked == [("/health", None), ("/mlflow/health", "Basic dXNAZXI6c2VjcmV0")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("uri: https://me:secret@host/x", "uri: https://***@host/x"),
        ("a: http://me@h/x\nb: postgresql://me:p@ss@db/y", "a: http://***@h/x\nb: postgresql://***@db/y"),
        ("uri: http://host\nmail: me@host", "uri: http://host\nmail: me@host"),
        ("sqlite:////runs/a@b.db", "sqlite:////runs/a@b.db"),
    ],
)  # fmt: skip
def test_without_secrets(text, shown):
    assert without_secrets(text) == shown
