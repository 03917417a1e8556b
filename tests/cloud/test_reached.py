"""What a user is told when a store, a key, a permission or the space is missing: one line, and soon."""

import errno
import json
import os
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pipeline import UserError
from pipeline.storage import files
from pipeline.storage.cloud import explained

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


def test_a_server_that_is_not_there(point_at, one_line):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    point_at(address)
    with pytest.raises(UserError) as raised, files.reached("gs://rain/runs"):
        pass
    one_line(raised, "gs://rain", f"cannot reach {address}", "STORAGE_EMULATOR_HOST")


def test_a_key_file_that_is_not_there(google, monkeypatch, one_line):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(UserError) as raised, files.reached("gs://rain/runs"):
        pass
    one_line(raised, "gs://rain", "/nowhere/key.json")


@pytest.mark.parametrize(
    ("url", "part"), [("gs://", "bucket"), ("gs:///runs", "bucket"), ("xyz://rain", "xyz")]
)
def test_a_url_that_means_nothing(google, url, part, one_line):
    with pytest.raises(UserError) as raised, files.reached(url):
        pass
    one_line(raised, url, part)


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
