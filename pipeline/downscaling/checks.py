"""Whether an archive is what a model refines (units, cadence, cells), and which part of it is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.downscaling.archive import Archive
from pipeline.errors import UserError
from pipeline.factors import FactorPair
from pipeline.models.family import ModelSpec
from pipeline.sources.readers import Selection
from pipeline.store.field_store import FieldStore
from pipeline.store.grids import attributes_of, check_even, pixel_step
from pipeline.units import to_mm_per_hour

LEAST_SIDE = 8  # fine pixels: what a network needs, and the least `data.patch` there is
_OFF = 0.01  # share of a cell's size that it may differ by
_METRES = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("km", "kilometre", "kilometres", "kilometer", "kilometers"), 1000.0),
}


def units_factor(store: FieldStore, data: Mapping[str, Any], pair: FactorPair, coarsen: bool) -> float:
    """Find what turns a store's values into the model's units.

    A sum over the time between frames counts as what it is: 6 mm in 6 h are 1 mm per hour.

    Parameters
    ----------
    store : FieldStore
    data : mapping
        What the model's card says about its data.
    pair : FactorPair
    coarsen : bool
        The store is fine.

    Raises
    ------
    UserError
        If one cannot be turned into the other.
    """
    mine, cadence = store.info.units, store.info.cadence_seconds
    wanted = str(data.get("units", mine))
    fine = cadence if coarsen else cadence / pair.time
    try:
        rate = to_mm_per_hour(mine, cadence, f"store {store.url}")
        factor = rate / to_mm_per_hour(wanted, fine, "model")
    except UserError:
        if mine == wanted:
            return 1.0
        raise UserError(
            f"store {store.url}: its units are {mine}, the model's {wanted}; "
            "ingest it again so that they agree"
        ) from None
    return 1.0 if abs(factor - 1) < 1e-9 else factor


def check_cadence(store: FieldStore, data: Mapping[str, Any], pair: FactorPair, coarsen: bool) -> None:
    """Check that frames are as far apart as those that the model has learned from.

    Raises
    ------
    UserError
        If they are not, or fine frames would not be whole seconds apart.
    """
    cadence, tau = store.info.cadence_seconds, 1 if coarsen else pair.time
    fine = float(data.get("cadence_seconds", cadence / tau))
    if abs(cadence - tau * fine) > 0.5:
        made = _span(fine) if coarsen else f"{_span(tau * fine)} ({tau} x {_span(fine)})"
        hint = "give such a field"
        if not coarsen and abs(cadence - fine) <= 0.5:
            hint = "the field is fine already: --coarsen makes a coarse one of it and refines that"
        elif coarsen and abs(cadence - pair.time * fine) <= 0.5:
            hint = "the field is coarse already: leave --coarsen out"
        raise UserError(
            f"store {store.url}: a frame every {_span(cadence)}, the model for {pair} needs one every "
            f"{made}; {hint}"
        )
    if cadence % tau:
        raise UserError(
            f"store {store.url}: a frame every {_span(cadence)}, which {tau} does not divide into whole "
            "seconds; give a field of another cadence"
        )


def check_cells(archive: Archive, data: Mapping[str, Any]) -> list[str]:
    """Check that cells are as large as those that the model has learned from.

    Returns
    -------
    list of str
        What could not be compared, one line each.

    Raises
    ------
    UserError
        If a side differs by more than a hundredth, or the grid is not regular.
    """
    store, pair = archive.store, archive.pair
    for name, axis in (("y", store.y), ("x", store.x)):
        check_even(axis, name, f"store {store.url}")
    notes = []
    s = 1 if archive.coarsen else pair.space
    sides = [abs(pixel_step(axis)) for axis in (store.y, store.x)]
    units = [str(attributes_of(store, name).get("units", "")) for name in ("y", "x")]
    pixels = data.get("pixel")
    if pixels is None:
        notes.append(
            "the model's card is from an older version and does not tell the size of its pixels; "
            f"make sure that {sides[0]:g} x {sides[1]:g} {units[0]} is {s} times it".replace("  ", " ")
        )
    else:
        known = data.get("pixel_units", units)
        for name, side, unit, pixel, other in zip("yx", sides, units, pixels, known, strict=True):
            (kind, one), (other_kind, other_one) = _length(unit), _length(other)
            if kind != other_kind:
                notes.append(
                    f"the store's {name} is in {unit or 'no unit'}, the model's was in {other or 'no unit'}: "
                    f"make sure that {side:g} of the one are {s * pixel:g} of the other"
                )
            elif abs(side * one / (s * pixel * other_one) - 1) > _OFF:
                raise _wrong_side(archive, name, f"{side:g} {unit}".strip(), f"{pixel:g} {other}".strip())
    crs, model_crs = store.info.crs, data.get("crs")
    if None not in (crs, model_crs) and crs != model_crs:
        notes.append("the store's map projection is not that of the model's data")
    return notes


def _wrong_side(archive: Archive, name: str, side: str, pixel: str) -> UserError:
    what = "pixels of" if archive.coarsen else f"cells of {archive.pair.space} x"
    hint = "give a grid of that size"
    return UserError(
        f"store {archive.store.url}: {side} from one {name} to the next, the model for {archive.pair} needs "
        f"{what} {pixel}; {hint}, or train a model for this one"
    )


def check_field(store: FieldStore, spec: ModelSpec, data: Mapping[str, Any]) -> list[str]:
    """Check that a store has the dynamic covariates that a model needs.

    Returns
    -------
    list of str
        One line if its field has another name than the model's.

    Raises
    ------
    UserError
        If it lacks one.
    """
    lacking = [one.name for one in spec.dynamics if one.name not in store.info.dynamics]
    if lacking:
        raise UserError(
            f"store {store.url}: no dynamic covariate {', '.join(lacking)}, which the model needs; "
            "ingest it again with --dynamic NAME"
        )
    mine, wanted = store.info.variable, data.get("variable", store.info.variable)
    return [] if mine == wanted else [f"the store's field is {mine}, the model's was {wanted}"]


def choose_box(archive: Archive, bbox: tuple[float, float, float, float] | None) -> tuple[slice, slice]:
    """Give the rows and columns of the cells whose centres lie within (x0, y0, x1, y1); none: all.

    Raises
    ------
    UserError
        If there is none, or too few for a network.
    """
    url, pair, (_, height, width) = archive.store.url, archive.pair, archive.shape
    rows, columns = slice(0, height), slice(0, width)
    if bbox is not None and height and width:
        x0, y0, x1, y1 = bbox
        down = np.flatnonzero((archive.y >= y0) & (archive.y <= y1))
        across = np.flatnonzero((archive.x >= x0) & (archive.x <= x1))
        if not len(down) or not len(across):
            raise UserError(
                f"--bbox {x0:g},{y0:g},{x1:g},{y1:g}: no cell of store {url} has its centre there; x runs "
                f"from {archive.x.min():g} to {archive.x.max():g}, y from {archive.y.min():g} to "
                f"{archive.y.max():g}"
            )
        rows, columns = slice(int(down[0]), int(down[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1)
    h, w = rows.stop - rows.start, columns.stop - columns.start
    if min(h, w) * pair.space < LEAST_SIDE:
        raise UserError(
            f"store {url}: {h} x {w} cells are {h * pair.space} x {w * pair.space} fine pixels for {pair}, "
            f"at least {LEAST_SIDE} x {LEAST_SIDE} are needed; give a larger "
            f"{'grid' if bbox is None else '--bbox'}"
        )
    return rows, columns


def choose_frames(archive: Archive, selection: Selection) -> np.ndarray:
    """Give the indices (n,) of the coarse frames that end within a period, both its ends included, but gaps.

    A period inside one coarse frame, a moment say, stands for that frame.

    Raises
    ------
    UserError
        If there is none.
    """
    url, times = archive.store.url, archive.times
    if not len(times):
        raise UserError(
            f"store {url}: {archive.store.shape[0]} frames make no coarse one for {archive.pair}; "
            "give a longer period"
        )
    wanted = archive.present.copy()
    if selection.start is not None:
        wanted &= times >= selection.start
    if selection.stop is not None:
        wanted &= times <= selection.stop
    if selection.start is not None and selection.stop is not None:
        span = np.timedelta64(round(archive.cadence_seconds * archive.pair.time), "s")
        inside = (times - span < selection.start) & (times > selection.stop)
        wanted |= inside & archive.present
    if not wanted.any():
        period = f"{selection.start or ''}/{selection.stop or ''}"
        raise UserError(
            f"--time {period}: no coarse frame of store {url} ends there; they run from {times[0]} to "
            f"{times[-1]}, {_span(archive.cadence_seconds * archive.pair.time)} apart"
        )
    return np.flatnonzero(wanted)


def check_thresholds(amounts: Sequence[float], units: str) -> None:
    """Check that a field can lie on either side of amounts whose exceedance is asked for.

    Parameters
    ----------
    amounts : sequence of float
    units : str
        The model's.

    Raises
    ------
    UserError
        If one is no finite number, or negative where the field is of precipitation.
    """
    try:
        to_mm_per_hour(units, 3600, "model")
        least = 0.0
    except UserError:
        least = -np.inf  # a temperature, say
    for amount in amounts:
        if not np.isfinite(amount) or amount < least:
            raise UserError(
                f"downscaling.exceed = {amount:g}: no field in {units} lies on both sides of it; give finite "
                f"amounts{' from 0 on' if least == 0 else ''} with --exceed, or leave it out"
            )


def _length(unit: str) -> tuple[str, float]:
    """Give what a unit of coordinates measures, and how much of it."""
    word = unit.strip().lower()
    if word in _METRES:
        return "length", _METRES[word]
    return ("degree" if word.startswith("degree") else word), 1.0


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds % 60 == 0 else f"{seconds:g} s"
