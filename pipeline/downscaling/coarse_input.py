"""The coarse frames that are refined, and everything beside them that a model sees, tile by tile."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.batch import Batch
from pipeline.data.covariates import Covariates, standardised
from pipeline.downscaling import checks
from pipeline.downscaling.archive import Archive
from pipeline.downscaling.opening import InputRequest, open_store, silent
from pipeline.downscaling.statics import StaticFields, find_statics
from pipeline.errors import UserError
from pipeline.factors import FactorPair
from pipeline.ingest.transfer import Progress
from pipeline.models.family import ModelSpec
from pipeline.store.field_store import FieldStore
from pipeline.store.grids import attributes_of
from pipeline.store.manifest import frame_digest


@dataclass(frozen=True, eq=False)
class CoarseInput:
    """A domain, a box of cells, of the coarse frames of an archive.

    It has h x w cells, which are H x W = s h x s w fine pixels. What it has read stays in its process.

    Attributes
    ----------
    archive : Archive
    context : int
        L.
    rows, columns : slice
        Of the archive's cells, with both ends.
    frames : np.ndarray
        (n,) int, increasing: the archive's coarse frames to be refined, none of them in a gap.
    covariates : Covariates
        The model's, with its numbers.
    statics : StaticFields or None
        None if the model has none.
    units : str
        The model's, in which the field is given.
    notes : tuple of str
        What a user should know, one line each.
    """

    archive: Archive
    context: int
    rows: slice
    columns: slice
    frames: np.ndarray
    covariates: Covariates = field(default_factory=Covariates)
    statics: StaticFields | None = None
    units: str = "mm/h"
    notes: tuple[str, ...] = ()
    _kept: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.frames)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was read."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"_kept": {}}

    @property
    def store(self) -> FieldStore:
        """What is read from."""
        return self.archive.store

    @property
    def pair(self) -> FactorPair:
        """(s, tau)."""
        return self.archive.pair

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), cells of the domain."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def times(self) -> np.ndarray:
        """(n,) datetime64[s]: the end of each coarse frame to be refined."""
        return np.asarray(self.archive.times[self.frames])

    @property
    def cadence_seconds(self) -> int:
        """Time between fine frames."""
        return round(self.archive.cadence_seconds)

    def fine_times(self, i: int) -> np.ndarray:
        """Give the end of each fine interval of a coarse frame, (tau,) datetime64[s]; the last is its own."""
        back = np.arange(self.pair.time)[::-1] * self.cadence_seconds
        return np.asarray(self.times[i] - back.astype("timedelta64[s]"))

    @cached_property
    def fine_y(self) -> np.ndarray:
        """(H,) centres of the domain's rows of fine pixels."""
        return self.archive.fine_y[_fine(self.rows, self.pair)]

    @cached_property
    def fine_x(self) -> np.ndarray:
        """(W,) centres of the domain's columns of fine pixels."""
        return self.archive.fine_x[_fine(self.columns, self.pair)]

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """CF attributes of `y`, `x`, the field and, where the store has it, `crs`."""
        names = ["y", "x", self.store.info.variable]
        names += ["crs"] if self.store.info.crs is not None else []
        return {name: attributes_of(self.store, name) for name in names}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what is read: the store, the factor to the model's units, the static covariates."""
        known = [self.store.info.fingerprint, self.archive.coarsen, self.archive.factor]
        if self.statics is not None:
            known += [self.statics.names, frame_digest(*self.statics.values.numpy()).hex()]
        return hashlib.sha256(repr(known).encode()).hexdigest()

    @property
    def origin(self) -> tuple[int, int, int]:
        """Absolute indices of the first fine frame, row and column: `position(0, 0, 0)`."""
        return self.position(0, 0, 0)

    def position(self, i: int, y: int, x: int) -> tuple[int, int, int]:
        """Give what noise is keyed by: the same for a place of a field, whatever part of it is refined.

        Parameters
        ----------
        i : int
            Number of the coarse frame among `frames`.
        y, x : int
            Fine pixels from the domain's corner.

        Returns
        -------
        (int, int, int)
            Index of its first fine frame, counted since 1970, and of the row and column, see `edge_index`.
        """
        s = self.pair.space
        row, column = self.archive.corner
        time = int(self.fine_times(i)[0].astype("int64")) // self.cadence_seconds
        return time, row + self.rows.start * s + y, column + self.columns.start * s + x

    def batch(self, i: int, corners: Sequence[tuple[int, int]], side: tuple[int, int]) -> Batch:
        """Give windows of a coarse frame as training does, with nothing but zeros for the fine field.

        Parameters
        ----------
        i : int
            Number of the coarse frame among `frames`.
        corners : sequence of (int, int)
            B of them: row and column of the first fine pixel of each window, from the domain's corner.
        side : (int, int)
            Rows and columns of a window, in fine pixels.

        Raises
        ------
        ValueError
            If a window is not of whole cells of the domain.
        """
        s, tau, (h, w), (H, W) = self.pair.space, self.pair.time, self.grid, side
        for y, x in corners:
            if any(value % s for value in (y, x, H, W)) or not (
                0 <= y <= h * s - H and 0 <= x <= w * s - W and H > 0 and W > 0
            ):
                raise ValueError(f"window at ({y}, {x}) of {side} pixels in {h} x {w} cells of {s}")
        seen = self._seen(i)  # (1 + K, L, h, w)
        cells = torch.stack([seen[..., y // s : (y + H) // s, x // s : (x + W) // s] for y, x in corners])
        known = torch.isfinite(cells)
        coarse, mask = torch.where(known[:, 0], cells[:, 0], 0.0), known[:, 0]
        dynamics, dynamics_known = (part[:, 1:].transpose(1, 2) for part in (cells, known))
        return Batch(
            fine=torch.zeros(len(corners), tau, H, W),
            mask=torch.ones(len(corners), tau, H, W, dtype=torch.bool),
            coarse=coarse,
            coarse_mask=mask,
            statics=self._statics(corners, side),
            dynamics=standardised(dynamics, dynamics_known, self.covariates.dynamics),  # (B, L, K, h', w')
            position=torch.tensor([self.position(i, y, x) for y, x in corners]),
            weights=torch.ones(len(corners)),
        )

    def last(self, i: int, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Give the coarse frame that is refined, on some cells of the domain.

        Returns
        -------
        coarse, mask : Tensor
            (h', w') float32 in the model's units, 0 where missing; and bool, True where it is known.
        """
        values = self._seen(i)[0, -1, rows, columns]
        known = torch.isfinite(values)
        return torch.where(known, values, 0.0), known

    def _seen(self, i: int) -> Tensor:
        """Read field and dynamics of a coarse frame and its context, (1 + K, L, h, w), NaN where missing."""
        found = self._kept.get(i)
        if found is None:
            stop = int(self.frames[i]) + 1
            names = [None, *(one.name for one in self.covariates.dynamics)]
            parts = [
                self.archive.read(stop - self.context, stop, self.rows, self.columns, name) for name in names
            ]
            found = torch.stack(parts)
            self._kept.clear()  # all tiles of a frame come one after the other
            self._kept[i] = found
        return found

    def _statics(self, corners: Sequence[tuple[int, int]], side: tuple[int, int]) -> Tensor:
        """Cut out the static covariates, (B, S, H, W)."""
        H, W = side
        if self.statics is None:
            return torch.zeros(len(corners), 0, H, W)
        values = self.statics.values
        cuts = torch.stack([values[:, y : y + H, x : x + W] for y, x in corners])
        return standardised(cuts, None, self.covariates.statics)

    def check_known(self) -> None:
        """Refuse an input with nothing in it.

        Raises
        ------
        UserError
            If no cell of any frame has a value.
        """
        for frame in self.frames.tolist():
            if torch.isfinite(self.archive.read(frame, frame + 1, self.rows, self.columns)).any():
                return
        raise UserError(
            f"store {self.store.url}: {self.store.info.variable} is missing everywhere in the part to be "
            "refined; choose another with --bbox or --time"
        )


def open_input(
    wanted: InputRequest, spec: ModelSpec, card: Mapping[str, Any], progress: Progress = silent
) -> CoarseInput:
    """Open what a user wants refined, and check that the model is one for it.

    Parameters
    ----------
    wanted : InputRequest
    spec : ModelSpec
        The model's.
    card : mapping
        What `load_card` gives; cards of older versions say less, and less is checked.
    progress : callable
        See `ingest`; for files.

    Raises
    ------
    UserError
        One line, for the first thing that does not fit.
    """
    data: Mapping[str, Any] = card.get("data") or {}
    pair, coarsen = spec.pair, wanted.coarsen
    store = open_store(wanted, spec, data, progress)
    checks.check_cadence(store, data, pair, coarsen)
    factor = checks.units_factor(store, data, pair, coarsen)
    archive = Archive(store, pair, coarsen, factor)
    notes = checks.check_field(store, spec, data) + checks.check_cells(archive, data)
    if factor != 1:
        notes.append(f"values in {store.info.units} are multiplied by {factor:g} to be in {data['units']}")
    rows, columns = checks.choose_box(archive, wanted.selection.bbox)
    frames = checks.choose_frames(archive, wanted.selection)
    fine_y, fine_x = archive.fine_y[_fine(rows, pair)], archive.fine_x[_fine(columns, pair)]
    statics, more = find_statics(
        [one.name for one in spec.statics],
        wanted.statics_url,
        fine_y,
        fine_x,
        fallback=store.url if coarsen else None,
    )
    found = CoarseInput(
        archive,
        spec.parameters.context,
        rows,
        columns,
        frames,
        Covariates(spec.statics, spec.dynamics),
        statics,
        units=str(data.get("units", store.info.units)),
        notes=(*notes, *more),
    )
    found.check_known()
    return found


def _fine(cells: slice, pair: FactorPair) -> slice:
    """Give the fine pixels of a range of cells."""
    return slice(cells.start * pair.space, cells.stop * pair.space)
