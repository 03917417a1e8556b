"""Windows of a field: how they become batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.config import DataSettings
from pipeline.data.batch import Batch
from pipeline.data.coarsen import block_mean, block_sum
from pipeline.data.covariates import Covariates, coarse_covariate, standardised
from pipeline.data.symmetries import symmetries_allowed, turn
from pipeline.data.view import FieldView
from pipeline.errors import UserError
from pipeline.factors import FactorPair


@dataclass(frozen=True)
class Windows:
    """The windows of one split and pair.

    Attributes
    ----------
    view : FieldView
    pair : FactorPair
    context : int
        L.
    patch : int
        Side in fine pixels.
    places : ndarray
        (N, 3) int: absolute index of the target's first fine frame, row and column.
    wetness : ndarray or None
        (N,) float32, how wet each target's coarse frame is, see `find_windows`; none: not known.
    covariates : Covariates
        Those that batches have, in their order.
    """

    view: FieldView
    pair: FactorPair
    context: int
    patch: int
    places: np.ndarray
    wetness: np.ndarray | None = field(default=None, kw_only=True)
    covariates: Covariates = field(default=Covariates(), kw_only=True)

    def __len__(self) -> int:
        return len(self.places)

    def with_context(self, context: int) -> Windows:
        """Give the same targets seen with another L."""
        return replace(self, context=context)

    @property
    def symmetries(self) -> tuple[int, ...]:
        """Those of the square's eight symmetries that windows may be turned by."""
        dynamics = [one.name for one in self.covariates.dynamics]
        return symmetries_allowed(self.view.symmetries, dynamics, self.view.vectors)

    def batch(self, indices: np.ndarray | list[int], symmetries: Sequence[int] | None = None) -> Batch:
        """Read windows and coarsen them.

        Parameters
        ----------
        indices : array of int
            (B,) into `places`.
        symmetries : sequence of int, optional
            One of the square's eight symmetries per window; none: windows as they are.
        """
        s, tau, side = self.pair.space, self.pair.time, self.patch
        turns = [0] * len(indices) if symmetries is None else symmetries
        places = self.places[np.asarray(indices)].astype(np.int64)
        field = self._frames(places, turns, None)  # (B, L tau, side, side)
        mask = torch.from_numpy(np.isfinite(field.numpy()))  # several times faster than torch's
        if bool(mask.all()):  # as nearly always: half the work, the same bits
            coarse = block_sum(field, self.pair) / self.pair.pixels_per_cell
            coarse_mask = torch.ones_like(coarse, dtype=torch.bool)
        else:
            field = torch.where(mask, field, 0.0)
            coarse, coarse_mask = block_mean(field, mask, self.pair)  # (B, L, side / s, side / s)
        assert coarse.shape[1:] == (self.context, side // s, side // s)
        return Batch(
            fine=field[:, -tau:],
            mask=mask[:, -tau:],
            coarse=coarse,
            coarse_mask=coarse_mask,
            statics=self._statics(places, turns),
            dynamics=self._dynamics(places, turns, coarse),
            position=torch.from_numpy(places),
            weights=torch.ones(len(places)),
        )

    def _frames(self, places: np.ndarray, turns: Sequence[int], variable: str | None) -> Tensor:
        """Read all fine frames of windows, (B, L tau, side, side)."""
        past, tau, side = (self.context - 1) * self.pair.time, self.pair.time, self.patch
        frames = [
            self.view.read(t - past, t + tau, slice(y, y + side), slice(x, x + side), variable)
            for t, y, x in places.tolist()
        ]
        return torch.stack([turn(one, symmetry) for one, symmetry in zip(frames, turns, strict=True)])

    def _statics(self, places: np.ndarray, turns: Sequence[int]) -> Tensor:
        """Cut out the static covariates, (B, S, side, side)."""
        side, known = self.patch, self.covariates.statics
        if not known:
            return torch.zeros(len(places), 0, side, side)
        fields = [self.view.static(one.name) for one in known]  # each (H, W)
        cuts = [
            turn(torch.stack([field[y : y + side, x : x + side] for field in fields]), symmetry)
            for (_, y, x), symmetry in zip(places.tolist(), turns, strict=True)
        ]
        return standardised(torch.stack(cuts), None, known)

    def _dynamics(self, places: np.ndarray, turns: Sequence[int], like: Tensor) -> Tensor:
        """Read and coarsen the dynamic covariates, (B, L, K, h, w); `like`: (B, L, h, w)."""
        known = self.covariates.dynamics
        if not known:
            return like.new_zeros(*like.shape[:2], 0, *like.shape[2:])
        coarse = [coarse_covariate(self._frames(places, turns, one.name), self.pair) for one in known]
        values, masks = (torch.stack(parts, dim=2) for parts in zip(*coarse, strict=True))
        return standardised(values, masks, known)


def check_divides(pair: FactorPair, settings: DataSettings, height: int, width: int) -> None:
    """Refuse a pair that does not fit the patch or the grid.

    Raises
    ------
    UserError
        Naming the pair, the size and the remedy.
    """
    s, patch = pair.space, settings.patch
    if patch % s:
        around = {patch // s * s, (patch // s + 1) * s}
        near = sorted(side for side in around if side >= 8)  # the least `data.patch` there is
        raise UserError(
            f"factor pair {pair}: {s} does not divide the patch of {patch} pixels; "
            f"give --patch {' or '.join(map(str, near))}"
        )
    if min(height, width) < patch:
        raise UserError(
            f"factor pair {pair}: the grid of {height} x {width} pixels is smaller than the patch of {patch}"
            f"; give a --patch of at most {min(height, width) // s * s}"
        )
    if not settings.trim and (height % s or width % s):
        raise UserError(
            f"factor pair {pair}: {s} does not divide the grid of {height} x {width} pixels; "
            f"give --set data.trim=true to leave out the last {height % s} rows and {width % s} columns, "
            "or cut the grid"
        )


def thin(windows: Windows, count: int, seed: int) -> Windows:
    """Keep at most `count` windows, drawn without replacement from `seed`, in their order."""
    if len(windows) <= count:
        return windows
    drawn = np.random.Generator(np.random.Philox(seed)).choice(len(windows), size=count, replace=False)
    kept = np.sort(drawn)
    wetness = None if windows.wetness is None else windows.wetness[kept]
    return replace(windows, places=windows.places[kept], wetness=wetness)
