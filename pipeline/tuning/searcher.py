"""Ray Tune's view of the studies: all pairs of a sweep share one run of Tune."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from pipeline.factors import FactorPair
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

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Give the next trial, None while there is nothing to start, FINISHED when all is done."""
        waiting = [study for study in self._studies.values() if study.wanted > 0]
        if not waiting:
            return Searcher.FINISHED if all(study.done for study in self._studies.values()) else None
        study = min(waiting, key=lambda s: len(s.finished) + s.running)
        proposal = study.ask()
        self._asked[trial_id] = (proposal.pair, proposal.number)
        return {
            "pair": str(proposal.pair),
            "number": proposal.number,
            "parameters": proposal.parameters.model_dump(mode="json"),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record a trial's end."""
        if trial_id not in self._asked:
            return
        pair, number = self._asked.pop(trial_id)
        study = self._studies[pair]
        if error or not result:
            study.tell_killed(number)
        elif "failure" in result:
            study.tell_failure(number, result["failure"])
        elif "model_url" in result:
            # Tune flattens results for searchers: {"metrics": {"crps": ...}} comes as {"metrics/crps": ...}
            prefix = "metrics/"
            metrics = {
                name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)
            }
            study.tell(number, metrics, result["model_url"])
        else:
            study.tell_killed(number)  # it stopped before its score

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to do: progress is for people."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to do: the studies' storage is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to do."""
