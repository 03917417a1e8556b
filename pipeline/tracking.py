"""What MLflow is told. With `delivery` and `registry`, the only file that knows MLflow.

The driver alone writes, so one process owns every run and can end it. A sweep that is started again finds its
runs by their `finescale.key` and goes on with them. What is recorded goes through an outbox: the driver never
waits for the server, and nothing is lost while it does not answer.
"""

from __future__ import annotations

import base64
import http.client
import math
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline import __version__
from pipeline.config import TrackingSettings
from pipeline.delivery import KEY, PARENT, SWEEP, Delivery
from pipeline.environment import without_secrets
from pipeline.errors import UserError
from pipeline.files import join, locked, resolve
from pipeline.outbox import Outbox

__all__ = [
    "KEY",
    "PARENT",
    "SWEEP",
    "Status",
    "Tracker",
    "check_reachable",
    "default_uri",
    "how_to_look",
    "tracking_uri",
]

Status = Literal["FINISHED", "FAILED", "KILLED"]
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI's view for training runs


def tracking_uri(settings: TrackingSettings, output: str) -> str:
    """Resolve where runs go: the configured URI, MLFLOW_TRACKING_URI, or sqlite under `output`."""
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    if "://" in output:
        raise UserError(
            f"output {output}: runs cannot be kept in sqlite on a remote output; give the MLflow server or a "
            "local database with --tracking-uri, as in --tracking-uri sqlite:////ABSOLUTE/PATH/mlflow.db"
        )
    return default_uri(output)


def default_uri(output: str) -> str:
    """Give the database under a local output folder."""
    return f"sqlite:///{output}/mlflow.db"


def how_to_look(uri: str, output: str) -> str:
    """Say how a person sees the runs."""
    if uri == default_uri(output):
        return f"make ui OUTPUT={output}, then open http://127.0.0.1:5000"
    if uri.startswith("sqlite:"):
        return f"mlflow server --backend-store-uri {uri}, then open http://127.0.0.1:5000"
    return f"open {without_secrets(uri)}"


def check_reachable(uri: str) -> None:
    """Ask a server for its health.

    Raises
    ------
    UserError
        If it does not answer, so that nothing is begun that could not be recorded.
    """
    if not uri.startswith(("http://", "https://")):
        return
    parts = urllib.parse.urlsplit(uri)
    login, _, host = parts.netloc.rpartition("@")  # urllib would take a password for a port
    request = urllib.request.Request(f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health")
    if login:
        token = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=10):
            return
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise UserError(
            f"MLflow server {without_secrets(uri)}: not reachable ({reason}); start it, or leave "
            "--tracking-uri out to use a local database"
        ) from error


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
        with _first_use(uri):
            self._open(experiment, output, tags)
        self._outbox = Outbox(
            None if "://" in output else join(resolve(output), "tracking", f"{tags[SWEEP]}.jsonl"),
            self._delivery,
            server=f"MLflow {without_secrets(uri)}",
        )
        self._settle()

    def _open(self, experiment: str, output: str, tags: Mapping[str, str]) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        uri = self.uri
        try:
            mlflow.set_tracking_uri(uri)
            self.client = mlflow.MlflowClient(tracking_uri=uri)
            self.experiment_id = self._experiment(experiment, _artifacts(uri, output))
            self._delivery = Delivery(self.client, self.experiment_id, {**tags, **_code_tags()})
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

        Returns
        -------
        str
            The key.
        """
        self._put(
            "start", key, name=name, parent=parent, tags=_texts(tags or {}), params=_texts(params or {})
        )
        self._status[key] = "RUNNING"
        return key

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

    def register(self, run: str, model_url: str, name: str, *, crps: float, scored_on: str) -> None:
        """Store a model with its run and register it; `registered` tells what came of it."""
        score = {"crps": float(crps), "scored_on": scored_on}
        self._put("register", run, model_url=model_url, name=name, **score)

    def end(self, run: str, status: Status) -> None:
        """End a run with the truth about it."""
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
        return self._outbox.close(timeout)

    def _put(self, kind: str, key: str, **content: Any) -> None:
        self._outbox.put({"kind": kind, "key": key, "time": int(time.time() * 1000), **content})


def _first_use(uri: str) -> AbstractContextManager[None]:
    """Let one process at a time open a sqlite file: at the first use MLflow makes its tables."""
    if not uri.startswith("sqlite:///"):
        return nullcontext()
    path = uri.removeprefix("sqlite:///")
    return locked(f"{path}.lock", f"MLflow {uri}: another process has been opening it for long", 120.0)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _artifacts(uri: str, output: str) -> str | None:
    """Give where artifacts go: a server knows that itself."""
    if uri.startswith(("http://", "https://")):
        return None
    folder = resolve(join(output, "mlartifacts"))
    return folder if "://" in folder else Path(folder).as_uri()


def _code_tags() -> dict[str, str]:
    """Say what made the runs."""
    return {
        "finescale.version": __version__,
        "mlflow.source.name": Path(sys.argv[0]).name,
        **_git_commit(),
    }


def _git_commit() -> dict[str, str]:
    """Give the commit this code is at, if it is a checkout."""
    try:
        folder = Path(__file__).parent
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": done.stdout.strip()}
