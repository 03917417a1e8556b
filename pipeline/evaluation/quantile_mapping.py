"""Quantile mapping: bicubic whose values are given the distribution of the truth, fitted on training windows.

The classical statistical correction of a model's output (Themessl et al. 2012, doi:10.1007/s10584-011-0224-4;
Gudmundsson et al. 2012, doi:10.5194/hess-16-3383-2012): x becomes F_truth^-1(F_bicubic(x)), with empirical
distributions over all pixels. It gives each pixel its value by rank, so it mends the intensities that bicubic
smooths away, but not where it rains, and conserves no amount.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.windows import Windows
from pipeline.errors import UserError
from pipeline.evaluation.baselines import bicubic
from pipeline.factors import FactorPair

_FORMAT = "finescale-quantile-mapping"
_MOST_WINDOWS = 1000
_MOST_VALUES = 2**24  # of each field
_BEYOND = 10  # values that lie above the last level at least: the largest ones alone are noise
_FEWEST = 100


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class QuantileMapping:
    """A monotone map from bicubic's values to the truth's; called as the other baselines are.

    Attributes
    ----------
    pair : FactorPair
        What it was fitted for.
    levels : ndarray
        (K,) float64, increasing, in [0, 1).
    modelled, observed : ndarray
        (K,) float64, quantiles of bicubic and of the truth at these levels, in the field's units.
    values : int
        How many pixels they were taken from.
    """

    pair: FactorPair
    levels: np.ndarray
    modelled: np.ndarray
    observed: np.ndarray
    values: int

    def __post_init__(self) -> None:
        for name in ("levels", "modelled", "observed"):
            one = getattr(self, name)
            if one.shape != self.levels.shape or one.ndim != 1 or not one.size or not np.isfinite(one).all():
                raise ValueError(f"{name}: wanted {self.levels.size} finite numbers")
            if (np.diff(one) < 0).any() or one[0] < 0:
                raise ValueError(f"{name}: must not be negative and must not decrease")

    def apply(self, field: Tensor) -> Tensor:
        """Map values of bicubic.

        Between the quantiles the map is linear. Values up to 0 become 0: dry stays dry. Above the last
        quantile its correction is added to all values (Boe et al. 2007, doi:10.1002/joc.1602).

        Parameters
        ----------
        field : Tensor
            Any shape, in the field's units.

        Returns
        -------
        Tensor
            Of the same shape and kind; it never decreases where `field` increases, and is never negative.
            NaN stays NaN.
        """
        x, y = self._knots()
        values = field.detach().double().cpu().numpy()
        mapped = np.interp(values, x, y)
        mapped = np.where(values > x[-1], values + (y[-1] - x[-1]), mapped)
        mapped = np.where(values <= 0, 0.0, mapped)
        return torch.from_numpy(mapped).to(field)

    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the points that the map runs through, x strictly increasing from 0.

        Many levels share one value of bicubic. Where that is 0, the last of them counts: there the dry part
        ends. Elsewhere the truth's mean over the shared levels does.
        """
        x, group, count = np.unique(self.modelled, return_inverse=True, return_counts=True)
        y = np.bincount(group, weights=self.observed) / count
        if x[0] > 0:
            return np.append(0.0, x), np.append(0.0, y)
        y[0] = self.observed[self.modelled == 0][-1]
        return x, y

    def __call__(self, coarse_context: Tensor, pair: FactorPair, mask: Tensor | None = None) -> Tensor:
        """Interpolate as `bicubic` and map the values; arguments as there.

        Returns
        -------
        Tensor
            (B, T, H, W), never negative.
        """
        if pair != self.pair:
            raise ValueError(f"fitted for {self.pair}, not for {pair}")
        return self.apply(bicubic(coarse_context, pair, mask))

    @classmethod
    def from_values(cls, pair: FactorPair, modelled: np.ndarray, observed: np.ndarray) -> QuantileMapping:
        """Fit to the values of the same pixels.

        Parameters
        ----------
        pair : FactorPair
        modelled, observed : ndarray
            (N,), bicubic and truth; negative values count as 0.

        Raises
        ------
        UserError
            With fewer than 100 pixels.
        """
        size = len(modelled)
        if size < _FEWEST or len(observed) != size:
            raise UserError(
                f"factor pair {pair}: {size} valid training pixels are too few to fit a quantile mapping to; "
                f"give a training period with at least {_FEWEST}"
            )
        levels = _levels(size)
        quantiles = [
            np.quantile(np.maximum(one, 0).astype(np.float64), levels) for one in (modelled, observed)
        ]
        # Interpolation between equal values may decrease by a rounding error.
        low, high = (np.maximum.accumulate(one) for one in quantiles)
        return cls(pair, levels, low, high, size)

    @classmethod
    def fit(
        cls, windows: Windows, *, batch: int = 8, most_values: int = _MOST_VALUES, seed: int = 0
    ) -> QuantileMapping:
        """Fit to training windows: up to 1000, evenly spread, and up to `most_values` of their pixels.

        Parameters
        ----------
        windows : Windows
            Of the training split, with any context.
        batch : int
            Windows read at once; does not change the map.
        most_values : int
            If the windows have more pixels, the same number is drawn from each.
        seed : int
            Of that draw.

        Raises
        ------
        UserError
            If hardly any pixel is valid.
        """
        windows = windows.with_context(1)
        chosen = np.unique(np.linspace(0, len(windows) - 1, min(len(windows), _MOST_WINDOWS)).round())
        pixels = windows.pair.time * windows.patch**2
        each = min(pixels, max(1, most_values // len(chosen)))
        rng = np.random.default_rng(seed)
        modelled, observed = [], []
        for first in range(0, len(chosen), batch):
            part = windows.batch(chosen[first : first + batch].astype(int))
            smooth = bicubic(part.coarse, windows.pair, part.coarse_mask)
            for x, y, valid in zip(smooth, part.fine, part.mask, strict=True):
                drawn = np.arange(pixels) if each == pixels else rng.choice(pixels, each, replace=False)
                drawn = drawn[valid.numpy().ravel()[drawn]]
                modelled.append(x.numpy().ravel()[drawn])
                observed.append(y.numpy().ravel()[drawn])
        return cls.from_values(windows.pair, np.concatenate(modelled), np.concatenate(observed))

    def to_json(self) -> str:
        """Write the map; `from_json` gives the same numbers to the bit."""
        content = {"format": _FORMAT, "version": 1, "pair": str(self.pair), "values": self.values}
        arrays = {name: getattr(self, name).tolist() for name in ("levels", "modelled", "observed")}
        return json.dumps(content | arrays) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str) -> QuantileMapping:
        """Read a map.

        Parameters
        ----------
        text : str
        name : str
            Of the file, for the error.

        Raises
        ------
        UserError
            If it is none, a newer one or damaged.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            if (content["format"], content["version"]) != (_FORMAT, 1):
                raise ValueError(f"its format is {content['format']}, version {content['version']}")
            arrays = {key: np.array(content[key], np.float64) for key in ("levels", "modelled", "observed")}
            return cls(FactorPair.parse(content["pair"]), **arrays, values=int(content["values"]))
        except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(
                f"quantile mapping {name}: cannot be read ({type(error).__name__}: {error}); "
                "remove it, so that it is fitted again"
            ) from error


def _levels(size: int) -> np.ndarray:
    """Give levels in [0, 1): hundredths, then ever closer to 1 as far as `_BEYOND` values lie above."""
    last = 1 - _BEYOND / size
    tail = 1 - np.geomspace(0.01, min(0.01, 1 - last), 60)
    levels = np.union1d(np.linspace(0, 0.99, 100), tail)
    return levels[levels <= last + 1e-12]
