"""What a check of a field store says, and what all checks look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import zarr
from pydantic import Field

from pipeline.errors import UserError
from pipeline.settings.base import Settings
from pipeline.store import layout
from pipeline.store.checks.scan import Scan
from pipeline.store.field_store import FieldStore
from pipeline.store.manifest import StoreInfo, one_line
from pipeline.units import to_mm_per_hour

_LISTED = 3  # frames that a line names


class Verdict(StrEnum):
    """How a check went."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes
    ----------
    name : str
        Of the check.
    verdict : Verdict
    found : str
        On one line.
    remedy : str
        What to do about it; empty where nothing needs to be done.
    frames : tuple of int
        The frames that it is about.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    frames: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.found}" + (f"; {self.remedy}" if self.remedy else "")


class Limits(Settings):
    """From where on the checks of a store find fault."""

    least: float = Field(0.0, description="least plausible value, mm/h")
    most: float = Field(500.0, gt=0, description="most plausible value, mm/h")
    wet: float = Field(0.1, ge=0, description="a frame without a value above this counts as dry, mm/h")
    lost_note: float = Field(0.05, gt=0, lt=1, description="share of the usual pixels that a frame may lack")
    lost_problem: float = Field(0.5, gt=0, lt=1, description="share of them that no frame may lack")
    leap: float = Field(4.0, gt=1, description="factor between a frame's total and both neighbours'")
    leap_maximum: float = Field(5.0, gt=1, description="factor between its maximum and both neighbours'")
    leap_scales: float = Field(
        6.0, gt=0, description="so many times the usual step between frames makes a leap, if that is more"
    )
    continuous_seconds: float = Field(
        900.0, gt=0, description="up to this cadence rain over the whole domain cannot come and go in a frame"
    )
    frozen_wet: int = Field(10, ge=1, description="wet pixels with which two frames cannot be the same")


class UnreadableError(Exception):
    """An array of the store is not there, or cannot be decoded."""


@dataclass(frozen=True)
class Subject:
    """The store that is checked, the pass over its values and the limits.

    Attributes
    ----------
    store : FieldStore
    scan : Scan
    limits : Limits
    """

    store: FieldStore
    scan: Scan
    limits: Limits

    @property
    def info(self) -> StoreInfo:
        """The manifest."""
        return self.store.info

    @cached_property
    def factor(self) -> float | None:
        """What turns the field into mm/h; None if its units are none of rain."""
        return rain_factor(self.info)

    def array(self, name: str) -> np.ndarray:
        """Read a small array whole.

        Raises
        ------
        UnreadableError
            If that fails.
        """
        try:
            group = zarr.open_group(layout.backend(self.store.url, read_only=True), mode="r")
            return np.asarray(group[name][...])
        except Exception as error:  # every codec has exceptions of its own for bad bytes
            raise UnreadableError(f"{name} cannot be read ({one_line(error)})") from error

    def unit_of(self, axis: str) -> str:
        """Give the unit of `y` or `x` as the store has it; empty if it is an index, or not known."""
        try:
            group = zarr.open_group(layout.backend(self.store.url, read_only=True), mode="r")
            unit = str(group[axis].attrs.get("units", ""))
        except Exception:  # as in `array`; a figure's label is not worth a fault
            return ""
        return "" if unit == "1" else unit

    def when(self, frame: int) -> str:
        """Give the time of a frame."""
        return str(self.store.times[frame])

    def listed(self, frames: np.ndarray | Sequence[int]) -> str:
        """Count frames and name the first of them."""
        named = ", ".join(f"{i} ({self.when(int(i))})" for i in frames[:_LISTED])
        more = f" and {len(frames) - _LISTED} more" if len(frames) > _LISTED else ""
        return f"{counted(len(frames), 'frame')}: {named}{more}"


def rain_factor(info: StoreInfo) -> float | None:
    """Find what turns a store's field into mm/h; None if its units are none of rain."""
    try:
        return to_mm_per_hour(info.units, info.cadence_seconds, info.variable)
    except UserError:
        return None


def counted(number: int, what: str) -> str:
    """Put a number before a word, in the plural where it needs to be: `1 frame`, `3 frames`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def places(flags: np.ndarray) -> tuple[int, ...]:
    """Give the indices at which a (T,) bool array is true."""
    return tuple(int(i) for i in np.flatnonzero(flags))


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Give first index and length of every stretch of a (T,) bool array that is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
