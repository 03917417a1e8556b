"""One object that is written only if nobody else has written it meanwhile: what leases are made of."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

ABSENT = "0"
"""The version of an object that is not there (Google's own word for it)."""


@dataclass(frozen=True)
class Seen:
    """An object as it was found.

    Attributes
    ----------
    content : bytes
    version : str
    age : float, optional
        Seconds since it was written, by the server's clock; none if the store does not tell.
    """

    content: bytes
    version: str
    age: float | None


class ConditionalObject(ABC):
    """An object that can be replaced or deleted on condition that it still has a known version."""

    @abstractmethod
    def read(self) -> Seen | None:
        """Give the object as it is now; none if it is not there."""

    @abstractmethod
    def write(self, content: bytes, version: str) -> str:
        """Write it if it still has this version (`ABSENT`: if it is not there), and give the new version.

        Raises
        ------
        FileExistsError
            If somebody else has written it.
        """

    @abstractmethod
    def delete(self, version: str) -> None:
        """Delete it if it still has this version.

        Raises
        ------
        FileExistsError
            If somebody else has written it.
        """


def conditional_object(url: str) -> ConditionalObject:
    """Open an object at a URL; nothing is asked yet."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return _GoogleObject(fs, path) if "gs" in protocols else _PlainObject(fs, path)


class _GoogleObject(ConditionalObject):
    """On Google Cloud Storage, where every request can ask for a generation and one of two rivals fails.

    gcsfs can only ask for "not there yet"; its `call` sends any request with its credentials and retries.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._bucket, self._key, _ = fs.split_path(path)

    def read(self) -> Seen | None:
        while True:
            try:
                headers, content = self._fs.call("GET", "b/{}/o/{}", self._bucket, self._key)
            except FileNotFoundError:
                return None
            found = json.loads(content)
            try:
                _, content = self._fs.call(
                    "GET", "b/{}/o/{}", self._bucket, self._key, alt="media", generation=found["generation"]
                )
            except FileNotFoundError:  # replaced between the two requests
                continue
            written = datetime.fromisoformat(found["updated"])
            age = (parsedate_to_datetime(headers["Date"]) - written).total_seconds()
            return Seen(content, found["generation"], age)

    def write(self, content: bytes, version: str) -> str:
        url = self._fs.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o"
        request = {"uploadType": "media", "name": self._key, "ifGenerationMatch": version}
        made = self._fs.call("POST", url.format(self._bucket), data=content, json_out=True, **request)
        generation: str = made["generation"]
        return generation

    def delete(self, version: str) -> None:
        try:
            self._fs.call("DELETE", "b/{}/o/{}", self._bucket, self._key, ifGenerationMatch=version)
        except FileNotFoundError:
            return


class _PlainObject(ConditionalObject):
    """On any other store: creating is exclusive if the store can do that (S3 can); replacing is not.

    Two that take over the same abandoned lease in the same instant are told apart by reading once more.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path

    def read(self) -> Seen | None:
        try:
            content = self._fs.cat_file(self._path)
        except FileNotFoundError:
            return None
        return Seen(content, _digest(content), None)

    def write(self, content: bytes, version: str) -> str:
        if version == ABSENT:
            self._fs.pipe_file(self._path, content, mode="create")
        else:
            self._compare(version)
            self._fs.pipe_file(self._path, content)
        return _digest(content)

    def delete(self, version: str) -> None:
        self._compare(version)
        self._fs.rm_file(self._path)

    def _compare(self, version: str) -> None:
        seen = self.read()
        if seen is None or seen.version != version:
            raise FileExistsError(self._path)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
