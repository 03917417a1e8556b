"""The pictures of a report that need ensembles once more: telling windows of each pair, and a film."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pipeline.data.windows import Windows
from pipeline.evaluation import figures
from pipeline.evaluation.candidates import Candidate
from pipeline.evaluation.held_out import seen_by
from pipeline.evaluation.pieces import PairScores
from pipeline.evaluation.report.charts import Picture
from pipeline.evaluation.showcase import chosen_windows, event, event_windows, window_panel
from pipeline.factors import FactorPair

_SAID = {"wettest": "wettest", "worst": "worst by CRPS", "median": "median by CRPS"}


@dataclass(frozen=True)
class Gallery:
    """The windows of one pair, seen by one of its models; members are those that were scored.

    Attributes
    ----------
    scores : PairScores
    model : Candidate
    device : torch.device
    """

    scores: PairScores
    model: Candidate
    device: torch.device

    @property
    def pair(self) -> FactorPair:
        """What the model refines by."""
        return self.scores.rivals.pair

    def panels(self) -> Iterator[Picture]:
        """Draw the wettest, the worst and the median window."""
        pair, store, windows = self.pair, self.scores.rivals.data.store, self._windows()
        units, config = store.info.units, self.model.config
        crps = self.scores.windows[self.model.label].crps.tolist()
        for name, index in self._chosen().items():
            time, row, column = windows.places[index].tolist()
            when = str(store.times[time]).replace("T", " ")
            content = window_panel(
                self.model.saved.model.to(self.device),
                windows,
                index,
                config.sampling,
                seed=config.seed,
                device=self.device,
                title=f"{pair}, {_SAID[name]}: {when} UTC, row {row}, column {column}",
                units=units,
            )
            yield Picture(
                f"window-{name}-{pair}",
                content,
                f"Coarse frame, truth, bicubic, mean, members and spread of a window of pair {pair}: "
                f"{_SAID[name]}",
                f"{pair}, {_SAID[name]} of {len(windows)} windows: CRPS {crps[index]:.3g} {units}. One scale "
                "for all panels; white is dry, grey is missing.",
            )

    def film(self) -> Picture:
        """Animate consecutive windows at the place of the wettest one."""
        pair, store, config = self.pair, self.scores.rivals.data.store, self.model.config
        windows = event_windows(self._windows(), next(iter(self._chosen().values())))
        drawn = event(
            self.model.saved.model.to(self.device),
            windows,
            config.sampling,
            seed=config.seed,
            device=self.device,
            info=store.info,
        )
        return Picture(
            f"event-{pair}",
            figures.animation(drawn, f"{store.info.name}, {pair}", store.info.units),
            f"Animation of {len(drawn.labels)} frames: coarse frame, truth, bicubic and two members, pair "
            f"{pair}",
            f"{pair}: {len(windows)} consecutive coarse frames at one place. Each is refined by an ensemble "
            "of its own; members are not tied together in time.",
        )

    def _chosen(self) -> dict[str, int]:
        known = self.scores.windows[self.model.label]
        return chosen_windows(known.amount.tolist(), known.crps.tolist())

    def _windows(self) -> Windows:
        """Give the pair's windows as the model sees them."""
        return seen_by(self.model.saved.model.spec, self.scores.rivals.windows)
