"""What a user is told when a store, a key, a permission or the space is missing: one line, and soon."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline import UserError
from pipeline.ingest.patterns import expand
from pipeline.sources.readers import open_source
from pipeline.sources.rules import SourceRules
from pipeline.storage import cloud, files
from pipeline.storage.cloud import explained

JOB = Path(__file__).resolve().parents[2] / "jobs" / "ingest.py"
PUBLIC = SourceRules(description="read by strangers", anonymous=True)
ANONYMOUS = "Anonymous caller does not have storage.objects.list access to the Google Cloud Storage bucket."
FORBIDDEN = "me@project.iam.gserviceaccount.com does not have storage.objects.list access to the bucket."


@pytest.fixture
def answering(point_at):
    """Give a server that says the same, in Google's words, to whatever it is asked."""
    servers = []

    def start(status, message):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                content = json.dumps({"error": {"code": status, "message": message}}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        point_at(f"http://127.0.0.1:{servers[-1].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "message", "parts"),
    [
        (401, ANONYMOUS, ("no Google Cloud credentials", "gcloud auth application-default login")),
        (401, "Invalid token", ("not accepted", "Invalid token", "GOOGLE_APPLICATION_CREDENTIALS")),
        (403, FORBIDDEN, ("no permission", "me@project", "role")),
        (404, "The specified bucket does not exist.", ("no such bucket",)),
    ],
)
def test_what_the_server_refuses_is_said_on_one_line(answering, one_line, status, message, parts):
    answering(status, message)
    with pytest.raises(UserError) as raised, files.reached("gs://rain/runs"):
        pass
    one_line(raised, "gs://rain", *parts)


@pytest.fixture
def silent():
    """Give an address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_server_that_is_not_there(point_at, one_line, silent, anonymous):
    point_at(silent)
    with pytest.raises(UserError) as raised, files.reached("gs://rain/runs", anonymous=anonymous):
        pass
    one_line(raised, "gs://rain", f"cannot reach {silent}", "STORAGE_EMULATOR_HOST")


def test_a_public_archive_without_a_network_is_one_line_and_soon(point_at, silent, tmp_path):
    point_at(silent)
    command = ["--source", "era5-arco", "--start", "2020-01-01", "--stop", "2020-01-02", "--dry-run"]
    done = subprocess.run(  # gcsfs itself goes on trying for a minute, and logs tracebacks
        [sys.executable, JOB, *command, "--store", tmp_path / "a"], capture_output=True, text=True, timeout=30
    )
    expected = f"error: gs://gcp-public-data-arco-era5: cannot reach {silent} "
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


def test_what_is_public_is_read_without_credentials(folder, monkeypatch):
    files.write_bytes(f"{folder}/a.nc", b"no data")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    cloud._known.clear()
    assert expand([f"{folder}/*.nc"], anonymous=True) == [f"{folder}/a.nc"]
    with pytest.raises(UserError, match=r"a\.nc: cannot be read \(neither HDF5.* b'no data'"):
        open_source(f"{folder}/a.nc", PUBLIC)


def test_what_is_not_public_is_refused_to_strangers_without_a_log(answering, one_line, caplog):
    answering(401, ANONYMOUS)
    caplog.set_level("NOTSET", "gcsfs")  # as it is before the first bucket
    with pytest.raises(UserError) as raised:
        open_source("gs://rain/a.nc", PUBLIC)
    one_line(raised, "gs://rain/a.nc", "no Google Cloud credentials")
    assert caplog.text == ""


def test_a_web_server_that_is_not_there(one_line, silent):
    with pytest.raises(UserError) as raised:
        open_source(f"http://{silent}/a.nc")
    one_line(raised, f"http://{silent}", f"cannot reach {silent}")


@pytest.mark.parametrize(("status", "part"), [(403, "the server refuses it (403"), (503, "does not answer")])
def test_a_web_server_that_refuses_a_file(answering, one_line, status, part):
    answering(status, "no")
    url = f"{os.environ['STORAGE_EMULATOR_HOST']}/a.nc"
    with pytest.raises(UserError) as raised:
        open_source(url)
    one_line(raised, url, part)


def test_an_endpoint_of_s3_that_is_not_there(one_line):
    exceptions = pytest.importorskip("botocore.exceptions")
    error = exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    assert "the server does not answer" in explained(error, "s3://rain/a.nc")


def test_a_key_file_that_is_not_there(google, monkeypatch, one_line):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(UserError) as raised, files.reached("gs://rain/runs"):
        pass
    one_line(raised, "gs://rain", "/nowhere/key.json")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("gs://", "bucket"),
        ("gs:///runs", "bucket"),
        ("xyz://rain", "xyz"),
        ("http://", "server"),
        ("http://rain:eighty", "address"),
    ],
)
def test_a_url_that_means_nothing(google, url, part, one_line):
    with pytest.raises(UserError) as raised, files.reached(url):
        pass
    one_line(raised, url, part)


def test_a_pattern_of_strangers_that_means_nothing(one_line):
    with pytest.raises(UserError) as raised:
        expand(["xyz://rain/*.nc"], anonymous=True)
    one_line(raised, "xyz://rain/*.nc", "Protocol not known")


def test_what_is_not_there_passes_as_an_answer(folder, tmp_path):
    for url in (f"{folder}/none", str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError), files.reached(url):
            files.read_bytes(url)


def test_a_full_disk(tmp_path, one_line):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        url = str(disk / "file")
        with pytest.raises(UserError) as raised, files.reached(url):
            files.write_bytes(url, bytes(2**21))
        one_line(raised, url, "no space is left")
        assert not os.listdir(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_errors_of_other_kinds_keep_their_traceback(tmp_path):
    assert explained(ValueError("No such thing")) is None
    assert explained(ConnectionResetError("an actor")) is None
    assert explained(FileNotFoundError(errno.ENOENT, "none", "file"), str(tmp_path)) is None
