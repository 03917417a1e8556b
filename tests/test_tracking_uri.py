import http.server
import threading

import pytest

from pipeline import UserError
from pipeline.config import TrackingSettings
from pipeline.environment import without_secrets
from pipeline.tracking import check_reachable, tracking_uri


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
        ("postgresql://me:pa/ss@db/y", "postgresql://***@db/y"),
        ("postgresql://db/y?user=me&password=p/w&x=1", "postgresql://db/y?user=me&password=***&x=1"),
    ],
)  # fmt: skip
def test_without_secrets(text, shown):
    assert without_secrets(text) == shown
