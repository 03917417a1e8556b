"""A sweep under way: one study per factor pair, all on one Ray cluster, everything recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline import environment
from pipeline.config import Config
from pipeline.data.store import FieldStore
from pipeline.factors import FactorPair
from pipeline.tracking import Tracker
from pipeline.tuning.claims import LeasedClaims, RemoteClaims
from pipeline.tuning.kept import without_addresses
from pipeline.tuning.runs import settle
from pipeline.tuning.study import PairStudy
from pipeline.tuning.trial import TrialJob


@dataclass
class Sweep:
    """A sweep under way.

    Attributes
    ----------
    config : Config
    store : FieldStore
    name : str
    tracker : Tracker
    studies : dict of FactorPair to PairStudy
        Of the pairs that are tuned now.
    others : dict of FactorPair to PairStudy
        Of pairs that the same sweep tuned before.
    found : dict
        How each study's run stood when the sweep was opened; None: there was none.
    """

    config: Config
    store: FieldStore
    name: str
    tracker: Tracker
    studies: dict[FactorPair, PairStudy]
    others: dict[FactorPair, PairStudy]
    found: dict[str, str | None] = field(default_factory=dict)

    def start_runs(self) -> None:
        """Open the runs of the sweep and its studies; those of ended trials are made to say so."""
        self._start_run(self.name, "sweep", f"sweep {self.name}", {})
        config = environment.without_secrets(self.config.to_yaml())
        self.tracker.text(self.name, "config.yaml", config)
        self.found = {study.name: self.tracker.status(study.name) for study in self.studies.values()}
        for pair, study in self.studies.items():
            params = {"pair": pair, "space": pair.space, "time": pair.time}
            self._start_run(study.name, "study", f"{pair} study", params)
            settle(self.tracker, study)

    def _start_run(self, key: str, role: str, name: str, params: dict[str, Any]) -> None:
        self.tracker.start(key, name, tags={"finescale.role": role}, params=params)

    def trial_job(self) -> TrialJob:
        """Give what all trials have in common, with an actor that keeps their claims."""
        import ray

        # Should the actor die, its claims do: at worst a stage is trained twice.
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(LeasedClaims).remote()
        config = without_addresses(self.config)
        return TrialJob(
            config, self.store, self.name, RemoteClaims(actor), cpus=self.config.tuning.cpus_per_trial
        )
