"""Whether tiles leave seams: one member of a wet square drawn in one piece and in tiles of several sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.benchmarks.borders import Seam, seam
from pipeline.benchmarks.figures import seams_figure
from pipeline.benchmarks.finished import check_alike, wettest
from pipeline.benchmarks.tables import Drawn, SeamsTable
from pipeline.config import Config
from pipeline.data.dataset import open_dataset
from pipeline.devices import device_of_trial
from pipeline.downscaling.coarse_input import CoarseInput
from pipeline.downscaling.domain_mass import conserve_domain
from pipeline.downscaling.joint import JointSampler
from pipeline.downscaling.lattice import Lattice
from pipeline.downscaling.scratch import Scratch
from pipeline.downscaling.task import FrameOf
from pipeline.environment import resolve_output
from pipeline.errors import UserError
from pipeline.evaluation.figures.style import to_png
from pipeline.evaluation.held_out import SavedModel
from pipeline.evaluation.statistics import conservation_statistics
from pipeline.factors import FactorPair
from pipeline.models.family import SuperResolutionModel
from pipeline.progress import progress
from pipeline.storage.files import join, write_bytes

_SIDE = 512  # fine pixels of the square
_TILES, _OVERLAP = (64, 128, 256), 0.5
_APART = 64  # of the tiles that stand side by side


def seams_of_tiles(config: Config, saved: SavedModel) -> SeamsTable:
    """Draw the wettest square of 512 x 512 pixels; the figure goes to `benchmark` in the output folder."""
    return seams_benchmark(config, saved, side=_SIDE, tiles=_TILES, apart=_APART)


def seams_benchmark(
    config: Config,
    saved: SavedModel,
    *,
    side: int,
    tiles: Sequence[int],
    apart: int,
) -> SeamsTable:
    """Draw one member in one piece, as downscaling does, in tiles that overlap by a half, and side by side.

    Parameters
    ----------
    config : Config
        The user's settings above `saved.defaults()`.
    saved : SavedModel
    side : int
        Of the square in fine pixels; less where the store is smaller.
    tiles : sequence of int
        Sides of the tiles that overlap by a half; those that the square is not larger than are left out.
    apart : int
        Side of the tiles that do not overlap.

    Raises
    ------
    UserError
        If the store is not one for this model, dry, or too small for tiles.
    """
    output = join(resolve_output(config.output), "benchmark", "seams.png")
    torch.set_num_threads(max(1, int(config.tuning.cpus_per_trial)))
    store, model = open_dataset(config.data, config.output), saved.model.to(device_of_trial(config))
    check_alike(saved, store)
    source = wettest(saved, store, side)
    pair, length = model.spec.pair, source.grid[0] * model.spec.pair.space
    default = config.downscaling.tile or int(saved.data.get("patch", config.data.patch))
    kinds = [
        ("one piece", length, 0.0),
        (f"{default}, the default", default, config.downscaling.overlap),
        *((f"{tile}, overlap {_OVERLAP:g}", tile, _OVERLAP) for tile in tiles if tile < length),
        (f"{apart}, side by side", apart, 0.0),
    ]
    if length <= (largest := max(default, apart)):
        raise UserError(
            f"store {store.url}: {length} x {length} pixels of it are one tile of {largest}, "
            "without borders; give a larger grid"
        )
    one: np.ndarray | None = None
    rows: list[Drawn] = []
    with progress("drawing", len(kinds), "fields") as tell:
        for title, tile, overlap in kinds:
            lattice = Lattice.over(length, length, tile, overlap, pair)
            row = _drawn(title, config, model, source, lattice, one)
            one = row.field if one is None else one
            rows.append(row)
            tell(1)
    mean = float(np.nanmean(rows[0].field))
    table = SeamsTable(pair, store.info.name, source.units, *_place(source), mean, tuple(rows), output)
    write_bytes(output, to_png(seams_figure(table)))
    return table


def _drawn(
    title: str,
    config: Config,
    model: SuperResolutionModel,
    source: CoarseInput,
    lattice: Lattice,
    one: np.ndarray | None,
) -> Drawn:
    """Draw the member in these tiles, make it conserving, and compare it with the one drawn in one piece."""
    began, spec, frame = time.perf_counter(), model.spec, FrameOf(source, 0)
    pair, (coarse, known) = spec.pair, frame.coarse()
    # As many pixels at once as with tiles of the default size.
    batch = config.downscaling.batch * config.data.patch**2 // lattice.side**2
    sampler = JointSampler(
        model, lattice, config.sampling, config.seed, device_of_trial(config), batch=max(1, batch)
    )
    raw = sampler.draw(frame, [0], Scratch(config.downscaling.scratch))[0]
    conserved = conserve_domain(
        raw, coarse, known, lattice, pair, spec.parameters.conservation, scale=spec.scale, rows=raw.shape[1]
    )
    field = np.concatenate([values for _, values in conserved], axis=1)
    seconds = time.perf_counter() - began
    difference = np.zeros_like(field) if one is None else field - one
    return Drawn(
        title,
        lattice,
        field,
        Seam(math.nan, math.nan) if one is None else seam(difference, lattice, pair.space),
        float(np.nanmean(np.abs(difference))),
        _kept(field, coarse, known, pair),
        seconds,
    )


def _kept(field: np.ndarray, coarse: np.ndarray, known: np.ndarray, pair: FactorPair) -> tuple[float, float]:
    """Give the relative error of the amount kept, over the domain and per cell; missing cells count not."""
    members, amounts, there = (torch.from_numpy(part)[None] for part in (field[None], coarse, known))
    found = conservation_statistics(members, torch.isfinite(members[:, 0]), amounts, there, pair)
    return float(found.tile / found.amount), float(found.cell / found.amount)


def _place(source: CoarseInput) -> tuple[str, str]:
    H, W = (cells * source.pair.space for cells in source.grid)
    return f"{source.times[0]}, {H} x {W} pixels", f"({source.fine_x[0]:g}, {source.fine_y[0]:g})"
