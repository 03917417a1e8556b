"""Value transforms: from physical units to what the networks see, fitted on training data only."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pipeline.errors import UserError

Kind = Literal["log1p", "sqrt", "linear"]


class ValueTransform(BaseModel):
    """z = g(y / unit) / spread, with g(0) = 0 so that dry stays 0; stored with every model.

    Attributes
    ----------
    kind : str
        g: log(1 + x), sqrt(x) or x.
    unit : float
        Physical amount where g bends: the mean of the wet training values.
    spread : float
        Standard deviation of g over the training values, so that z has about unit variance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    unit: float = Field(gt=0)
    spread: float = Field(gt=0)

    @classmethod
    def fit(cls, values: Tensor, kind: Kind, wet_threshold: float) -> ValueTransform:
        """Fit to valid training values.

        Parameters
        ----------
        values : Tensor
            Any shape, physical units, no missing values among them.
        kind : str
        wet_threshold : float
            Values above it are wet.

        Raises
        ------
        UserError
            If nothing is wet, or all values are equal.
        """
        wet = values[values > wet_threshold]
        if wet.numel() == 0:
            raise UserError(
                f"training data: no value above data.wet_threshold = {wet_threshold}; "
                "lower it or give a longer period"
            )
        unit = float(wet.double().mean())
        bent = _bend(values.double().clamp(min=0) / unit, kind)  # as `forward` does
        spread = float(bent.std())
        if not spread > 0:
            raise UserError(
                f"training data: all values equal {float(values.flatten()[0]):g}; there is nothing to learn"
            )
        return cls(kind=kind, unit=unit, spread=spread)

    def forward(self, physical: Tensor) -> Tensor:
        """Go from physical units, any shape, to the networks' values."""
        return _bend(physical.clamp(min=0) / self.unit, self.kind) / self.spread

    def inverse(self, values: Tensor) -> Tensor:
        """Go back to physical units; values below 0 give 0."""
        bent = values.clamp(min=0) * self.spread
        unbent = {"log1p": torch.expm1, "sqrt": torch.square, "linear": lambda x: x}[self.kind](bent)
        return unbent * self.unit


def _bend(x: Tensor, kind: Kind) -> Tensor:
    if kind == "linear":
        return x
    return torch.log1p(x) if kind == "log1p" else _sqrt(x)


def _sqrt(x: Tensor) -> Tensor:
    # The gradient of a root is infinite at 0, where most of a rain field lies: near 0 it is cut.
    return torch.where(x > 0, x.clamp(min=1e-8).sqrt(), 0.0)
