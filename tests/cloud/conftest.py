"""A bucket of Google Cloud Storage, as an emulator on loopback serves it to processes and to this one."""

import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec
import pytest

from pipeline import environment
from pipeline.storage import cloud

environment.prepare()  # before gcsfs is imported

BUCKET = "finescale-test"


@pytest.fixture(scope="session")
def emulator():
    """Give the URL of a running emulator."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, Path(__file__).with_name("emulator.py"), str(port), BUCKET]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )  # it tells of every reader that went away
    try:
        assert "ready" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def point_at(monkeypatch):
    """Point gcsfs, here and in processes that are started, at another server than Google's."""

    def point(url):
        root = str(Path(__file__).parents[2])
        for name, value in {
            "STORAGE_EMULATOR_HOST": url,
            "GOOGLE_CLOUD_PROJECT": "test",
            "NO_GCE_CHECK": "true",
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        fsspec.get_filesystem_class("gs").clear_instance_cache()
        cloud._known.clear()

    yield point
    fsspec.get_filesystem_class("gs").clear_instance_cache()


@pytest.fixture
def google(emulator, point_at):
    point_at(emulator)


@pytest.fixture
def folder(google):
    """Give a new folder in the bucket."""
    return f"gs://{BUCKET}/{uuid.uuid4().hex[:8]}"
