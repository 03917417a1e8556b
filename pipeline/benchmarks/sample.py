"""How long a member takes by the default sampler and by a thousand ancestral steps; the memory of domains."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.benchmarks.loader_memory import peak_memory
from pipeline.benchmarks.pair import the_pair
from pipeline.config import Config, SamplingSettings
from pipeline.data.batch import Batch
from pipeline.data.scaling import ValueTransform
from pipeline.downscaling.domain_mass import conserve_domain
from pipeline.downscaling.joint import JointSampler
from pipeline.downscaling.lattice import Lattice
from pipeline.downscaling.scratch import Scratch
from pipeline.factors import FactorPair
from pipeline.models.families import build_model
from pipeline.models.family import ModelSpec, SuperResolutionModel
from pipeline.prior import paper_prior
from pipeline.training.memory import readable

_REFERENCE = SamplingSettings(sampler="ancestral", steps=1000, members=2)
_ROUNDS = 3
_SIDES = (128, 2048)  # of the domains whose memory is compared, fine pixels


@dataclass(frozen=True)
class SamplingCost:
    """What sampling costs.

    Attributes
    ----------
    pair : FactorPair
    patch : int
        Side of the windows, in fine pixels.
    steps : int
        Network evaluations of the default.
    default, reference : list of float
        Seconds per member of one window, in each round.
    sides : tuple of int
        Of square domains.
    peaks : tuple of int
        Most resident bytes of a process that draws one member of such a domain.
    field_bytes : tuple of int
        Of that member.
    """

    pair: FactorPair
    patch: int
    steps: int
    default: list[float]
    reference: list[float]
    sides: tuple[int, ...]
    peaks: tuple[int, ...]
    field_bytes: tuple[int, ...]

    def __str__(self) -> str:
        ratio = statistics.median(b / a for a, b in zip(self.default, self.reference, strict=True))
        per_frame = [statistics.median(times) / self.pair.time for times in (self.default, self.reference)]
        lines = [
            f"sampling: {self.pair}, {self.patch} x {self.patch} pixels at once, seconds per member-frame",
            f"  default, {self.steps} evaluations   {per_frame[0]:.4f}",
            f"  1000 ancestral steps     {per_frame[1]:.4f}: {ratio:.0f} times as long",
        ]
        lines += [
            f"  domain of {side} x {side}: {readable(peak)} at the peak, {readable(size)} of them one member"
            for side, peak, size in zip(self.sides, self.peaks, self.field_bytes, strict=True)
        ]
        beyond = (self.peaks[-1] - self.field_bytes[-1]) / (self.peaks[0] - self.field_bytes[0]) - 1
        return "\n".join([*lines, f"  beyond the member itself the large one takes {beyond:+.1%}"])


def sampling_cost(config: Config) -> SamplingCost:
    """Measure sampling with an untrained model of the preset, for the one pair that is asked for."""
    return sampling_benchmark(config, the_pair(config), rounds=_ROUNDS, reference=_REFERENCE, sides=_SIDES)


def sampling_benchmark(
    config: Config, pair: FactorPair, *, rounds: int, reference: SamplingSettings, sides: tuple[int, ...]
) -> SamplingCost:
    """Draw the same members in two ways, in turns; then a member of a small and of a large domain.

    Parameters
    ----------
    config : Config
        Model, patch and default sampling.
    pair : FactorPair
    rounds : int
    reference : SamplingSettings
        What the default is compared with.
    sides : tuple of int
    """
    torch.set_num_threads(1)
    model, frame = _model(config, pair), _Rain(pair, config.data.patch // pair.space)
    batch = frame.batch([(0, 0)], (frame.side, frame.side))
    default = config.sampling.model_copy(update={"members": reference.members})
    times: dict[str, list[float]] = {"default": [], "reference": []}
    with torch.no_grad():
        model.sample(batch, default, seed=0)  # warms up
        for _ in range(rounds):
            for name, sampling in (("default", default), ("reference", reference)):
                began = time.perf_counter()
                model.sample(batch, sampling, seed=0)
                times[name].append((time.perf_counter() - began) / reference.members)
    peaks = []
    for side in sides:  # each in a process of its own, whose peak is its own
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            peaks.append(process.submit(_draw_domain, config, pair, side).result())
    return SamplingCost(
        pair,
        frame.side,
        default.steps,
        times["default"],
        times["reference"],
        sides,
        tuple(peaks),
        tuple(4 * pair.time * (side // pair.space * pair.space) ** 2 for side in sides),
    )


def _model(config: Config, pair: FactorPair) -> SuperResolutionModel:
    transform = ValueTransform(kind="log1p", unit=1.0, spread=0.5)
    spec = ModelSpec(pair, paper_prior(pair), config.model, transform, scale=20.0)
    return build_model(spec, seed=0).eval().requires_grad_(False)


class _Rain:
    """A square coarse frame with its context, with rain everywhere: no tile is left out."""

    def __init__(self, pair: FactorPair, cells: int) -> None:
        self.pair, self.side = pair, cells * pair.space
        context = paper_prior(pair).context
        smooth = np.random.default_rng(0).normal(size=(context, cells // 16 + 2, cells // 16 + 2))
        field = np.abs(smooth).repeat(16, axis=1).repeat(16, axis=2)[:, :cells, :cells]
        self.coarse = torch.from_numpy(field.astype(np.float32) * 4 + 0.1)

    def batch(self, corners: Sequence[tuple[int, int]], shape: tuple[int, int]) -> Batch:
        s, (rows, columns) = self.pair.space, shape
        coarse = torch.stack(
            [self.coarse[:, y // s : (y + rows) // s, x // s : (x + columns) // s] for y, x in corners]
        )
        fine = torch.zeros(len(corners), self.pair.time, *shape)
        return Batch(
            fine=fine,
            mask=torch.ones_like(fine, dtype=torch.bool),
            coarse=coarse,
            coarse_mask=torch.ones_like(coarse, dtype=torch.bool),
            statics=torch.zeros(len(corners), 0, *shape),
            dynamics=torch.zeros(*coarse.shape[:2], 0, *coarse.shape[2:]),
            position=torch.tensor([self.position(y, x) for y, x in corners]),
            weights=torch.ones(len(corners)),
        )

    def position(self, y: int, x: int) -> tuple[int, int, int]:
        return 0, y, x

    def wet(self) -> np.ndarray:
        wet = (self.coarse[-1] > 0).numpy()
        return wet.repeat(self.pair.space, axis=0).repeat(self.pair.space, axis=1)


def _draw_domain(config: Config, pair: FactorPair, side: int) -> int:
    """Draw and conserve one member of a domain; give the most memory that this process has had."""
    torch.set_num_threads(1)
    frame, model = _Rain(pair, side // pair.space), _model(config, pair)
    settings = config.downscaling
    tile = settings.tile or config.data.patch
    lattice = Lattice.over(frame.side, frame.side, tile, settings.overlap, pair)
    sampler = JointSampler(
        model,
        lattice,
        config.sampling,
        0,
        torch.device("cpu"),
        batch=settings.batch,
    )
    scratch, coarse = Scratch(settings.scratch), frame.coarse[-1].numpy()
    field = sampler.draw(frame, [0], scratch)[0]
    bands = conserve_domain(
        field, coarse, np.ones_like(coarse, bool), lattice, pair, model.spec.parameters.conservation,
        scale=model.spec.scale, rows=tile // pair.space * pair.space,
    )  # fmt: skip
    for rows, values in bands:
        field[:, rows] = values
        scratch.rest()
    return peak_memory()
