"""What measurements of a finished model ask for: a store like the one that it has learned from, and rain."""

from __future__ import annotations

import numpy as np

from pipeline.downscaling.archive import Archive
from pipeline.downscaling.checks import check_cells, choose_box, choose_frames, units_factor
from pipeline.downscaling.coarse_input import CoarseInput, open_input
from pipeline.downscaling.opening import InputRequest
from pipeline.errors import UserError
from pipeline.evaluation.held_out import SavedModel
from pipeline.ingest.inputs import Request
from pipeline.sources.readers import Selection
from pipeline.store.field_store import FieldStore


def check_alike(saved: SavedModel, store: FieldStore) -> list[str]:
    """Check that a store's frames and pixels are as far apart as those that a model has learned from.

    Returns
    -------
    list of str
        What could not be compared, one line each.

    Raises
    ------
    UserError
        If they are not.
    """
    mine = store.info.cadence_seconds
    wanted = float(saved.data.get("cadence_seconds", mine))
    if abs(mine - wanted) > 0.5:
        raise UserError(
            f"store {store.url}: a frame every {mine / 60:g} min, the model {saved.url} was trained on one "
            f"every {wanted / 60:g} min; give a store of that cadence"
        )
    return check_cells(Archive(store, saved.model.spec.pair, coarsen=True), saved.data)


def wettest(saved: SavedModel, store: FieldStore, side: int) -> CoarseInput:
    """Find the coarse frame and the square with the most rain.

    Frames are read from the wettest on, until what is left cannot hold as much. If several squares hold the
    same rain, the one in their middle is taken. Frames that lack a part of the model's context do not count.

    Parameters
    ----------
    saved : SavedModel
    store : FieldStore
        Of fine frames.
    side : int
        Of the square, in fine pixels.

    Raises
    ------
    UserError
        If the store does not fit the model, or is dry.
    """
    spec = saved.model.spec
    archive = Archive(store, spec.pair, True, units_factor(store, saved.data, spec.pair, coarsen=True))
    choose_box(archive, None)
    frames = choose_frames(archive, Selection())
    frames = frames[frames >= min(spec.parameters.context - 1, frames[-1])]
    _, h, w = archive.shape
    cells, tau = min(side // spec.pair.space, h, w), spec.pair.time
    # A cell's value is the mean of its valid pixels, which are half of them at least.
    each = store.statistics[: archive.shape[0] * tau, 2].reshape(-1, tau).sum(axis=1)
    most = 2 * archive.factor * each / spec.pair.pixels_per_cell
    best, place = 0.0, (0, 0, 0)
    for frame in sorted(frames.tolist(), key=lambda k: -most[k]):
        if most[frame] <= best:
            break
        values = archive.read(frame, frame + 1, slice(0, h), slice(0, w))[0]
        amount, (y, x) = wettest_square(np.nan_to_num(values.numpy()), cells)
        if amount > best:
            best, place = amount, (frame, y, x)
    if best <= 0:
        raise UserError(f"store {store.url}: no rain in it; give one with some")
    frame, y, x = place
    ends = [axis[[first, first + cells - 1]] for axis, first in ((archive.x, x), (archive.y, y))]
    (x0, x1), (y0, y1) = (sorted(map(float, pair_of_ends)) for pair_of_ends in ends)
    at = archive.times[frame]
    request = Request((store.url,), selection=Selection(at, at, (x0, y0, x1, y1)))
    wanted = InputRequest(request, ingested_url="", coarsen=True)
    return open_input(wanted, spec, saved.card)


def wettest_square(values: np.ndarray, side: int) -> tuple[float, tuple[int, int]]:
    """Find the square with the largest sum; of several, the one in their middle.

    Parameters
    ----------
    values : np.ndarray
        (h, w), not negative.
    side : int
        At most h and w.

    Returns
    -------
    float
        The sum.
    (int, int)
        First row and column.
    """
    sums = np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    largest = float(inside.max())
    alike = np.argwhere(inside >= largest * (1 - 1e-9))
    y, x = alike[np.abs(alike - alike.mean(axis=0)).sum(axis=1).argmin()]
    return largest, (int(y), int(x))
