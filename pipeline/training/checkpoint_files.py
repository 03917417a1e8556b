"""The files of a checkpoint: written by each rank, kept where all reach them, checked when they are read.

A manifest holds size and SHA-256 of every file; without it the others do not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.storage import files

MANIFEST = "manifest.json"


class Staging:
    """Where a rank writes: in place on a local disk, else in a temporary folder that is then uploaded."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._temporary = tempfile.TemporaryDirectory(prefix="finescale-") if files.is_remote(url) else None
        self.path = self._temporary.name if self._temporary else files.local_path(url)
        os.makedirs(self.path, exist_ok=True)

    def deliver(self, rank: int) -> dict[str, dict[str, Any]]:
        """Upload this rank's files; gives their sizes and digests."""
        about = {}
        for name in sorted(os.listdir(self.path)):
            if name.startswith(f"shard-{rank + 1:05d}-"):
                path = os.path.join(self.path, name)
                about[name] = {"bytes": os.path.getsize(path), "sha256": digest_of(path)}
                if self._temporary:
                    files.upload(path, files.join(self.url, name))
        if self._temporary:
            self._temporary.cleanup()
        return about


def read_manifest(folder: str) -> dict[str, Any] | None:
    """Read a manifest; None if there is none, one without files if it is damaged."""
    try:
        notes = json.loads(files.read_text(files.join(folder, MANIFEST)))
        listed = notes.get("files")
        # A name with a slash could lead anywhere.
        sound = isinstance(listed, dict) and not any("/" in name for name in listed)
        return notes if sound else {"files": {}}
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        return {"files": {}}


def fault_of(url: str, about: Any) -> str | None:
    """Say what is wrong with a file."""
    name = url.rpartition("/")[2]
    if not isinstance(about, dict) or "sha256" not in about:
        return f"the manifest gives no SHA-256 of {name}"
    try:
        digest = digest_of(url)
    except FileNotFoundError:
        return f"{name} is missing"
    return None if digest == about["sha256"] else f"the SHA-256 of {name} differs from its manifest"


def set_aside(folder: str) -> None:
    """Let a damaged checkpoint count no more; its files stay for whoever wants to look."""
    with suppress(FileNotFoundError):
        files.write_bytes(files.join(folder, "damaged.json"), files.read_bytes(files.join(folder, MANIFEST)))
    files.remove(files.join(folder, MANIFEST))


def digest_of(url: str) -> str:
    """Give the SHA-256 of a file."""
    with files.opened(url) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def fetched(folder: str, names: list[str]) -> Iterator[str]:
    """Give a local folder with the files, as far as they are there: the reader maps them into memory."""
    if not files.is_remote(folder):
        yield files.local_path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="finescale-") as temporary:
        for name in names:
            with suppress(FileNotFoundError):  # which the check of the copy will say
                files.download(files.join(folder, name), os.path.join(temporary, name))
        yield temporary
