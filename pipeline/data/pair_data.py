"""Everything about one factor pair that is read off the store before any training."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.config import DataSettings, ScoringSettings
from pipeline.data.coarsen import block_mean, whole_cells
from pipeline.data.scaling import ValueTransform
from pipeline.data.splits import Segment, SplitName, longest_context, split_time
from pipeline.data.store import FieldStore
from pipeline.data.windows import FieldView, Windows, check_divides, find_windows, thin
from pipeline.errors import UserError
from pipeline.factors import FactorPair

_FIT_FRAMES = 64  # coarse frames, evenly over the training period, that the transform is fitted to


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
    """

    store: FieldStore
    pair: FactorPair
    max_context: int
    transform: ValueTransform
    scale: float
    settings: DataSettings
    segments: dict[SplitName, Segment]
    _found: dict[SplitName, Windows] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def prepare(
        cls, store: FieldStore, pair: FactorPair, settings: DataSettings, wanted_context: int
    ) -> PairData:
        """Check that the pair fits the store, and fit the transform to the training period.

        Raises
        ------
        UserError
            If it does not fit, or the training period is dry.
        """
        frames, height, width = store.field.shape
        check_divides(pair, settings, height, width)
        segments = split_time(frames, settings.split)
        max_context = longest_context(segments, pair, wanted_context)
        view = _view(store, segments["train"], settings.memory_gib)
        values, scale = [], 0.0
        for frames_read in _sampled_frames(view, segments["train"], pair):
            mask = torch.isfinite(frames_read)
            values.append(frames_read[mask])
            scale = max(scale, float(block_mean(frames_read, mask, pair)[0].max()))
        if not scale > 0:
            raise UserError(
                f"factor pair {pair}: no coarse value of the training period is wet; give a longer period"
            )
        transform = ValueTransform.fit(torch.cat(values), settings.transform, settings.wet_threshold)
        return cls(store, pair, max_context, transform, scale, settings, segments)

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
            view = _view(self.store, segment, self.settings.memory_gib)
            self._found[split] = find_windows(
                view, segment, self.pair, self.settings, context=1, margin=self.max_context, dense=dense
            )
        return self._found[split].with_context(context)


def _view(store: FieldStore, segment: Segment, memory_gib: float) -> FieldView:
    """Load a split; all pairs of a process share it."""
    return _cached_view(store.url, store.info.fingerprint, segment, memory_gib)


@functools.lru_cache(maxsize=3)  # the three splits of one store
def _cached_view(url: str, fingerprint: str, segment: Segment, memory_gib: float) -> FieldView:
    return FieldView.load(FieldStore.open(url), segment, memory_gib)


def _sampled_frames(view: FieldView, segment: Segment, pair: FactorPair) -> Iterator[Tensor]:
    """Give up to 64 groups of tau fine frames (tau, H, W), cut to whole coarse cells."""
    starts = torch.linspace(segment.start, segment.stop - pair.time, _FIT_FRAMES).long().unique().tolist()
    for start in starts:
        yield whole_cells(view.read(start, start + pair.time), pair)
