"""From the numbers in a file to physical values: codes, gain and offset, reflectivity to rain."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from pipeline.sources.rules import DbzRules, SourceRules

_ROWS = 256  # looked up at once
_WHOLE_TABLE = 2  # bytes: 65536 values, the most that are worth a table


class Found(TypedDict, total=False):
    """What a file says itself about its numbers, see `Calibration`."""

    gain: float
    offset: float
    missing: tuple[float, ...]
    dry: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """What the numbers in a file mean.

    Attributes
    ----------
    gain, offset : float
        value = gain * number + offset.
    missing, dry : tuple of float
        Numbers that mean: missing, and no rain.
    dbz : DbzRules or None
        Values are reflectivity, to be turned into mm/h.
    clip_below : float
        Values from minus this to 0 become 0.
    """

    gain: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()
    dry: tuple[float, ...] = ()
    dbz: DbzRules | None = None
    clip_below: float = 0.0

    @classmethod
    def of(cls, rules: SourceRules, found: Found | None = None) -> Calibration:
        """Put together what the rules say and what was `found` in the file; the rules win, codes add up.

        Parameters
        ----------
        rules : SourceRules
        found : Found, optional
        """
        found = found or {}
        return cls(
            gain=found.get("gain", 1.0) if rules.gain is None else rules.gain,
            offset=found.get("offset", 0.0) if rules.offset is None else rules.offset,
            missing=rules.missing + found.get("missing", ()),
            dry=rules.dry + found.get("dry", ()),
            dbz=rules.dbz,
            clip_below=rules.clip_below,
        )

    @property
    def changes_nothing(self) -> bool:
        """Whether values stay as they are."""
        return self == Calibration()

    def apply(self, numbers: np.ndarray) -> np.ndarray:
        """Turn numbers of any shape into values, NaN for missing.

        Integers of at most 16 bits go through a table of all of them: exactly the same values in a fraction
        of the time and memory.

        Returns
        -------
        np.ndarray
            float64; float32 from a table if the values are mm/h already, so that nothing is computed with
            them.
        """
        if numbers.dtype.kind in "iu" and numbers.dtype.itemsize <= _WHOLE_TABLE:
            native = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("="))
            return _looked_up(_table(self, native.dtype.str), native.view(f"u{native.dtype.itemsize}"))
        if self.changes_nothing:
            return numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)
        return self.compute(numbers)

    def compute(self, numbers: np.ndarray) -> np.ndarray:
        """Do the same by float64 arithmetic."""
        values = self.gain * numbers.astype(np.float64) + self.offset
        if self.dbz is not None:
            values = rain_rate(values, self.dbz)
        if self.clip_below:
            values[(values < 0) & (values >= -self.clip_below)] = 0
        values[_is_one_of(numbers, self.dry)] = 0
        values[_is_one_of(numbers, self.missing)] = np.nan
        return values


def rain_rate(dbz: np.ndarray, rules: DbzRules) -> np.ndarray:
    """Turn reflectivity into rain by Z = a R^b (Marshall and Palmer 1948).

    Parameters
    ----------
    dbz : np.ndarray
        10 log10 of Z in mm^6 m^-3.
    rules : DbzRules

    Returns
    -------
    np.ndarray
        mm/h, 0 below the threshold.
    """
    rate = (10 ** (np.asarray(dbz, np.float64) / 10) / rules.a) ** (1 / rules.b)
    return rate if rules.threshold is None else np.where(dbz < rules.threshold, 0, rate)


def _is_one_of(numbers: np.ndarray, codes: tuple[float, ...]) -> np.ndarray:
    if not codes:
        return np.zeros(numbers.shape, bool)
    # A code such as -9999.9 is compared with what the file's own precision makes of it.
    exact = numbers.dtype if numbers.dtype.kind == "f" else np.float64
    return np.isin(numbers, np.asarray(codes, exact))


def _looked_up(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Look up an array row by row: NumPy would make 8 bytes of every index of the whole array first."""
    values = np.empty(index.shape, table.dtype)
    rows = values.reshape(-1, values.shape[-1]) if index.ndim else values.reshape(1, 1)
    for first in range(0, len(rows), _ROWS):
        part = slice(first, first + _ROWS)
        np.take(table, index.reshape(rows.shape)[part], out=rows[part], mode="clip")
    return values


@functools.lru_cache(maxsize=8)
def _table(calibration: Calibration, dtype: str) -> np.ndarray:
    """Compute the values of all numbers of a dtype, in the order of their unsigned twins."""
    bits = np.arange(2 ** (8 * np.dtype(dtype).itemsize), dtype=dtype.replace("i", "u"))
    values = calibration.compute(bits.view(dtype))
    return values if calibration.dbz is None else values.astype(np.float32)
