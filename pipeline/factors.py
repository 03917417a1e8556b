"""The words of scale adaptivity: a factor pair and the three hyperparameters that are retuned for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from pipeline.errors import UserError

_PAIR = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True, order=True)
class FactorPair:
    """How much finer the wanted field is: `space` times in y and in x, `time` times in time.

    Parameters
    ----------
    space : int
        Space factor s: one coarse cell covers s x s fine pixels.
    time : int
        Time factor tau: one coarse frame is the mean of tau fine frames.

    Raises
    ------
    UserError
        If a factor is below 1, or both are 1 (there would be nothing to refine).
    """

    space: int
    time: int

    def __post_init__(self) -> None:
        if self.space < 1 or self.time < 1:
            raise UserError(
                f"factor pair {self.space}x{self.time}: both factors must be at least 1, as in 10x3"
            )
        if self.space == 1 and self.time == 1:
            raise UserError(
                "factor pair 1x1: nothing to refine; give a space or a time factor above 1, as in 10x3"
            )

    @classmethod
    def parse(cls, text: object) -> FactorPair:
        """Read a pair from its written form.

        Parameters
        ----------
        text : str or FactorPair
            `SPACExTIME`, for example `10x3`.

        Raises
        ------
        UserError
            If the text is anything else.
        """
        if isinstance(text, FactorPair):
            return text
        match = _PAIR.fullmatch(str(text).strip().lower())
        if match is None:
            raise UserError(f"factor pair {text!r}: write SPACExTIME with whole numbers, as in 10x3")
        return cls(int(match[1]), int(match[2]))

    @property
    def pixels_per_cell(self) -> int:
        """Fine values that one coarse value stands for: tau * s^2, the underdetermination of the problem."""
        return self.time * self.space**2

    def __str__(self) -> str:
        return f"{self.space}x{self.time}"


def _parse_for_pydantic(value: Any) -> FactorPair:
    try:
        return FactorPair.parse(value)
    except UserError as error:  # pydantic collects ValueErrors and says which field they came from
        raise ValueError(str(error)) from error


PairField = Annotated[FactorPair, BeforeValidator(_parse_for_pydantic), PlainSerializer(str)]
"""A `FactorPair` as a field of a pydantic model: read from and written as `10x3`."""


class Scope(StrEnum):
    """Over what region the conserved amount is kept."""

    NONE = "none"  # nothing is rescaled
    TILE = "tile"  # one factor per window: the window's total is kept
    CELL = "cell"  # one factor per coarse cell: every coarse value is kept


class Conservation(BaseModel):
    """The mass-conservation function f(x) = max(x^p - theta, 0), on the field over its scale, and its scope.

    `power=1, threshold=0` is the identity. A power below 1 tapers: it compresses extremes before the
    rescaling to the coarse amount (specification of the scale-adaptive framework, sections 5 and 6).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    power: float = Field(1.0, gt=0, le=1, description="p")
    threshold: float = Field(0.0, ge=0, lt=1, description="theta, on the scaled field")
    scope: Scope = Scope.TILE

    def __str__(self) -> str:
        if self.scope is Scope.NONE:
            return "none"
        base = "x" if self.power == 1 else f"x^{self.power:.2g}"
        taper = f" - {self.threshold:.2g}" if self.threshold else ""
        return f"{base}{taper}, {self.scope.value}"


class ScaleParameters(BaseModel):
    """The three scale-dependent hyperparameters of one factor pair.

    Attributes
    ----------
    beta : float
        Amplitude of the linear noise schedule: its last (largest) variance increment.
    context : int
        L, the number of coarse frames the model sees; the last one is refined.
    conservation : Conservation
        f and its scope.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beta: float = Field(gt=1e-4, lt=1)
    context: int = Field(ge=1, le=256)
    conservation: Conservation = Conservation()

    def __str__(self) -> str:
        return f"beta {self.beta:.3g}, L {self.context}, f = {self.conservation}"
