"""What a field store says without its arrays being opened: manifest, fingerprint and state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

import pipeline
from pipeline.errors import UserError
from pipeline.storage import files
from pipeline.storage.cloud import reached

FORMAT = "finescale field store"
VERSION = 2  # 1 had no digests of frames: it is read, and cannot grow
MANIFEST = "finescale.json"
# Lies in a store while an ingest is at work. With it, what a killed writer left behind can be told from
# somebody else's folder, which is never removed, and a store that may lack frames from a whole one.
MARKER = "finescale-writing.json"
LOCK = "finescale.lock"


@dataclass(frozen=True)
class StoreInfo:
    """The manifest of a complete store.

    Attributes
    ----------
    name : str
        Name of the data set.
    variable, units : str
        The data array and its units.
    shape : tuple of int
        (time, y, x).
    cadence_seconds : float
        Time between frames.
    start, end : str
        First and last time, ISO 8601, UTC.
    fingerprint : str
        SHA-256 of the content, see `fingerprint`.
    statics : tuple of str
        Names of the (y, x) covariates.
    dynamics : tuple of str
        Names of the (time, y, x) covariates.
    gaps : tuple of (int, int)
        First frame and number of frames of every stretch that no file had. What lies there is not looked at.
    crs : str or None
        Map projection, in the words of the source (PROJ or WKT).
    missing_fraction : float
        Share of NaN.
    source : dict
        Where the field comes from, as the writer noted it.
    """

    name: str
    variable: str
    units: str
    shape: tuple[int, int, int]
    cadence_seconds: float
    start: str
    end: str
    fingerprint: str
    statics: tuple[str, ...] = ()
    dynamics: tuple[str, ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()
    crs: str | None = None
    missing_fraction: float = 0.0
    source: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the manifest."""
        head = {"format": FORMAT, "version": VERSION, "finescale": pipeline.__version__, "dtype": "float32"}
        return json.dumps(head | asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, url: str) -> StoreInfo:
        """Read the manifest of the store at `url`.

        Raises
        ------
        UserError
            If it is no manifest, or one of a newer format.
        """
        try:
            known = json.loads(text)
            if known["format"] != FORMAT:
                raise ValueError(f"format is {known['format']!r}")
            if known["version"] > VERSION:
                raise UserError(
                    f"store {url}: format version {known['version']} is newer than this Finescale reads "
                    f"({VERSION}); update Finescale"
                )
            known = {"dynamics": (), "gaps": ()} | known  # version 1 had neither
            values = {name: known[name] for name in cls.__dataclass_fields__}
            values |= {name: tuple(known[name]) for name in ("shape", "statics", "dynamics")}
            return cls(**values | {"gaps": tuple((first, count) for first, count in known["gaps"])})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"store {url}: {MANIFEST} cannot be read ({error}); run ingest again with --overwrite"
            ) from error


def state(url: str) -> str:
    """Tell what lies at a URL: `absent`, `complete`, `incomplete` (a writer was killed) or `foreign`.

    Raises
    ------
    UserError
        If the place cannot be reached.
    """
    import fsspec

    try:
        with reached(url):
            fs, path = fsspec.core.url_to_fs(url)
            fs.invalidate_cache()  # another process may have written since the last listing
            if not fs.exists(path):
                return "absent"
            names = [entry.rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False)]
    except UserError:
        raise
    except Exception as error:  # every file system has exceptions of its own
        raise UserError(f"store {url}: cannot be reached ({one_line(error)})") from error
    if MANIFEST in names:
        return "complete"
    if MARKER in names:
        return "incomplete"
    # A rename that never happened leaves a temporary file, and nothing else was written before it.
    ours = all(name.startswith((MARKER, LOCK)) or name == "" for name in names)
    return "absent" if ours else "foreign"


def is_being_written(url: str) -> bool:
    """Tell whether an ingest is at work in a store, or was killed there."""
    return files.exists(files.join(url, MARKER))


def read_info(url: str) -> StoreInfo:
    """Read the manifest of a complete store.

    Raises
    ------
    UserError
        If nothing is there, it is something else, or it is incomplete.
    """
    match state(url):
        case "absent":
            raise UserError(
                f"store {url}: nothing there; make it with: python jobs/ingest.py FILES --store {url}"
            )
        case "foreign":
            raise UserError(
                f"store {url}: not a Finescale field store (no {MANIFEST}); "
                "bring the data in with: python jobs/ingest.py FILES --store NEW"
            )
        case "incomplete":
            raise UserError(
                f"store {url}: incomplete, its ingest was cut short; run the same ingest command again"
            )
    return StoreInfo.from_json(files.read_text(files.join(url, MANIFEST)), url)


def one_line(error: BaseException) -> str:
    """Put an exception of a library on one line: its type and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def canonical(values: np.ndarray) -> np.ndarray:
    """Bring values to the bytes stored and hashed: little-endian float32, one NaN, no negative zero."""
    out = np.array(values, dtype="<f4", order="C")
    out[np.isnan(out)] = np.nan
    out += np.float32(0)  # -0 + 0 = +0
    return out


def frame_digest(*fields: np.ndarray) -> bytes:
    """SHA-256 of one frame's shape and `canonical` bytes; with dynamic covariates, of the digests of all."""
    digests = [hashlib.sha256(f"{f.shape}".encode() + canonical(f).tobytes()).digest() for f in fields]
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()


def fingerprint(
    variable: str,
    units: str,
    times: np.ndarray,
    digests: np.ndarray,
    statics: Mapping[str, np.ndarray] | None = None,
    dynamics: Sequence[str] = (),
) -> str:
    """SHA-256 of a field's content; chunks, compression, attributes and dates of writing do not matter.

    A hash of hashes: adding frames to a store costs the hashes of the new ones only.

    Parameters
    ----------
    variable, units : str
    times : np.ndarray
        (T,) datetime64.
    digests : np.ndarray
        (T, 32) uint8, `frame_digest` of every frame; that of an empty one where there is a gap.
    statics : mapping of str to np.ndarray, optional
        (H, W) covariates.
    dynamics : sequence of str
        Names of the dynamic covariates.
    """
    # The 1 is what the first format put here: stores keep their fingerprint.
    head = json.dumps([1, variable, units, *dynamics]).encode()
    content = hashlib.sha256(head + times.astype("datetime64[s]").astype("<i8").tobytes())
    content.update(digests.tobytes())
    for name in sorted(statics or {}):
        content.update(name.encode() + frame_digest((statics or {})[name]))
    return content.hexdigest()
