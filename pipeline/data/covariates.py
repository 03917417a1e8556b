"""Covariates: static fields and coarse dynamic ones, standardised by the numbers of the training data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pipeline.data.coarsen import block_mean, whole_cells
from pipeline.errors import UserError
from pipeline.factors import FactorPair

if TYPE_CHECKING:
    from pipeline.store.manifest import StoreInfo

_CONSTANT = 1e-6  # a spread below this share of the mean is rounding: float32 has 7 digits


class Covariate(BaseModel):
    """z = (value - mean) / spread of one covariate; stored with every model.

    Attributes
    ----------
    name : str
        That of its array in a store.
    mean, spread : float
        Of the training data, in the store's units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    mean: float
    spread: float = Field(gt=0)

    @classmethod
    def fit(cls, name: str, pieces: Iterable[Tensor]) -> Covariate:
        """Fit to values that come in pieces.

        A covariate that is the same everywhere has its size for a spread, so that it is 0 in training and
        of order 1 where another store has it otherwise.

        Parameters
        ----------
        name : str
        pieces : iterable of Tensor
            Any shapes; values that are not finite are left out.

        Raises
        ------
        UserError
            If no value is finite.
        """
        count, total, squares = 0, 0.0, 0.0
        for piece in pieces:
            values = piece[torch.isfinite(piece)].double()
            count += values.numel()
            total, squares = total + float(values.sum()), squares + float(values.square().sum())
        if not count:
            raise UserError(
                f"covariate {name}: it has no value in the training period; leave it out of data.statics "
                "or data.dynamics, or ingest it again"
            )
        mean = total / count
        spread = max(squares / count - mean**2, 0.0) ** 0.5
        if spread <= _CONSTANT * abs(mean):
            spread = abs(mean) or 1.0
        return cls(name=name, mean=mean, spread=spread)

    def standardise(self, values: Tensor) -> Tensor:
        """Standardise values of any shape in the store's units; what is not finite becomes 0, the mean."""
        return ((values - self.mean) / self.spread).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


@dataclass(frozen=True)
class Covariates:
    """What a model sees beside the coarse field.

    Attributes
    ----------
    statics : tuple of Covariate
        (y, x) fields, seen at the fine resolution, in channel order.
    dynamics : tuple of Covariate
        (time, y, x) fields, seen coarsened as the field is, in channel order; mean and spread are those of
        coarse values.
    """

    statics: tuple[Covariate, ...] = ()
    dynamics: tuple[Covariate, ...] = ()


def coarse_covariate(frames: Tensor, pair: FactorPair) -> tuple[Tensor, Tensor]:
    """Coarsen a dynamic covariate as the field is, over whole cells.

    Parameters
    ----------
    frames : Tensor
        (..., T, H, W), T a multiple of tau, NaN where missing.
    pair : FactorPair

    Returns
    -------
    values, known : Tensor
        (..., T / tau, h, w) in the store's units, 0 where missing; and where it is known.
    """
    frames = whole_cells(frames, pair)
    return block_mean(frames, torch.isfinite(frames), pair)


def standardised(values: Tensor, known: Tensor | None, covariates: Sequence[Covariate]) -> Tensor:
    """Standardise channels.

    Parameters
    ----------
    values : Tensor
        (..., C, h, w) in the store's units, a channel per covariate; NaN where missing.
    known : Tensor or None
        Of the same shape, bool, for values that are 0 where missing.
    covariates : sequence of Covariate
        C of them, in channel order.

    Returns
    -------
    Tensor
        Of the same shape, 0 (the mean) where missing.
    """
    if values.shape[-3] != len(covariates):
        raise ValueError(f"{values.shape[-3]} channels for {len(covariates)} covariates")
    if not covariates:
        return values
    channels = [one.standardise(values[..., k, :, :]) for k, one in enumerate(covariates)]
    found = torch.stack(channels, dim=-3)
    return found if known is None else torch.where(known, found, 0.0)


def chosen_names(
    info: StoreInfo, statics: Sequence[str] | None, dynamics: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the static and the dynamic covariates to use; none given: all that the store has.

    Raises
    ------
    UserError
        If a name is not in the store, or there twice.
    """
    return _choose(info, "statics", statics), _choose(info, "dynamics", dynamics)


def _choose(info: StoreInfo, kind: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    there: tuple[str, ...] = getattr(info, kind)
    if wanted is None:
        return tuple(there)
    listed = ", ".join(there) or "none"
    for number, name in enumerate(wanted):
        if name not in there:
            raise UserError(f"data.{kind}: store {info.name} has no {name!r}; it has: {listed}")
        if name in wanted[:number]:
            raise UserError(f"data.{kind}: {name!r} is there twice; name it once")
    return tuple(wanted)
