"""How fast ensembles are scored, against two libraries, and whether memory grows with the windows."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmarks.loader_memory import peak_memory
from pipeline.benchmarks.pair import the_pair
from pipeline.config import Config, EvaluationSettings
from pipeline.evaluation.metrics import default_statistics
from pipeline.evaluation.statistics import fair_crps_per_pixel
from pipeline.evaluation.sums import BlockSums, Scored
from pipeline.factors import FactorPair
from pipeline.training.memory import readable

_ROUNDS = 5
_WINDOWS = 64  # in memory at once for the CRPS, and streamed over for the memory: these and ten times as many
_BATCH, _BLOCKS = 8, 16


@dataclass(frozen=True)
class ScoringSpeed:
    """What scoring costs.

    Attributes
    ----------
    pair : FactorPair
    shape : tuple of int
        (B, M, T, H, W) of the members whose CRPS was computed.
    rates : dict
        Pixel-members per second in each round, by way; empty if it is not installed.
    full_rate : float
        Pixel-members per second of all statistics of an evaluation.
    windows : tuple of int
        How many were streamed over.
    peaks : tuple of int
        Most resident bytes of the processes that did, each beyond what it held before its first batch.
    saved : tuple of int
        Bytes of the sums that they ended with.
    """

    pair: FactorPair
    shape: tuple[int, ...]
    rates: dict[str, list[float]]
    full_rate: float
    windows: tuple[int, ...]
    peaks: tuple[int, ...]
    saved: tuple[int, ...]

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        lines = [f"scores: fair CRPS of {self.pair}, members (B, M, T, H, W) = {shape}, one thread"]
        ours = self.rates["finescale"]
        for name, found in self.rates.items():
            if not found:
                lines.append(f"  {name:<14} not installed: pip install {name}")
                continue
            times = statistics.median(a / b for a, b in zip(ours, found, strict=True))
            compared = "" if name == "finescale" else f": finescale is {times:.1f} times as fast"
            lines.append(
                f"  {name:<14}{statistics.median(found) / 1e6:8.2f} million pixel-members/s "
                f"({min(found) / 1e6:.2f} to {max(found) / 1e6:.2f} in {len(found)} rounds){compared}"
            )
        lines.append(f"  all statistics of an evaluation: {self.full_rate / 1e6:.2f} million pixel-members/s")
        lines += [
            f"  {windows} windows in batches of {_BATCH}: {readable(peak)} at the peak beyond what was held "
            f"before, {readable(saved)} of sums for {_BLOCKS} blocks"
            for windows, peak, saved in zip(self.windows, self.peaks, self.saved, strict=True)
        ]
        return "\n".join(lines)


def scoring_speed(config: Config) -> ScoringSpeed:
    """Measure scoring for the one pair that is asked for, with the configuration's members and patch."""
    return scoring_benchmark(config, the_pair(config), windows=_WINDOWS, rounds=_ROUNDS)


def scoring_benchmark(config: Config, pair: FactorPair, *, windows: int, rounds: int) -> ScoringSpeed:
    """Compute the CRPS of the same arrays in several ways, in turns, then stream over windows.

    `scores` computes the fair CRPS as here; `xskillscore` the one that is not fair, which costs the same. The
    arrays are single precision, whole, and in the layout that each of them reads fastest.

    Parameters
    ----------
    config : Config
        With its members, patch and `evaluation` settings.
    pair : FactorPair
    windows : int
    rounds : int
    """
    scored = _rain(config, pair, windows, seed=0)
    ways = _ways(scored)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the libraries
    try:
        for turn in range(rounds + 1):
            for name, compute in ways.items():
                if compute is None:
                    continue
                began = time.perf_counter()
                compute()
                if turn > 0:  # the first is a warm-up
                    rates[name].append(scored.members.numel() / (time.perf_counter() - began))
        sums = BlockSums(default_statistics(config.evaluation, pair), 1)
        for _ in range(2):  # here too the first is a warm-up
            began = time.perf_counter()
            sums.add(replace(scored), torch.zeros(windows, dtype=torch.long))
        full_rate = scored.members.numel() / (time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    counts, found = (windows, 10 * windows), []
    for count in counts:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            found.append(alone.submit(stream, config, pair, count).result())
    peaks, saved = zip(*found, strict=True)
    return ScoringSpeed(pair, tuple(scored.members.shape), rates, full_rate, counts, peaks, saved)


def stream(config: Config, pair: FactorPair, windows: int) -> tuple[int, int]:
    """Score windows batch by batch, in this process.

    Returns
    -------
    peak : int
        Most resident bytes, beyond those before the first batch.
    saved : int
        Bytes of the sums.
    """
    torch.set_num_threads(1)
    evaluation: EvaluationSettings = config.evaluation
    sums = BlockSums(default_statistics(evaluation, pair), _BLOCKS)
    before = peak_memory()
    for first in range(0, windows, _BATCH):
        size = min(_BATCH, windows - first)
        sums.add(_rain(config, pair, size, seed=first), (first + torch.arange(size)) % _BLOCKS)
    return peak_memory() - before, len(sums.to_bytes())


def _rain(config: Config, pair: FactorPair, windows: int, *, seed: int) -> Scored:
    """Make windows of noise that is dry in half of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    cells = max(1, config.data.patch // pair.space)
    side = cells * pair.space
    shape = (windows, config.sampling.members + 1, pair.time, side, side)
    fields = torch.randn(shape, generator=generator).exp_().sub_(1).clamp_(min=0)
    coarse = (
        fields[:, 0].reshape(windows, pair.time, cells, pair.space, cells, pair.space).mean(dim=(1, 3, 5))
    )
    members, truth = fields[:, 1:], fields[:, 0]
    return Scored(
        members, truth, torch.ones_like(truth, dtype=torch.bool), coarse, torch.ones_like(coarse).bool(), pair
    )


def _ways(scored: Scored) -> dict[str, Callable[[], Any] | None]:
    """Give each way to compute the mean CRPS; none for a library that is not installed."""
    import xarray as xr

    members = scored.members.movedim(1, -1).flatten(0, 3).contiguous()  # (pixels, M)
    truth = scored.truth.flatten()

    def ours() -> Tensor:
        return fair_crps_per_pixel(scored.members, scored.truth).double().mean()

    ways: dict[str, Callable[[], Any] | None] = {"finescale": ours, "scores": None, "xskillscore": None}
    forecast = xr.DataArray(members.numpy(), dims=("pixel", "member"))
    observed = xr.DataArray(truth.numpy(), dims=("pixel",))
    if library := _installed("scores.probability"):
        ways["scores"] = functools.partial(
            library.crps_for_ensemble, forecast, observed, "member", method="fair"
        )
    if library := _installed("xskillscore"):
        ways["xskillscore"] = functools.partial(library.crps_ensemble, observed, forecast)
    return ways


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
