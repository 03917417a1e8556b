"""One window to look at: where it rains most."""

from __future__ import annotations

import torch

from pipeline.config import SamplingSettings
from pipeline.data.windows import Windows
from pipeline.evaluation.baselines import bicubic
from pipeline.evaluation.evaluate import batches
from pipeline.models.family import SuperResolutionModel


@torch.no_grad()
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
    """Draw the window with the most rain: LR, truth, bicubic, mean, members and spread.

    Parameters
    ----------
    model : SuperResolutionModel
        On `device`.
    windows : Windows
        With the model's context.
    sampling : SamplingSettings
    seed : int
        Of the ensemble; the one that scored the windows gives the members that were scored.
    device : torch.device
    name : str
        Of the data set, for the title.
    units : str

    Returns
    -------
    bytes
        PNG.
    """
    from pipeline.evaluation.figures import panel, to_png

    pair = model.spec.pair
    amounts = [float(batch.last.sum()) for batch in batches(windows.with_context(1), 1)]
    batch = windows.batch([amounts.index(max(amounts))])
    on_device = batch.to(device)
    figure = panel(
        batch.last[0, 0],
        batch.fine[0],
        bicubic(batch.coarse, pair, batch.coarse_mask)[0],
        model.predict_mean(on_device)[0].cpu(),
        model.sample(on_device, sampling, seed)[0].cpu(),
        batch.mask[0],
        units,
        f"{name}, factor pair {pair}: {model.spec.parameters}",
        coarse_mask=batch.last_mask[0, 0],
    )
    return to_png(figure)
