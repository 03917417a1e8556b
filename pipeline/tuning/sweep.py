"""A sweep under way: one study per factor pair, all on one Ray cluster, everything recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline import environment
from pipeline.config import Config
from pipeline.factors import FactorPair
from pipeline.mlflow_view.recipe_values import pair_tags
from pipeline.mlflow_view.views import trials_view
from pipeline.store.field_store import FieldStore
from pipeline.tracking import NOTE, ROLE, TrackedData, Tracker
from pipeline.tuning.claims import LeasedClaims, RemoteClaims
from pipeline.tuning.kept import without_addresses
from pipeline.tuning.notes import open_study_note, sweep_note
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
        self.tracker.use_data(TrackedData.of(self.store))
        new = self.tracker.status(self.name) is None
        self._start_run(self.name, "sweep", f"sweep {self.name}", {}, {})
        config = environment.without_secrets(self.config.to_yaml())
        self.tracker.text(self.name, "config.yaml", config)
        self.found = {study.name: self.tracker.status(study.name) for study in self.studies.values()}
        for pair, study in self.studies.items():
            params = {"pair": pair, "space": pair.space, "time": pair.time}
            # What an earlier start has found stays described until it is found anew.
            note = {} if self.found[study.name] else {NOTE: open_study_note(self.name, pair)}
            self._start_run(study.name, "study", f"{pair} study", params, {**pair_tags(pair), **note})
            self.tracker.view(trials_view(self.name, pair))
            settle(self.tracker, study)
        if new:
            info, said = self.store.info, dict.fromkeys(self.studies, "no score yet")
            self.tracker.note(self.name, sweep_note(self.name, info.name, info.units, [], said))

    def _start_run(
        self, key: str, role: str, name: str, params: dict[str, Any], tags: dict[str, str]
    ) -> None:
        self.tracker.start(key, name, tags={ROLE: role, **tags}, params=params)

    def trial_job(self) -> TrialJob:
        """Give what all trials have in common, with an actor that keeps their claims."""
        import ray

        # Should the actor die, its claims do: at worst a stage is trained twice.
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(LeasedClaims).remote()
        config = without_addresses(self.config)
        return TrialJob(
            config, self.store, self.name, RemoteClaims(actor), cpus=self.config.tuning.cpus_per_trial
        )
