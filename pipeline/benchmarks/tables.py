"""What measurements of a finished model found, as tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.benchmarks.borders import Seam
from pipeline.config import SamplingSettings
from pipeline.downscaling.lattice import Lattice
from pipeline.factors import FactorPair


@dataclass(frozen=True)
class Row:
    """One sampler with so many network evaluations.

    Attributes
    ----------
    sampler : str
    evaluations : int
    crps : float
        Fair, in the field's units.
    spread_skill : float
    seconds : float
        Of sampling, per member and fine frame of a window.
    """

    sampler: str
    evaluations: int
    crps: float
    spread_skill: float
    seconds: float

    @property
    def is_default(self) -> bool:
        """Whether it is what is taken where nothing else is asked for."""
        default = SamplingSettings()
        return (self.sampler, self.evaluations) == (default.sampler, default.steps)

    def beyond(self, reference: Row) -> float:
        """Give by how much its CRPS is larger, as a share of the other's."""
        return self.crps / reference.crps - 1


@dataclass(frozen=True)
class StepsTable:
    """The scores of one model on the test windows of one store.

    Attributes
    ----------
    pair : FactorPair
    name, units : str
        Of the store's field.
    windows, members : int
        Behind every score.
    rows : tuple of Row
        In the order of `WAYS`.
    reference : Row or None
        What the others are compared with; none while it is not known.
    """

    pair: FactorPair
    name: str
    units: str
    windows: int
    members: int
    rows: tuple[Row, ...] = ()
    reference: Row | None = None

    @property
    def head(self) -> str:
        """The lines above the rows."""
        against = "against the last" if self.reference is None else f"against {self.reference.evaluations}"
        return (
            f"steps: {self.pair} of {self.name}, {self.windows} test windows x {self.members} members\n"
            f"{'sampler':<18}{'evaluations':>11}{f'CRPS, {self.units}':>14}{against:>18}"
            f"{'spread/skill':>14}{'s per member-frame':>20}"
        )

    def line(self, row: Row) -> str:
        """Lay a row out."""
        known = self.reference is not None and row != self.reference
        beyond = f"{row.beyond(self.reference):+.1%}" if known and self.reference is not None else ""
        return (
            f"{row.sampler:<18}{row.evaluations:>11}{row.crps:>14.4f}{beyond:>18}{row.spread_skill:>14.2f}"
            f"{row.seconds:>20.4f}{'  the default' if row.is_default else ''}"
        )

    def __str__(self) -> str:
        return "\n".join([self.head, *map(self.line, self.rows)])


@dataclass(frozen=True, eq=False)
class Drawn:
    """The member, drawn in tiles of one kind.

    Attributes
    ----------
    title : str
    lattice : Lattice
    field : np.ndarray
        (tau, H, W) in the field's units, NaN where missing.
    seam : Seam
    difference : float
        Mean distance from the member drawn in one piece, in the field's units.
    kept : (float, float)
        Relative error of the amount kept: over the domain, and per coarse cell.
    seconds : float
    """

    title: str
    lattice: Lattice
    field: np.ndarray
    seam: Seam
    difference: float
    kept: tuple[float, float]
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.title:<28}{len(self.lattice):>6}{self.seam!s:>15}{self.difference:>12.4f}"
            f"{self.kept[0]:>14.1e}{self.kept[1]:>12.1e}{self.seconds:>9.1f}"
        )


@dataclass(frozen=True)
class SeamsTable:
    """One member of one square, drawn in several ways.

    Attributes
    ----------
    pair : FactorPair
    name, units : str
        Of the store's field.
    place, corner : str
        Which coarse frame and how many pixels; the coordinates of the first one.
    mean : float
        Of the member in one piece, in the field's units.
    rows : tuple of Drawn
        The first in one piece, the second as downscaling does it, the last side by side.
    figure : str
        Where it is.
    """

    pair: FactorPair
    name: str
    units: str
    place: str
    corner: str
    mean: float
    rows: tuple[Drawn, ...]
    figure: str

    def __str__(self) -> str:
        return "\n".join(
            [
                f"seams: {self.pair} of {self.name}, {self.place} from {self.corner} on",
                f"{'drawn in':<28}{'tiles':>6}{'at borders':>15}{'difference':>12}{'cons. domain':>14}"
                f"{'cons. cell':>12}{'seconds':>9}",
                *map(str, self.rows),
                "at borders: steps of the difference to the one piece at tile borders over those at the cell",
                "borders beside them, with its standard error; difference: its mean size, where the mean is "
                f"{self.mean:.3f} {self.units};",
                "cons.: relative error of the amount kept",
                f"figure: {self.figure}",
            ]
        )
