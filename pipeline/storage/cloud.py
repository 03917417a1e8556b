"""What went wrong with a file or an object store, on one line; and soon, rather than after many tries."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import TroubleError, UserError

_CREDENTIALS = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a key file or run `gcloud auth application-default login`"
)
_GOOGLE = ("gs", "gcs")
_WEB = ("http", "https")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_PASSING = {"408", "429", "500", "502", "503", "504"}
_METADATA_SERVER = "169.254.169.254"
_known: set[tuple[str, bool]] = set()  # buckets that this process has reached; without credentials?


@contextlib.contextmanager
def reached(url: str, *, anonymous: bool = False) -> Iterator[None]:
    """Make sure that a URL's bucket can be reached, then say on one line what goes wrong with it.

    The bucket is asked once per process: gcsfs itself goes on trying for half a minute or more where
    there is no server, no network or no credentials. `FileNotFoundError` and `FileExistsError` pass, for
    they are answers; so does everything that has nothing to do with files.

    Parameters
    ----------
    url : str
        A path or any fsspec URL.
    anonymous : bool
        It is read without credentials. Then only the server is asked for: a public object may lie in a
        bucket that strangers may not list.

    Raises
    ------
    UserError
        If the server, the bucket or the permission is missing, the disk is full or may not be written to.
    """
    try:
        _knock(url, anonymous)
        yield
    except Exception as error:
        line = explained(error, url)
        if line is None:
            raise
        raise TroubleError(line) from error


def explained(error: BaseException, url: str = "") -> str | None:
    """Say on one line what went wrong with a file or an object store; none if the error is about neither.

    Parameters
    ----------
    error : BaseException
        With those that it was raised from.
    url : str
        What was read or written, if that is known.
    """
    seen: list[BaseException] = []
    cause: Any = error
    while isinstance(cause, BaseException) and cause not in seen and not isinstance(cause, UserError):
        if (line := _local(cause, url) or _remote(cause, url)) is not None:
            return line
        seen.append(cause)
        cause = getattr(cause, "cause", None) or cause.__cause__  # Ray keeps it in the first
    return None


def _local(error: BaseException, url: str) -> str | None:
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number is None:  # safetensors and SQLite say it in words
        full = "No space left on device" in text or "database or disk is full" in text
        number = errno.ENOSPC if full else None
    file = error.filename if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        where = url or file or "output or temporary folder"
        return f"{where}: no space is left; free some, then the same command carries on"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) and file:
        reason = os.strerror(number)
        return f"{file}: may not be read or written ({reason}); change its permissions or take another"
    return None


def _remote(error: BaseException, url: str) -> str | None:
    """Tell the errors of gcsfs, s3fs and what they stand on by name: not all of them are installed."""
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    text = " ".join(str(error).split())[:200]
    where = url or "object store"
    code = str(getattr(error, "code", "")) if "gcsfs.HttpError" in kinds else ""
    if "aiohttp.ClientResponseError" in kinds:
        code = str(getattr(error, "status", ""))
        if code not in _PASSING:
            return f"{where}: the server refuses it ({text}); check the address, or fetch the file yourself"
    unknown = {"google.GoogleAuthError", "botocore.NoCredentialsError", "gcsfs.NonRetryableError"}
    if code == "401" or (kinds & unknown and "google.TransportError" not in kinds):
        if "Anonymous" in text or "google.DefaultCredentialsError" in kinds:
            return f"{where}: no Google Cloud credentials were found and it is not public; {_CREDENTIALS}"
        if "botocore.NoCredentialsError" in kinds:
            return f"{where}: no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return f"{where}: the credentials are not accepted ({text}); {_CREDENTIALS}"
    if code == "403" or (type(error) is OSError and text.startswith("Forbidden")):
        return f"{where}: no permission ({text}); give the account the role Storage Object User on the bucket"
    if isinstance(error, PermissionError) and url and "://" in url:  # s3fs
        return f"{where}: no permission ({text}); allow the account to list, read and write the bucket"
    silent = {
        "aiohttp.ClientError",
        "requests.RequestException",
        "fsspec.FSTimeoutError",
        "botocore.HTTPClientError",
        "botocore.ConnectionError",
        "google.TransportError",
    }
    if kinds & silent or code in _PASSING:
        return f"{where}: the server does not answer ({text}); the same command carries on once it does"
    return None


def _knock(url: str, anonymous: bool) -> None:
    """Find out within seconds whether a bucket can be reached.

    Raises
    ------
    UserError
    """
    protocol, _, rest = url.partition("://")
    if "://" not in url or protocol in ("file", "local", "memory"):
        return
    bucket = rest.partition("/")[0]
    if not bucket:
        what = "server" if protocol in _WEB else "bucket"
        raise UserError(f"{url}: names no {what}; give it as {protocol}://{what.upper()}/FOLDER")
    place = f"{protocol}://{bucket}"
    if (place, anonymous) in _known:
        return
    if protocol in _GOOGLE:
        for name in ("gcsfs", "google.auth"):  # they log, with a traceback, what they raise as well
            if "GCSFS_DEBUG" not in os.environ:
                logging.getLogger(name).setLevel(logging.CRITICAL)
        _knock_at_google(place, anonymous)
    if protocol in _WEB:
        _knock_at_server(place, place, "the address and the network")
    elif not anonymous:
        _knock_at_bucket(protocol, place)
    _known.add((place, anonymous))


def _knock_at_bucket(protocol: str, place: str) -> None:
    import fsspec

    try:
        fs, bucket = fsspec.core.url_to_fs(place)
    except (ValueError, ImportError) as error:
        raise UserError(f"{place}: cannot be opened ({' '.join(str(error).split())[:200]})") from error
    try:
        if protocol in _GOOGLE:
            fs.credentials.maybe_refresh()  # by itself: gcsfs would try a refused key six times
            fs.call("GET", "b/{}/o", bucket, maxResults=1)
        elif protocol == "s3":
            fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except FileNotFoundError as error:
        raise UserError(f"{place}: there is no such bucket; create it or correct the name") from error


def _knock_at_google(place: str, anonymous: bool) -> None:
    key = None if anonymous else os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if key and not os.path.isfile(key):
        raise UserError(f"{place}: GOOGLE_APPLICATION_CREDENTIALS={key} is not a file; {_CREDENTIALS}")
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    address = emulator if emulator not in ("", "default") else "https://storage.googleapis.com"
    remedy = f"STORAGE_EMULATOR_HOST={emulator}" if emulator else "the network"
    if _knock_at_server(place, address, remedy) or anonymous:
        return
    metadata = os.environ.get("GCE_METADATA_IP", _METADATA_SERVER)
    elsewhere = "KUBERNETES_SERVICE_HOST" not in os.environ and not os.environ.get("GCE_METADATA_HOST")
    if elsewhere and _not_listening(metadata, 80, 2.0) is not None:
        # Not a machine of Google's: without this its library asks there for credentials for half a minute.
        os.environ.setdefault("NO_GCE_CHECK", "true")


def _knock_at_server(place: str, address: str, remedy: str) -> bool:
    """Refuse a server that nobody listens at; tells whether a proxy stands before it, so that nobody asks."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise UserError(f"{place}: no address ({error}); check {remedy}") from error
    if any(os.environ.get(name) for name in _PROXIES):
        return True
    if (trouble := _not_listening(host, port, 10.0)) is not None:
        raise UserError(f"{place}: cannot reach {host}:{port} ({trouble}); check {remedy}")
    return False


def _not_listening(host: str, port: int, timeout: float) -> str | None:
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
