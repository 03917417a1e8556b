"""How scores are written where people read them."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.config import DataSettings
from pipeline.evaluation.report.html import Cell
from pipeline.evaluation.tidy import Row


def cell(
    row: Row | None, write: Callable[[float], str], *, starred: bool = False, bare: bool = False
) -> Cell:
    """Give the cell of a score: its value, its interval below unless `bare`; empty without such a score."""
    if row is None:
        return Cell("")
    if math.isnan(row.value):
        return Cell("none")
    text = write(row.value)
    if bare or not known(row):
        return Cell(text, value=row.value)
    decided = starred and (row.low > 0 or row.high < 0)
    return Cell(text + ("*" if decided else ""), f"{write(row.low)} to {write(row.high)}", row.value)


def known(row: Row) -> bool:
    """Whether it has an interval."""
    return math.isfinite(row.low) and math.isfinite(row.high)


def percents(row: Row) -> str:
    """Write the interval of a skill."""
    return f"skill {row.low:.0%} to {row.high:.0%}"


def in_brackets(row: Row) -> str:
    """Write the interval of a skill after what it is said of; nothing if there is none."""
    return f" ({percents(row)})" if known(row) else ""


def compared(skill: Row) -> str:
    """Say by how much a CRPS lies below another's, or above."""
    return f"{abs(skill.value):.0%} {'below' if skill.value >= 0 else 'above'}"


def spread_in_words(ratio: float) -> str:
    """Say what a ratio of spread to error means."""
    if ratio < 0.9:
        return f"its spread is too small for its error (spread / skill {ratio:.2f})"
    if ratio > 1.1:
        return f"its spread is too large for its error (spread / skill {ratio:.2f})"
    return f"its spread fits its error (spread / skill {ratio:.2f})"


def only_wet(data: DataSettings, units: str) -> str:
    """Say on which windows scores are conditional."""
    if data.min_wet == 0:
        return "Windows are taken whether it rains in them or not."
    return (
        f"Windows are only those with rain: at least {data.min_wet:.0%} of the cells of the last coarse "
        f"frame are above {data.wet_threshold:g} {units}. Scores hold for such weather, not for dry days."
    )


def number(value: float) -> str:
    """Write a number of any size."""
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"


def signed(value: float) -> str:
    """Write a difference from a perfect value."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def wanted(better: str) -> str:
    """Say which values of a metric are best."""
    return {"none": "describes", "zero": "0", "one": "1"}.get(better, better)


def tiny(value: float) -> str:
    """Write an error that is a matter of rounding for some."""
    return "0" if value == 0 else f"{value:.1e}"


def titled(pair: object, label: str) -> str:
    """Name a model: its label, with the pair unless it begins with that."""
    return label if label.split("/")[0] == str(pair) else f"{pair}, {label}"


def moment(time: object) -> str:
    """Write a time of a store."""
    return str(time).replace("T", " ")
