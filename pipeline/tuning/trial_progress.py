"""What a trial has been through: its rungs and the steps it trained."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping

from pipeline.ranks import Ranks
from pipeline.storage.files import exists, read_text, write_text
from pipeline.training.loop import StepReport

log = logging.getLogger(__name__)


class PrunedError(Exception):
    """Ends the training at a rung; nothing went wrong."""


class TrialProgress:
    """What a trial has been through, kept in a file: a resumed training repeats neither rungs nor stages.

    Attributes
    ----------
    rungs : dict
        CRPS by step.
    trained : dict
        Steps by stage, of the stages that did not come from the cache.
    """

    def __init__(
        self,
        url: str,
        limits: Mapping[int, float | None],
        tell: Callable[[int, float], None] | None,
        ranks: Ranks,
    ) -> None:
        self.url, self._limits, self._tell, self._ranks = url, limits, tell, ranks
        self.rungs: dict[int, float] = {}
        self.trained: dict[str, int] = {}

    def restore(self) -> None:
        """Go on from what an earlier attempt at the trial has left."""
        self.rungs, self.trained = self._ranks.agree(self._kept() if self._ranks.main else ({}, {}))

    def _kept(self) -> tuple[dict[int, float], dict[str, int]]:
        if not exists(self.url):
            return {}, {}
        try:
            kept = json.loads(read_text(self.url))
            rungs = {int(step): float(crps) for step, crps in kept["rungs"].items()}
            return rungs, dict(kept["trained"])
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("%s is damaged; the trial's rungs are looked at again where it can", self.url)
            return {}, {}

    def report(self, step: StepReport) -> None:
        """Count the steps of a stage."""
        if step.cached:  # from the cache; an earlier attempt of this trial may have put it there
            return
        self.trained[step.stage] = step.step
        if step.step == step.steps:
            self._save()

    def look(self, step: int, score: Callable[[], float]) -> None:
        """Score the model at a rung; ends the training if it is not good enough to go on."""
        if step not in self.rungs:
            crps = score()
            if not math.isfinite(crps):
                raise FloatingPointError(f"CRPS is {crps} after step {step}")
            self.rungs[step] = crps
            self._save()
        limit = self._limits[step]
        if self._tell and self._ranks.main:
            self._tell(step, self.rungs[step])
        if limit is not None and self.rungs[step] > limit:
            raise PrunedError

    def _save(self) -> None:
        if self._ranks.main:
            write_text(self.url, json.dumps({"rungs": self.rungs, "trained": self.trained}))
