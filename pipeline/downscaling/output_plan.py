"""What a downscaling is to write: its axes, its arrays, and what decides their values."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.factors import FactorPair

_CHUNK_BYTES = 3 * 2**19  # 1.5 MiB before compression, as in field stores
_CHUNK_SIDE = 512


@dataclass(frozen=True, eq=False)
class OutputPlan:
    """The fields of all members, and summaries of the ensemble, on the fine grid of a domain.

    Attributes
    ----------
    pair : FactorPair
    times : np.ndarray
        (n tau,) datetime64[s], increasing: the end of each fine interval of the n coarse frames.
    y, x : np.ndarray
        (H,) and (W,) coordinates; H and W are multiples of s.
    variable, units : str
    members : int
        How many to write; 0: summaries only.
    quantiles : tuple of float
        Of the ensemble, between 0 and 1.
    exceed : tuple of float
        Thresholds in `units` whose probability of exceedance to write.
    crs : str or None
        Map projection, in the words of the source (PROJ or WKT).
    facts : mapping
        All that decides the values besides the above (model, parameters, sampler, seed, tiles, input), as
        JSON values: an output is carried on only if all of it is the same.
    notes : mapping
        What does not decide them (the command, the version), as JSON values; no dates, so that the same
        command writes the same bytes.
    attributes : mapping of str to mapping
        CF attributes per array of the input (`"y"`, `"x"`, `"crs"`, the variable); of the group under `""`.

    Raises
    ------
    ValueError
        If the axes do not fit the pair or each other, or there is nothing to write.
    """

    pair: FactorPair
    times: np.ndarray
    y: np.ndarray
    x: np.ndarray
    variable: str
    units: str
    members: int
    quantiles: tuple[float, ...] = ()
    exceed: tuple[float, ...] = ()
    crs: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s, tau = self.pair.space, self.pair.time
        if not len(self.times) or len(self.times) % tau or (np.diff(self._seconds) <= 0).any():
            raise ValueError(f"{len(self.times)} times that are no increasing multiple of {tau}")
        if not self.grid[0] or not self.grid[1] or self.grid[0] % s or self.grid[1] % s:
            raise ValueError(f"grid {self.grid} of no whole {s} x {s} cells")
        if self.parts < 1 or not all(0 < q < 1 for q in self.quantiles):
            raise ValueError(f"{self.members} members with quantiles {self.quantiles}")
        steps = self._steps.reshape(-1, tau)
        if (steps[:, 0] % tau).any() or (np.diff(steps, axis=1) != 1).any():
            raise ValueError("times that are not those of whole coarse frames on one even axis")

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.y), len(self.x)

    @property
    def frames(self) -> int:
        """Coarse frames to be refined, n."""
        return len(self.times) // self.pair.time

    @property
    def summarised(self) -> bool:
        """Whether mean, quantiles and probabilities of the ensemble are written too."""
        return self.members == 0 or bool(self.quantiles or self.exceed)

    @property
    def parts(self) -> int:
        """Pieces of a frame that are done or not: each member, then the summary if there is one."""
        return self.members + int(self.summarised)

    @cached_property
    def _seconds(self) -> np.ndarray:
        return self.times.astype("datetime64[s]").astype("int64")

    @cached_property
    def _cadence(self) -> int:
        return int(np.gcd.reduce(np.diff(self._seconds))) if len(self.times) > 1 else 1

    @cached_property
    def _steps(self) -> np.ndarray:
        """(n tau,) int: the place of each time on an even axis from the first to the last."""
        return (self._seconds - self._seconds[0]) // self._cadence

    @property
    def axis(self) -> np.ndarray:
        """(T,) datetime64[s]: an even time axis, with the times of frames that are not refined."""
        return self.times[0].astype("datetime64[s]") + np.arange(self._steps[-1] + 1) * np.timedelta64(
            self._cadence, "s"
        )

    def slots(self, frame: int) -> slice:
        """Give the places of a coarse frame's fine times on `axis`."""
        first = int(self._steps[frame * self.pair.time])
        return slice(first, first + self.pair.time)

    @cached_property
    def chunks(self) -> tuple[int, int, int]:
        """(tau, rows, columns) of a chunk: one coarse frame, whole cells, all chunks of about one size."""
        s, tau = self.pair.space, self.pair.time
        side = max(1, min(_CHUNK_SIDE, math.isqrt(_CHUNK_BYTES // (4 * tau))))
        unit = s if s <= side else 1
        rows, columns = (_even(size // unit, side // unit) * unit for size in self.grid)
        return tau, rows, columns

    @property
    def arrays(self) -> dict[str, tuple[str, int] | None]:
        """The arrays by name, with the dimension before (time, y, x) and its length, if there is one."""
        named: dict[str, tuple[str, int] | None] = {}
        if self.members:
            named[self.variable] = ("member", self.members)
        if self.summarised:
            named[f"{self.variable}_mean"] = None
        if self.quantiles:
            named[f"{self.variable}_quantile"] = ("quantile", len(self.quantiles))
        if self.exceed:
            named[f"{self.variable}_exceedance"] = ("threshold", len(self.exceed))
        return named

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays before compression, frames that are not refined included."""
        layers = sum(1 if lead is None else lead[1] for lead in self.arrays.values())
        return 4 * layers * len(self.axis) * self.grid[0] * self.grid[1]

    @cached_property
    def deciding(self) -> dict[str, Any]:
        """All that decides the values, as JSON gives it back."""
        axes = {"times": self.times.astype("datetime64[s]"), "y": self.y, "x": self.x}
        known = {
            "pair": str(self.pair),
            "variable": self.variable,
            "units": self.units,
            "members": self.members,
            "quantiles": self.quantiles,
            "exceed": self.exceed,
            "crs": self.crs,
        } | {name: _described(values) for name, values in axes.items()}
        normal: dict[str, Any] = json.loads(json.dumps({**self.facts, **known}, sort_keys=True))
        return normal

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `deciding`."""
        return hashlib.sha256(json.dumps(self.deciding, sort_keys=True).encode()).hexdigest()


def _even(cells: int, most: int) -> int:
    """Give the size of even pieces, none larger than `most`."""
    return -(-cells // -(-cells // most))


def _described(values: np.ndarray) -> str:
    """Say the ends of an axis, and a digest of all of it."""
    numbers = values.astype("<i8" if values.dtype.kind == "M" else "<f8")
    digest = hashlib.sha256(numbers.tobytes()).hexdigest()[:12]
    return f"{len(values)} from {values[0]} to {values[-1]} ({digest})"
