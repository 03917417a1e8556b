"""What MLflow is told. With `records.delivery` and `registry`, the only file that knows MLflow.

The driver alone writes, so one process owns every run and can end it. A sweep that is started again finds its
runs by their `finescale.key` and goes on with them. What is recorded goes through an outbox: the driver never
waits for the server, and nothing is lost while it does not answer.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pipeline.environment import without_secrets
from pipeline.errors import UserError
from pipeline.mlflow_view.address import (
    artifacts,
    check_reachable,
    default_uri,
    first_use,
    how_to_look,
    tracking_uri,
    ui_address,
)
from pipeline.mlflow_view.data_set import TrackedData
from pipeline.mlflow_view.machine import SystemWatch
from pipeline.mlflow_view.markdown import INTRODUCTION, NOTE
from pipeline.mlflow_view.source import code_tags
from pipeline.mlflow_view.views import EVALUATIONS, ROLE, VALUES, View, page_of_run, page_of_view
from pipeline.records.delivery import KEY, PARENT, SWEEP, Delivery
from pipeline.records.outbox import Outbox
from pipeline.storage.files import join, resolve

__all__ = [
    "KEY",
    "NOTE",
    "PARENT",
    "ROLE",
    "SWEEP",
    "Status",
    "TrackedData",
    "Tracker",
    "check_reachable",
    "default_uri",
    "how_to_look",
    "tracking_uri",
]

Status = Literal["FINISHED", "FAILED", "KILLED"]

_WATCHED = ("sweep", "training", "evaluation")  # the machine is sampled while one of these runs
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI's view for training runs


class Tracker:
    """Runs of one sweep, each addressed by its key.

    Parameters
    ----------
    uri : str
    experiment : str
    output : str
        Where artifacts go when the database is local, and what MLflow has not taken yet.
    tags : mapping
        Put on every run; `finescale.sweep` names the sweep.

    Raises
    ------
    UserError
        If MLflow does not answer now, or does not take the experiment.
    """

    def __init__(self, uri: str, experiment: str, output: str, tags: Mapping[str, str]) -> None:
        self.uri = uri
        with first_use(uri):
            self._open(experiment, output, tags)
        self._outbox = Outbox(
            None if "://" in output else join(resolve(output), "tracking", f"{tags[SWEEP]}.jsonl"),
            self._delivery,
            server=f"MLflow {without_secrets(uri)}",
        )
        self._data: TrackedData | None = None
        self._watches: dict[str, SystemWatch] = {}
        self._introduced = False
        self._settle()

    def _open(self, experiment: str, output: str, tags: Mapping[str, str]) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        uri = self.uri
        try:
            mlflow.set_tracking_uri(uri)
            self.client = mlflow.MlflowClient(tracking_uri=uri)
            self.experiment_id = self._experiment(experiment, artifacts(uri, output))
            self._delivery = Delivery(self.client, self.experiment_id, {**tags, **code_tags()})
            self._status, self._doubles = self._delivery.find()
        except MlflowException as error:
            reason = without_secrets(" ".join(str(error).split())[:300])
            raise UserError(f"MLflow {without_secrets(uri)}: {reason}") from error

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            made: str = self.client.create_experiment(name, artifacts, _EXPERIMENT_TAGS)
            return made
        if found.lifecycle_stage != "active":
            raise UserError(
                f"MLflow {without_secrets(self.uri)}: experiment {name!r} is deleted there; restore it, or "
                "give another with --set tracking.experiment=NAME"
            )
        there: str = found.experiment_id
        return there

    def _settle(self) -> None:
        """End what a killed driver left RUNNING, once what it left to deliver has been delivered."""
        for record in self._outbox.recovered:
            if record["kind"] in ("start", "end"):
                self._status[record["key"]] = record.get("status", "RUNNING")
        for run_id, key in self._doubles.items():
            self._put("discard", key, run_id=run_id)
        for key, status in self._status.items():
            if status not in get_args(Status):
                self.end(key, "KILLED")

    def start(
        self,
        key: str,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> str:
        """Begin a run, or go on with the one of an earlier start, whose parameters stay.

        Parameters
        ----------
        key : str
            What finds the run again.
        name : str
            For people.
        parent : str, optional
            Key of a run that was started before.
        tags, params : mapping, optional
            While a run with the role `sweep`, `training` or `evaluation` is open, this machine is sampled for
            its system metrics.

        Returns
        -------
        str
            The key.
        """
        self._put(
            "start",
            key,
            name=name,
            parent=parent,
            tags=_texts(tags or {}),
            params=_texts(params or {}),
            data=self._data.as_record() if self._data else None,
        )
        self._status[key] = "RUNNING"
        role = (tags or {}).get(ROLE)
        if role in _WATCHED and not self._introduced:
            self._introduce()
        if role in _WATCHED and key not in self._watches:
            self._watches[key] = SystemWatch(lambda values, step: self.metrics(key, values, step))
        return key

    def use_data(self, data: TrackedData) -> None:
        """Name the data set of all runs that are started from now on."""
        self._data = data

    def note(self, run: str, markdown: str) -> None:
        """Describe a run to a person; links to runs, views and models as in `mlflow_view.markdown.linked`."""
        self.tag(run, {NOTE: markdown})

    def view(self, view: View) -> str:
        """Keep an arranged table with the experiment, and give its address in the UI."""
        self._put("experiment", view.key, tag=view.tag, value=view.to_json(int(time.time() * 1000)))
        return self.address(view)

    def address(self, view: View, *, charts: bool = False) -> str:
        """Give the address of a view in the UI."""
        return f"{ui_address(self.uri)}/{page_of_view(self.experiment_id, view.key, charts=charts)}"

    def page(self, run: str) -> str | None:
        """Give the address of a run in the UI; None while MLflow has not heard of it."""
        run_id = self.run_id(run)
        return run_id and f"{ui_address(self.uri)}/{page_of_run(self.experiment_id, run_id)}"

    def _introduce(self) -> None:
        """Say on the experiment's page how to read it, unless a person has described it."""
        self._introduced = True
        for view in (VALUES, *EVALUATIONS.values()):
            self.view(view)
        self._put("experiment", "note", tag=NOTE, value=INTRODUCTION)

    def metrics(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record values; what is not finite is left out, a chart could not show it."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if finite:
            self._put("metrics", run, metrics=finite, step=int(step))

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run."""
        self._put("tag", run, tags=_texts(tags))

    def text(self, run: str, name: str, content: str) -> None:
        """Store a text file with a run."""
        self.artifact(run, name, content.encode())

    def artifact(self, run: str, name: str, content: bytes) -> None:
        """Store a file with a run, such as a picture."""
        self._put("artifact", run, name=name, content=base64.b64encode(content).decode())

    def register(
        self,
        run: str,
        model_url: str,
        name: str,
        *,
        crps: float,
        scored_on: str,
        interval: tuple[float, float] | None = None,
        validation: tuple[float, str] | None = None,
    ) -> None:
        """Store a model with its run and register it; `registered` tells what came of it.

        Parameters
        ----------
        run, model_url, name : str
        crps, scored_on, interval, validation
            See `pipeline.registry.register`.
        """
        score: dict[str, Any] = {"crps": float(crps), "scored_on": scored_on}
        if interval is not None and all(map(math.isfinite, interval)):
            score["interval"] = [float(end) for end in interval]
        if validation is not None:
            score["validation"] = [float(validation[0]), validation[1]]
        self._put("register", run, model_url=model_url, name=name, **score)

    def end(self, run: str, status: Status) -> None:
        """End a run with the truth about it."""
        if run in self._watches:
            self._watches.pop(run).stop()
        self._put("end", run, status=status)
        self._status[run] = status

    def end_all(self, status: Status) -> None:
        """End every run that is still open."""
        for key in sorted(key for key, now in self._status.items() if now == "RUNNING"):
            self.end(key, status)

    def status(self, key: str) -> str | None:
        """Tell how a run of this sweep stands, by what was recorded last; None: there is no such run."""
        return self._status.get(key)

    def run_id(self, key: str) -> str | None:
        """Give MLflow's id of a run; None while MLflow has not heard of it."""
        return self._delivery.run_ids.get(key)

    def registered(self, run: str) -> str | None:
        """Give `models:/NAME@ALIAS` of a run's model; None while MLflow has not registered it."""
        return self._delivery.registered.get(run)

    @property
    def pending(self) -> int:
        """Number of records that MLflow has not taken yet."""
        return self._outbox.pending

    def flush(self, timeout: float) -> bool:
        """Wait until MLflow has taken everything, at most `timeout` seconds; tells whether it has."""
        return self._outbox.flush(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Flush and stop; with a local output, what is left is delivered when the sweep is started again."""
        while self._watches:
            self._watches.popitem()[1].stop()
        return self._outbox.close(timeout)

    def _put(self, kind: str, key: str, **content: Any) -> None:
        self._outbox.put({"kind": kind, "key": key, "time": int(time.time() * 1000), **content})


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
