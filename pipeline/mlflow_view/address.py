"""Where runs are recorded, whether it answers, and how a person looks at it."""

from __future__ import annotations

import base64
import http.client
import os
import urllib.parse
import urllib.request
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipeline.config import TrackingSettings
from pipeline.environment import without_secrets
from pipeline.errors import UserError
from pipeline.storage.files import join, locked, resolve


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


def ui_address(uri: str) -> str:
    """Give where the UI is, or will be once the command of `how_to_look` runs; no slash at its end."""
    return "http://127.0.0.1:5000" if uri.startswith("sqlite:") else without_secrets(uri).rstrip("/")


def first_use(uri: str) -> AbstractContextManager[None]:
    """Let one process at a time open a sqlite file: at the first use MLflow makes its tables."""
    if not uri.startswith("sqlite:///"):
        return nullcontext()
    path = uri.removeprefix("sqlite:///")
    return locked(f"{path}.lock", f"MLflow {uri}: another process has been opening it for long", 120.0)


def artifacts(uri: str, output: str) -> str | None:
    """Give where artifacts go: a server knows that itself."""
    if uri.startswith(("http://", "https://")):
        return None
    folder = resolve(join(output, "mlartifacts"))
    return folder if "://" in folder else Path(folder).as_uri()
