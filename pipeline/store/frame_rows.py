"""One row per frame of a store: what is known of it without reading it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import zarr

from pipeline.errors import UserError
from pipeline.store import layout, manifest
from pipeline.store.manifest import StoreInfo

WET = 0.1  # mm/h, for the summary's wet share


@dataclass(frozen=True)
class FrameRows:
    """One row per frame: what a writer must know of frames without reading them.

    Attributes
    ----------
    present : np.ndarray
        (T,) bool: counts, or will with the next manifest.
    digests : np.ndarray
        (T, 32) uint8.
    statistics : np.ndarray
        (T, 4) float64: valid values, wet ones, their sum and maximum.
    """

    present: np.ndarray
    digests: np.ndarray
    statistics: np.ndarray

    @classmethod
    def of(cls, group: zarr.Group, info: StoreInfo, frames: int) -> FrameRows:
        """Read the rows of a store, with room for `frames` in all.

        Raises
        ------
        UserError
            If the store is of the first format, which had no digests.
        """
        if layout.DIGESTS not in group:
            raise UserError(
                f"store {info.name}: written by an older Finescale, without digests of its frames; "
                "ingest it again with --overwrite"
            )
        rows = cls(np.zeros(frames, bool), np.zeros((frames, 32), "u1"), np.zeros((frames, 4)))
        known = info.shape[0]
        rows.present[:known] = present_in(info)
        # A killed writer may have left rows of frames that do not count.
        there = rows.present[:known, None]
        rows.digests[:known] = np.where(there, group[layout.DIGESTS][:known], 0)
        rows.statistics[:known] = np.where(there, group[layout.STATISTICS][:known], 0)
        return rows

    def only(self, present: np.ndarray) -> FrameRows:
        """Give the first frames, of which only those in `present` (T,) count."""
        count, there = len(present), self.present[: len(present)] & present
        digests, statistics = (
            np.where(there[:, None], rows[:count], 0) for rows in (self.digests, self.statistics)
        )
        return FrameRows(there, digests, statistics)

    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Give first frame and length of every stretch before the last frame that no file had."""
        count = self.length()
        edges = np.flatnonzero(np.diff(np.concatenate([[True], self.present[:count], [True]]).astype(int)))
        return tuple((int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True))

    def length(self) -> int:
        """Count the frames up to the last one that is there."""
        return int(np.flatnonzero(self.present)[-1]) + 1 if self.present.any() else 0

    def described(
        self, info: StoreInfo, start: np.datetime64, statics: Mapping[str, np.ndarray]
    ) -> StoreInfo:
        """Give the manifest of a store with these frames.

        Parameters
        ----------
        info : StoreInfo
            What it says otherwise.
        start : np.datetime64
            Time of frame 0.
        statics : mapping of str to np.ndarray
            (H, W) covariates.
        """
        count, (height, width) = self.length(), info.shape[1:]
        times, there, digests = (
            times_of(info, start, 0, count),
            self.present[:count, None],
            self.digests[:count],
        )
        if not there.all():
            empty = _empty_digest((height, width), 1 + len(info.dynamics))
            digests = np.where(there, digests, np.frombuffer(empty, "u1"))
        return replace(
            info,
            shape=(count, height, width),
            start=str(times[0]),
            end=str(times[-1]),
            gaps=self.gaps(),
            fingerprint=manifest.fingerprint(
                info.variable, info.units, times, digests, statics, info.dynamics
            ),
            missing_fraction=float(1 - self.statistics[:count, 0].sum() / (count * height * width)),
        )


def present_in(info: StoreInfo) -> np.ndarray:
    """Tell which frames (T,) of a store are not in a gap."""
    present = np.ones(info.shape[0], bool)
    for first, count in info.gaps:
        present[first : first + count] = False
    return present


@functools.lru_cache(maxsize=4)
def _empty_digest(grid: tuple[int, int], fields: int) -> bytes:
    """Give the digest of a frame with nothing but missing values, which stands for a gap."""
    return manifest.frame_digest(*[np.full(grid, np.nan, "f4")] * fields)


def times_of(info: StoreInfo, start: np.datetime64, first: int, stop: int) -> np.ndarray:
    """Give the times, datetime64[s], of frames [first, stop) of a store that begins at `start`."""
    steps = np.arange(first, stop) * int(info.cadence_seconds)
    return start.astype("datetime64[s]") + steps.astype("timedelta64[s]")


def frame_statistics(field: np.ndarray) -> tuple[float, float, float, float]:
    """Count the valid and the wet values of an (H, W) frame, and give their sum and maximum (NaN if none)."""
    valid = field[~np.isnan(field)]
    if not valid.size:
        return 0.0, 0.0, 0.0, float("nan")
    return (
        float(valid.size),
        float((valid > WET).sum()),
        float(valid.sum(dtype=np.float64)),
        float(valid.max()),
    )
