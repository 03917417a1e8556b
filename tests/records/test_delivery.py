import errno
import http.server
import threading

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos import databricks_pb2 as codes

from pipeline.records.delivery import SWEEP, Delivery, as_outbox_error
from pipeline.records.outbox import Retry


def upload(status):
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status}", response=response)


def rest(code):
    return RestException({"error_code": code, "message": "m"})


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("API request to http://h/x failed with exception no route to host"),
        MlflowException("API request to http://h/x failed with timeout exception"),
        MlflowException("database is locked", codes.TEMPORARILY_UNAVAILABLE),
        rest("TEMPORARILY_UNAVAILABLE"),
        rest("REQUEST_LIMIT_EXCEEDED"),
        rest("UNAUTHENTICATED"),
        ConnectionResetError("reset"),
        TimeoutError("timed out"),
        OSError(errno.ENOSPC, "No space left on device"),
        requests.ConnectionError("refused"),
        upload(503),
        upload(401),
    ],
)
def test_the_server_is_in_trouble(error):
    judged = as_outbox_error(error, "metrics of k")
    assert isinstance(judged, Retry)
    assert judged.tries is None
    assert str(judged).startswith("metrics of k: ")


@pytest.mark.parametrize(
    "error",
    [
        rest("INVALID_PARAMETER_VALUE"),
        rest("BAD_REQUEST"),
        rest("RESOURCE_DOES_NOT_EXIST"),
        rest("RESOURCE_ALREADY_EXISTS"),
        rest("PERMISSION_DENIED"),
        upload(403),
        upload(413),
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "not yours"),
        LookupError("there is no such run"),
        ValueError("bad"),
    ],
)
def test_the_record_is_in_trouble(error):
    assert not isinstance(as_outbox_error(error, "metrics of k"), Retry)


@pytest.mark.parametrize(
    "error",
    [
        rest("INTERNAL_ERROR"),
        MlflowException("an error of the local store"),
        MlflowException("API request to endpoint /x failed with error code 413 != 200"),
        RuntimeError("an artifact store's own"),
    ],
)
def test_either_may_be_in_trouble(error):
    judged = as_outbox_error(error, "metrics of k")
    assert isinstance(judged, Retry)
    assert judged.tries > 1


def test_no_password_is_kept():
    error = MlflowException("API request to http://me:secret@h/x failed with exception e")
    assert "secret" not in str(as_outbox_error(error, "w"))


@pytest.mark.parametrize(("status", "endless"), [(500, False), (502, True), (503, True), (429, True)])
def test_what_mlflow_makes_of_a_status(status, endless, monkeypatch):
    """The words of MLflow's errors are looked at: this fails when they change."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = mlflow.MlflowClient(tracking_uri=f"http://127.0.0.1:{server.server_port}")
    delivery = Delivery(client, "0", {SWEEP: "s"})
    delivery.run_ids["k"] = "0" * 32
    with pytest.raises(Retry) as raised:
        delivery({"kind": "tag", "key": "k", "time": 0, "tags": {"a": "b"}})
    server.shutdown()
    server.server_close()
    assert (raised.value.tries is None) == endless
