"""What MLflow is told. With `registry`, the only file that knows MLflow.

The driver alone writes, so one process owns every run and can end it. A sweep that is started again finds its
runs by their `finescale.key` and goes on with them.
"""

from __future__ import annotations

import base64
import http.client
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline import __version__
from pipeline.config import TrackingSettings
from pipeline.environment import without_secrets
from pipeline.errors import UserError
from pipeline.files import join, resolve

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI's view for training runs
KEY, SWEEP, PARENT = "finescale.key", "finescale.sweep", "mlflow.parentRunId"


def tracking_uri(settings: TrackingSettings, output: str) -> str:
    """Resolve where runs go: the configured URI, MLFLOW_TRACKING_URI, or sqlite under `output`."""
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    if "://" in output:
        raise UserError(
            f"output {output}: runs cannot be kept in sqlite on a remote output; give the MLflow server with "
            "--tracking-uri"
        )
    return default_uri(output)


def default_uri(output: str) -> str:
    """Give the database under a local output folder."""
    return f"sqlite:///{output}/mlflow.db"


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
    """Runs of one sweep.

    Parameters
    ----------
    uri : str
    experiment : str
    output : str
        Where artifacts go when the database is local.
    tags : mapping
        Put on every run.
    """

    def __init__(self, uri: str, experiment: str, output: str, tags: Mapping[str, str]) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        self.uri = uri
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            mlflow.set_tracking_uri(uri)
            self.client = mlflow.MlflowClient(tracking_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
            self.experiment_id: str = (
                found.experiment_id
                if found
                else self.client.create_experiment(experiment, _artifacts(uri, output), _EXPERIMENT_TAGS)
            )
        except MlflowException as error:
            reason = without_secrets(" ".join(str(error).split())[:300])
            raise UserError(f"MLflow {without_secrets(uri)}: {reason}") from error
        if found and found.lifecycle_stage != "active":
            raise UserError(
                f"MLflow {without_secrets(uri)}: experiment {experiment!r} is deleted there; restore it, or "
                "give another with --set tracking.experiment=NAME"
            )
        self._tags = {
            **tags,
            "finescale.version": __version__,
            "mlflow.source.name": Path(sys.argv[0]).name,
            **_git_commit(),
        }
        self._open: set[str] = set()
        self._existing = self._find_existing(tags[SWEEP])

    def _find_existing(self, sweep: str) -> dict[str, str]:
        """Find this sweep's earlier runs by key; those that a killed driver left RUNNING are ended."""
        from mlflow.entities import ViewType

        existing: dict[str, str] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], f"tags.`{SWEEP}` = '{sweep}'", ViewType.ACTIVE_ONLY, page_token=token
            )
            for run in page:
                existing[run.data.tags.get(KEY, "")] = run.info.run_id
                if run.info.status == "RUNNING":
                    self.client.set_terminated(run.info.run_id, "KILLED")
            token = page.token
            if not token:
                return existing

    def start(
        self,
        key: str,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> str:
        """Begin a run, or go on with the one of an earlier start; gives its id."""
        all_tags = {**self._tags, **(tags or {}), KEY: key} | ({PARENT: parent} if parent else {})
        if key in self._existing:
            run_id = self._existing[key]
            self.client.update_run(run_id, status="RUNNING")
            for tag, value in all_tags.items():
                self.client.set_tag(run_id, tag, value)
        else:
            run_id = self.client.create_run(self.experiment_id, tags=all_tags, run_name=name).info.run_id
            self._existing[key] = run_id
            self._params(run_id, params or {})
        self._open.add(run_id)
        return run_id

    def _params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])

    def metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record values; what is not finite is left out, a chart could not show it."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [
            Metric(name, float(value), now, step) for name, value in metrics.items() if math.isfinite(value)
        ]
        self._safely(lambda: self.client.log_batch(run_id, metrics=batch))

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run."""
        from mlflow.entities import RunTag

        batch = [RunTag(name, value) for name, value in tags.items()]
        self._safely(lambda: self.client.log_batch(run_id, tags=batch))

    def text(self, run_id: str, name: str, content: str) -> None:
        """Store a text file with a run."""
        self._safely(lambda: self.client.log_text(run_id, content, name))

    def image(self, run_id: str, name: str, png: bytes) -> None:
        """Store a picture with a run."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(png)
            self._safely(lambda: self.client.log_artifact(run_id, str(path), str(Path(name).parent)))

    def end(self, run_id: str, status: Status) -> None:
        """End a run with the truth about it."""
        self._open.discard(run_id)
        self._safely(lambda: self.client.set_terminated(run_id, status))

    def end_all(self, status: Status) -> None:
        """End every run that is still open."""
        for run_id in sorted(self._open):
            self.end(run_id, status)

    @staticmethod
    def _safely(write: Callable[[], Any]) -> None:
        """Write; a server that fails in mid-sweep costs a record and a warning, not the sweep."""
        from mlflow.exceptions import MlflowException

        try:
            write()
        except (MlflowException, OSError) as error:
            log.warning("MLflow did not take a record: %s", " ".join(str(error).split())[:200])


def _artifacts(uri: str, output: str) -> str | None:
    """Give where artifacts go: a server knows that itself."""
    if uri.startswith(("http://", "https://")):
        return None
    folder = resolve(join(output, "mlartifacts"))
    return folder if "://" in folder else Path(folder).as_uri()


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
