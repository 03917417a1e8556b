"""Small whole files on any fsspec URL, written so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from pipeline.storage.cloud import reached as reached
from pipeline.storage.locks import Lease as Lease
from pipeline.storage.locks import leased as leased
from pipeline.storage.locks import locked as locked


def resolve(url: str) -> str:
    """Make a local path absolute; leave a URL with a protocol as it is."""
    if "://" in url:
        return url
    return os.path.abspath(os.path.expanduser(url))


def join(url: str, *parts: str) -> str:
    """Join path parts to a URL or a path."""
    return "/".join([url.rstrip("/"), *parts])


def last_name(url: str) -> str:
    """Give the name of a file, or of a folder, without what a web address has behind it (`?key=...`)."""
    if url.startswith(("http://", "https://")):
        url = urlsplit(url).path
    return url.rstrip("/").rsplit("/", 1)[-1]


def _open(url: str) -> tuple[Any, str]:
    """Give the file system and the path on it."""
    import fsspec

    with reached(url):
        fs, path = fsspec.core.url_to_fs(url)
    return fs, path


def exists(url: str) -> bool:
    """Tell whether a file or a folder is there."""
    fs, path = _open(url)
    return bool(fs.exists(path))


def read_bytes(url: str) -> bytes:
    """Read a file.

    Raises
    ------
    FileNotFoundError
    """
    fs, path = _open(url)
    content: bytes = fs.cat_file(path)
    return content


def read_many(urls: Iterable[str]) -> list[bytes]:
    """Read files of one file system, several at a time where it can.

    Raises
    ------
    FileNotFoundError
    """
    opened_at = [_open(url) for url in urls]
    if not opened_at:
        return []
    fs, paths = opened_at[0][0], [path for _, path in opened_at]
    contents = fs.cat_ranges(paths, [None] * len(paths), [None] * len(paths), on_error="raise")
    return [bytes(content) for content in contents]


def read_text(url: str) -> str:
    """Read a UTF-8 file."""
    return read_bytes(url).decode()


def write_bytes(url: str, content: bytes) -> None:
    """Write a file whole or not at all: locally by rename, on object stores a put is atomic by itself.

    Raises
    ------
    UserError
        If the disk is full, or the store does not take it.
    """
    with reached(url):
        if is_remote(url):
            fs, path = _open(url)
            fs.pipe_file(path, content)
        else:
            _write_local(local_path(url), content)


def _write_local(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def create_bytes(url: str, content: bytes) -> bool:
    """Write a file on an object store if there is none of this name; tells whether it was this call's.

    The answer to a write can be lost on the way, and the write be tried again by gcsfs: what is there then
    is read, so write nothing that another process might write too.
    """
    fs, path = _open(url)
    try:
        fs.pipe_file(path, content, mode="create")
    except FileExistsError:
        return bool(fs.cat_file(path) == content)
    return True


def write_text(url: str, content: str) -> None:
    """Write a UTF-8 file whole or not at all."""
    write_bytes(url, content.encode())


def remove(url: str) -> None:
    """Delete a file; nothing happens if there is none."""
    fs, path = _open(url)
    if fs.exists(path):
        fs.rm_file(path)


def is_remote(url: str) -> bool:
    """Tell whether a URL is on another file system than this machine's."""
    fs, _ = _open(url)
    return "file" not in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def local_path(url: str) -> str:
    """Give the path of a local URL."""
    return _open(url)[1]


def list_folder(url: str) -> list[str]:
    """List the names in a folder; none if it is not there, or no folder."""
    fs, path = _open(url)
    fs.invalidate_cache()  # other processes write too
    try:
        return sorted(entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_folder(url: str) -> None:
    """Delete a folder with all that is in it, the manifest that makes it count first."""
    fs, path = _open(url)
    fs.invalidate_cache()
    if not fs.exists(path):
        return
    for entry in fs.find(path):
        if entry.endswith("/manifest.json"):
            fs.rm_file(entry)
    with contextlib.suppress(FileNotFoundError):  # object stores have no empty folders
        fs.rm(path, recursive=True)


def why_unwritable(url: str) -> tuple[str, OSError] | None:
    """Find out whether a file could be made at a local place; of an object store nothing is known before.

    A file without a name is made and dropped: permissions tell neither of /proc nor of a disk that may only
    be read.

    Returns
    -------
    (str, OSError) or None
        The nearest thing above the place, or at it, and why nothing can be made in it; None: it can.
    """
    if is_remote(url):
        return None
    place = local_path(url)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return place, error


def remove_unfinished(url: str) -> None:
    """Delete what killed writers (Zarr's and ours) had begun in a local folder, and never renamed.

    On an object store there is nothing of the kind: what is not put whole is not there. Nobody else may be
    writing to the folder.
    """
    if is_remote(url):
        return
    for place, _, names in os.walk(local_path(url)):
        for name in names:
            if name.endswith((".partial", ".tmp")):
                os.remove(os.path.join(place, name))


def opened(url: str) -> Any:
    """Open a file for reading bytes, to be used in a `with` statement."""
    fs, path = _open(url)
    return fs.open(path, "rb")


def upload(path: str, url: str) -> None:
    """Copy a local file to a URL."""
    fs, there = _open(url)
    fs.put_file(path, there)


def download(url: str, path: str) -> None:
    """Copy a file to a local path."""
    fs, there = _open(url)
    fs.get_file(there, path)
