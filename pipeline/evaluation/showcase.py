"""Windows to look at: where it rains most, an ordinary one, the worst scored one, and an event in motion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.config import SamplingSettings
from pipeline.data.windows import Windows
from pipeline.evaluation.baselines import bicubic
from pipeline.evaluation.evaluate import batches
from pipeline.models.family import SuperResolutionModel
from pipeline.store.manifest import StoreInfo

if TYPE_CHECKING:
    from pipeline.evaluation.figures import Event  # matplotlib is loaded only where something is drawn


def chosen_windows(amounts: Sequence[float], scores: Sequence[float]) -> dict[str, int]:
    """Choose the windows to show: `wettest`, `worst` and `median`.

    They are different windows. The worst has the largest score of those that are not the wettest; the median
    is the middle one, by score, of the others with rain (without any, of all others): a dry one says little.

    Parameters
    ----------
    amounts : sequence of float
        Rain of each window, in any unit.
    scores : sequence of float
        Of each window, smaller is better; NaN where a window has no valid pixel.

    Returns
    -------
    dict
        Name -> index, in this order; fewer with fewer than 3 windows that have a score. Of equals the first.
    """
    if len(amounts) != len(scores):
        raise ValueError(f"{len(amounts)} amounts and {len(scores)} scores")
    left = [i for i, score in enumerate(scores) if math.isfinite(score)]
    chosen: dict[str, int] = {}
    if left:
        chosen["wettest"] = max(left, key=lambda i: amounts[i])
        left.remove(chosen["wettest"])
    if left:
        chosen["worst"] = max(left, key=lambda i: scores[i])
        left.remove(chosen["worst"])
    ordered = sorted([i for i in left if amounts[i] > 0] or left, key=lambda i: scores[i])
    if ordered:
        chosen["median"] = ordered[(len(ordered) - 1) // 2]
    return chosen


def amounts_of(windows: Windows) -> list[float]:
    """Give the rain of each window: the sum over its coarse frame."""
    return [float(batch.last.sum()) for batch in batches(windows.with_context(1), 1)]


@torch.no_grad()
def window_panel(
    model: SuperResolutionModel,
    windows: Windows,
    index: int,
    sampling: SamplingSettings,
    *,
    seed: int,
    device: torch.device,
    title: str,
    units: str,
) -> bytes:
    """Draw one window: LR, truth, bicubic, mean, members and spread.

    Parameters
    ----------
    model : SuperResolutionModel
        On `device`.
    windows : Windows
        With the model's context.
    index : int
        Of the window.
    sampling : SamplingSettings
    seed : int
        Of the ensemble; the one that scored the windows gives the members that were scored.
    device : torch.device
    title, units : str

    Returns
    -------
    bytes
        PNG.
    """
    from pipeline.evaluation.figures import panel, to_png

    batch = windows.batch([index])
    on_device = batch.to(device)
    figure = panel(
        batch.last[0, 0],
        batch.fine[0],
        bicubic(batch.coarse, windows.pair, batch.coarse_mask)[0],
        model.predict_mean(on_device)[0].cpu(),
        model.sample(on_device, sampling, seed)[0].cpu(),
        batch.mask[0],
        units,
        title,
        coarse_mask=batch.last_mask[0, 0],
    )
    return to_png(figure)


def wettest_panel(
    model: SuperResolutionModel,
    windows: Windows,
    sampling: SamplingSettings,
    *,
    seed: int,
    device: torch.device,
    name: str,
    units: str,
) -> bytes:
    """Draw the window with the most rain as `window_panel` does; `name` is that of the data set."""
    amounts = amounts_of(windows)
    title = f"{name}, factor pair {model.spec.pair}: {model.spec.parameters}"
    index = amounts.index(max(amounts))
    return window_panel(model, windows, index, sampling, seed=seed, device=device, title=title, units=units)


def event_windows(windows: Windows, index: int, *, most: int = 12) -> Windows:
    """Give consecutive windows at the place of one, itself among them.

    They start tau frames apart, within the time that `windows` span: so their context is in the same split.

    Parameters
    ----------
    windows : Windows
        All that were scored.
    index : int
        Of the window around which the others are laid.
    most : int
        How many at most.
    """
    time, row, column = windows.places[index].tolist()
    tau = windows.pair.time
    first, last = int(windows.places[:, 0].min()), int(windows.places[:, 0].max())
    before, after = (time - first) // tau, (last - time) // tau
    earlier = min(before, max(most // 2, most - 1 - after))
    later = min(after, most - 1 - earlier)
    starts = range(time - earlier * tau, time + later * tau + 1, tau)
    places = np.array([[start, row, column] for start in starts], dtype=windows.places.dtype)
    return replace(windows, places=places, wetness=None)


@torch.no_grad()
def event(
    model: SuperResolutionModel,
    windows: Windows,
    sampling: SamplingSettings,
    *,
    seed: int,
    device: torch.device,
    info: StoreInfo,
) -> Event:
    """Downscale consecutive windows, for `pipeline.evaluation.figures.animation`.

    Parameters
    ----------
    model : SuperResolutionModel
        On `device`.
    windows : Windows
        Of `event_windows`, with the model's context.
    sampling : SamplingSettings
    seed : int
        Of the ensembles.
    device : torch.device
    info : StoreInfo
        For the times of the frames.
    """
    from pipeline.evaluation.figures import Event

    two = sampling.model_copy(update={"members": min(2, sampling.members)})
    parts = list(batches(windows, 1))
    members = [model.sample(part.to(device), two, seed)[0].cpu() for part in parts]
    smooth = [bicubic(part.coarse, windows.pair, part.coarse_mask)[0] for part in parts]
    frames = [start + i for start in windows.places[:, 0].tolist() for i in range(windows.pair.time)]
    return Event(
        coarse=torch.cat([part.last[0] for part in parts]).numpy(),
        coarse_mask=torch.cat([part.last_mask[0] for part in parts]).numpy(),
        truth=torch.cat([part.fine[0] for part in parts]).numpy(),
        bicubic=torch.cat(smooth).numpy(),
        members=torch.cat(members, dim=1).numpy(),  # (M, T, H, W)
        mask=torch.cat([part.mask[0] for part in parts]).numpy(),
        labels=[_time(info, frame) for frame in frames],
    )


def _time(info: StoreInfo, frame: int) -> str:
    """Give when a frame of a store is, to the minute."""
    start = np.datetime64(info.start.removesuffix("Z"), "s")
    moment = start + np.timedelta64(round(frame * info.cadence_seconds), "s")
    return f"{np.datetime_as_string(moment, unit='m').replace('T', ' ')} UTC"
