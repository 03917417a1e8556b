"""Ray Tune's view of the studies: all pairs of a sweep share one run of Tune."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from pipeline.factors import FactorPair
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.study import PairStudy


class StudySearcher(Searcher):
    """Hand out trials of the pair that is furthest behind, and record their ends.

    Ray's own OptunaSearch holds one study, tells stopped trials as complete and enqueues its first points
    again at every restart; the studies here know better, so this class only passes messages.

    Parameters
    ----------
    studies : mapping of FactorPair to PairStudy
    """

    def __init__(self, studies: dict[FactorPair, PairStudy]) -> None:
        super().__init__(metric="crps", mode="min")
        self._studies = studies
        self._asked: dict[str, tuple[FactorPair, int]] = {}
        self._error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything behind: Tune keeps a copy for restoring a run, and the studies know better."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Give the next trial, None while there is nothing to start, FINISHED when all is done."""
        if self._error is not None:
            raise self._error
        studies = self._studies.values()
        ready = [study for study in studies if study.ready]
        if not ready:
            idle = all(study.missing == 0 and study.running == 0 for study in studies)
            return Searcher.FINISHED if idle else None
        proposal = min(ready, key=lambda study: study.done + study.running).ask()
        self._asked[trial_id] = (proposal.pair, proposal.number)
        return {
            "pair": str(proposal.pair),
            "number": proposal.number,
            "parameters": proposal.parameters.model_dump(mode="json"),
            "limits": list(proposal.limits.items()),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record a trial's end."""
        if trial_id not in self._asked:
            return
        pair, number = self._asked.pop(trial_id)
        try:
            if error or not result or "outcome" not in result:
                self._studies[pair].tell_killed(number)  # its process died, or it stopped before its score
            else:
                self._studies[pair].tell(number, Outcome.model_validate_json(result["outcome"]))
        except Exception as failure:  # Tune would only log it, and the sweep wait for this trial for ever
            self._error = failure
            raise

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to do: progress is for people."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the studies' storage is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do."""
