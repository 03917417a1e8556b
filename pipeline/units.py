"""Units of precipitation, and what turns each into mm/h."""

from __future__ import annotations

import re

from pipeline.errors import UserError

WANTED = "mm/h"

_SAME = {
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("sec", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "minute", "minutes"), "min"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("millimeter", "millimeters", "millimetre", "millimetres"), "mm"),
    **dict.fromkeys(("meter", "meters", "metre", "metres"), "m"),
}

# Units (name, exponent) to the factor that gives mm/h. One kg of water on a square metre is 1 mm deep.
_RATES = {
    frozenset({("mm", 1), ("h", -1)}): 1.0,
    frozenset({("mm", 1), ("min", -1)}): 60.0,
    frozenset({("mm", 1), ("s", -1)}): 3600.0,
    frozenset({("mm", 1), ("d", -1)}): 1 / 24,
    frozenset({("m", 1), ("h", -1)}): 1000.0,
    frozenset({("m", 1), ("s", -1)}): 3_600_000.0,
    frozenset({("kg", 1), ("m", -2), ("h", -1)}): 1.0,
    frozenset({("kg", 1), ("m", -2), ("s", -1)}): 3600.0,
}
# Sums over the time between frames: divided by that time.
_SUMS = {
    frozenset({("mm", 1)}): 1.0,
    frozenset({("m", 1)}): 1000.0,
    frozenset({("kg", 1), ("m", -2)}): 1.0,
}


def _parts(units: str) -> frozenset[tuple[str, int]] | None:
    """Read `kg m-2 s-1`, `kg/m2/s`, `kg m**-2 s**-1` alike; None for what is not a product of powers."""
    numerator, *denominators = units.lower().replace("**", "").replace("^", "").split("/")
    powers: set[tuple[str, int]] = set()
    for sign, group in [(1, numerator), *((-1, text) for text in denominators)]:
        for word in re.split(r"[\s.*·]+", group.strip()):
            match = re.fullmatch(r"([a-z]+)([+-]?\d+)?", word)
            if match is None:
                return None
            powers.add((_SAME.get(match[1], match[1]), sign * int(match[2] or 1)))
    return frozenset(powers)


def to_mm_per_hour(units: str, interval_seconds: float, where: str) -> float:
    """Find the factor that turns values in `units` into mm/h.

    Parameters
    ----------
    units : str
        As written in the file.
    interval_seconds : float
        Time that one value of a sum (`mm`, `kg m-2`) stands for.
    where : str
        File and variable, for the message.

    Raises
    ------
    UserError
        If the units are none of precipitation.
    """
    parts = _parts(units)
    if parts in _RATES:
        return _RATES[parts]
    if parts in _SUMS:
        return _SUMS[parts] * 3600 / interval_seconds
    raise UserError(
        f"{where}: units {units!r} cannot be turned into {WANTED} (known: mm/h, mm/day, mm, kg m-2 s-1, "
        "m s-1 and the like); declare them with --units UNITS, and the values are taken unchanged"
    )
