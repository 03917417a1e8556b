"""Everything about one factor pair that is read off the store before any training."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pipeline.config import DataSettings, ScoringSettings
from pipeline.data.coarsen import block_mean, whole_cells
from pipeline.data.covariates import Covariate, Covariates, chosen_names, coarse_covariate
from pipeline.data.scaling import ValueTransform
from pipeline.data.splits import Segment, SplitName, longest_context, split_time
from pipeline.data.view import FieldView
from pipeline.data.window_index import find_windows
from pipeline.data.windows import Windows, check_divides, thin
from pipeline.errors import UserError
from pipeline.factors import FactorPair
from pipeline.store.field_store import FieldStore

_FIT_FRAMES = 64  # coarse frames, evenly over the training period, that everything is fitted to
_FIT_VALUES = 2**24  # of their fine values at most, evenly spread, that the transform is fitted to
_BAND_VALUES = 2**24  # looked at together: a few frames of a country may not fit into memory


@dataclass(frozen=True)
class PairData:
    """Windows and training statistics of one pair.

    Attributes
    ----------
    store : FieldStore
    pair : FactorPair
    max_context : int
        Largest L that may be asked for; scored targets are the same for all of them.
    transform : ValueTransform
    scale : float
        Largest coarse value among the training frames looked at.
    covariates : Covariates
        Those that the windows have, standardised by these numbers.
    """

    store: FieldStore
    pair: FactorPair
    max_context: int
    transform: ValueTransform
    scale: float
    covariates: Covariates
    settings: DataSettings
    segments: dict[SplitName, Segment]
    _found: dict[SplitName, Windows] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def prepare(
        cls, store: FieldStore, pair: FactorPair, settings: DataSettings, wanted_context: int
    ) -> PairData:
        """Check that the pair fits the store, and fit transform and covariates to the training period.

        Raises
        ------
        UserError
            If it does not fit, the training period is dry, or the store lacks a covariate of the settings.
        """
        frames, height, width = store.shape
        check_divides(pair, settings, height, width)
        statics, dynamics = chosen_names(store.info, settings.statics, settings.dynamics)
        segments = split_time(frames, settings.split)
        max_context = longest_context(segments, pair, wanted_context)
        train = segments["train"]
        view = _view(store, train, settings.memory_gib, settings.cache_gib)
        values, scale = [], 0.0
        every = math.ceil(len(_sampled_starts(train, pair)) * pair.time * height * width / _FIT_VALUES)
        for frames_read in _sampled(view, train, pair):
            mask = torch.isfinite(frames_read)
            values.append(frames_read[mask][::every].clone())  # a slice would keep all of them
            scale = max(scale, float(block_mean(frames_read, mask, pair)[0].max()))
        if not scale > 0:
            raise UserError(
                f"factor pair {pair}: no coarse value of the training period is wet; give a longer period"
            )
        transform = ValueTransform.fit(torch.cat(values), settings.transform, settings.wet_threshold)
        covariates = Covariates(
            statics=tuple(Covariate.fit(name, [view.static(name)]) for name in statics),
            dynamics=tuple(Covariate.fit(name, _coarse_values(view, train, pair, name)) for name in dynamics),
        )
        return cls(store, pair, max_context, transform, scale, covariates, settings, segments)

    def training_windows(self, context: int) -> Windows:
        """Give every training window, for L = `context`."""
        return self._windows("train", context, dense=True)

    def scored_windows(self, split: SplitName, context: int, scoring: ScoringSettings, seed: int) -> Windows:
        """Give the windows that scores stand on: at most as many as asked for, the same for every L."""
        count = scoring.test_windows if split == "test" else scoring.windows
        return thin(self._windows(split, context, dense=False), count, seed)

    def _windows(self, split: SplitName, context: int, dense: bool) -> Windows:
        if context > self.max_context:  # it would quietly reach into the split before
            raise ValueError(f"context {context} is above {self.max_context}, the largest prepared for")
        if split not in self._found:  # targets do not depend on L: every trial of a process shares one search
            segment = self.segments[split]
            view = _view(self.store, segment, self.settings.memory_gib, self.settings.cache_gib)
            found = find_windows(
                view, segment, self.pair, self.settings, context=1, margin=self.max_context, dense=dense
            )
            self._found[split] = replace(found, covariates=self.covariates)
        return self._found[split].with_context(context)


@functools.lru_cache(maxsize=3)  # the three splits of one store
def _view(store: FieldStore, segment: Segment, memory_gib: float, cache_gib: float) -> FieldView:
    """Load a split; all pairs of a process share it."""
    return FieldView.load(store, segment, memory_gib, cache_gib)


def _sampled_starts(segment: Segment, pair: FactorPair) -> list[int]:
    starts = torch.linspace(segment.start, segment.stop - pair.time, _FIT_FRAMES).long().unique()
    return [int(start) for start in starts]


def _sampled(
    view: FieldView, segment: Segment, pair: FactorPair, variable: str | None = None
) -> Iterator[Tensor]:
    """Give up to 64 groups of tau fine frames, in bands of whole coarse cells: (tau, rows, W) each."""
    _, height, width = view.shape
    band = max(1, _BAND_VALUES // (pair.time * width * pair.space)) * pair.space
    for start in _sampled_starts(segment, pair):
        for top in range(0, height // pair.space * pair.space, band):
            rows = slice(top, min(top + band, height))
            yield whole_cells(view.read(start, start + pair.time, rows, variable=variable), pair)


def _coarse_values(view: FieldView, segment: Segment, pair: FactorPair, variable: str) -> Iterator[Tensor]:
    """Give the known coarse values of a dynamic covariate: its variance is that of what a model sees."""
    for frames in _sampled(view, segment, pair, variable):
        values, known = coarse_covariate(frames, pair)
        yield values[known]
