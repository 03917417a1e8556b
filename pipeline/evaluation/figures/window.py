"""The picture of one super-resolved window: what is known, what is true, what was made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from pipeline.data.coarsen import block_sum
from pipeline.evaluation.figures.style import draw_rain, image, rain_bar, rain_scale
from pipeline.factors import FactorPair

_ROWS = 3  # fine frames shown at most
_MEMBERS = 3  # members shown at most


def panel(
    coarse: Tensor,
    truth: Tensor,
    bicubic: Tensor,
    mean: Tensor,
    members: Tensor,
    mask: Tensor,
    units: str,
    title: str,
    *,
    coarse_mask: Tensor | None = None,
    dry_below: float = 0.1,
) -> Figure:
    """Draw one window: LR, truth, bicubic, conditional mean, members and spread, with a row per fine frame.

    All columns share one logarithmic colour scale; the spread is the members' standard deviation, in the same
    units. Values below `dry_below` are white, missing pixels grey in every column, also where a prediction
    exists.

    Parameters
    ----------
    coarse : Tensor
        (h, w), the refined LR frame.
    truth, bicubic, mean : Tensor
        (T, H, W); up to three frames are drawn, evenly chosen.
    members : Tensor
        (M, T, H, W); the first three are drawn, and the spread if there are two at least.
    mask : Tensor
        (T, H, W), bool, True = valid.
    units : str
        For the colour bar.
    title : str
        Above everything.
    coarse_mask : Tensor, optional
        (h, w), bool, True = valid; none: cells with a valid pixel, unless NaN.
    dry_below : float
        Start of the colour scale, in `units`.
    """
    frames, height, _ = truth.shape
    pair = FactorPair(height // coarse.shape[0], frames)
    rows = sorted({round(i) for i in np.linspace(0, frames - 1, min(frames, _ROWS))})
    members = members.float()
    columns: list[tuple[str, Tensor]] = [
        ("Truth", truth),
        ("Bicubic", bicubic),
        ("Conditional mean", mean),
        *((f"Member {i + 1}", members[i]) for i in range(min(members.shape[0], _MEMBERS))),
    ]
    if members.shape[0] > 1:
        columns.append((f"Spread of {members.shape[0]}", members.std(dim=0)))
    if coarse_mask is None:
        coarse_mask = block_sum(mask.float(), pair)[0] > 0
    coarse_image = _image(coarse, coarse_mask)
    images = {name: [_image(field[t], mask[t]) for t in rows] for name, field in columns}

    norm = rain_scale([coarse_image, *(one for column in images.values() for one in column)], dry_below)
    names = [f"frame {row + 1}/{frames}" for row in rows] if frames > 1 else None
    lr = f"LR (mean of {frames})" if frames > 1 else "LR"
    return _drawn((lr, coarse_image), images, names, norm, units, title)


def _drawn(
    lr: tuple[str, np.ma.MaskedArray],
    columns: Mapping[str, Sequence[np.ma.MaskedArray]],
    rows: Sequence[str] | None,
    norm: LogNorm,
    units: str,
    title: str,
) -> Figure:
    """Lay out LR, the columns of images by heading, and the colour bar; rows have names or not."""
    deep = len(next(iter(columns.values())))
    side, top, bottom, left, right = 1.75, 0.6, 0.15, 0.15, 0.95  # inches
    gap = 0.25 if rows else 0.02  # between LR and the rest, for the names of the rows
    size = (left + side * (len(columns) + 1 + gap) + right, top + side * deep + bottom)
    figure = Figure(figsize=size, dpi=130)
    grid = figure.add_gridspec(
        deep,
        len(columns) + 2,
        width_ratios=[1, gap] + [1] * len(columns),
        left=left / size[0],
        right=1 - right / size[0],
        top=1 - top / size[1],
        bottom=bottom / size[1],
        wspace=0.06,
        hspace=0.06,
    )

    def draw(cell: Any, picture: np.ma.MaskedArray, heading: str | None) -> Any:
        axes = figure.add_subplot(cell)
        drawn = draw_rain(axes, picture, norm)
        if heading is not None:
            axes.set_title(heading, fontsize=10, pad=4)
        return axes, drawn

    # There is one LR frame for all fine ones: it stands once, centred beside them.
    _, drawn = draw(grid[:, 0], lr[1], lr[0])
    for column, (name, pictures) in enumerate(columns.items(), start=2):
        for row, one in enumerate(pictures):
            axes, _ = draw(grid[row, column], one, name if row == 0 else None)
            if column == 2 and rows:
                axes.set_ylabel(rows[row], fontsize=9, labelpad=3)
    bar_axes = figure.add_axes(
        (1 - 0.82 * right / size[0], bottom / size[1], 0.14 / size[0], 1 - (top + bottom) / size[1])
    )
    rain_bar(figure, bar_axes, drawn, units, side * deep)
    figure.suptitle(title, fontsize=12, x=left / size[0], y=1 - 0.1 / size[1], ha="left", va="top")
    return figure


def _image(field: Tensor, valid: Tensor) -> np.ma.MaskedArray:
    return image(field.detach().float().cpu().numpy(), valid.cpu().numpy())
