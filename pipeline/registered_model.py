"""A registered model as the two files that it was made from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.environment import without_secrets
from pipeline.errors import UserError, one_line
from pipeline.mlflow_view.address import tracking_uri
from pipeline.model_file import CARD, WEIGHTS
from pipeline.storage.files import join, resolve, write_bytes, write_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.config import Config

SCHEME = "models:/"
ORIGIN = "registered.json"
"""Beside a registered model's files: its name, version and run."""


def fetch_registered(name: str, uri: str, output: str) -> str:
    """Copy a registered model's files to a folder.

    Parameters
    ----------
    name : str
        `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
    uri : str
        MLflow server or database.
    output : str
        The folder is `registered/NAME-ALIAS` below it.

    Returns
    -------
    str
        The folder.

    Raises
    ------
    UserError
        If MLflow has no such model, or it is none of ours.
    """
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    named = name.removeprefix(SCHEME)
    database = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not database.exists():  # MLflow would make an empty one
        raise UserError(f"model {name}: there is no database of runs at {database}; give --tracking-uri")
    with TemporaryDirectory() as there:
        try:
            # The version by the client: given `models:/`, MLflow asks the registry of the process instead.
            client = MlflowClient(uri, registry_uri=uri)
            version = _version(client, named)
            found = client.get_model_version_download_uri(version.name, version.version)
            folder = download_artifacts(found, dst_path=there, tracking_uri=uri)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"model {name}: MLflow {without_secrets(uri)} does not give it "
                f"({without_secrets(one_line(error))}); give its name as it was printed, and --tracking-uri"
            ) from error
        card = next(Path(folder).rglob(CARD), None)
        if card is None:
            raise UserError(f"model {name}: registered by something else; give a model of this package")
        url = join(output, "registered", re.sub(r"[^A-Za-z0-9._-]+", "-", named))
        for file in (WEIGHTS, CARD):
            write_bytes(join(url, file), card.with_name(file).read_bytes())
        origin = {"name": version.name, "version": str(version.version), "run_id": version.run_id}
        write_text(join(url, ORIGIN), json.dumps(origin))
    return url


def fetch_configured(name: str, config: Config, output: str) -> str:
    """Copy a registered model's files out of the MLflow that a configuration names.

    Parameters
    ----------
    name, output : str
        See `fetch_registered`.
    config : Config
        `tracking.uri`; without it and without MLFLOW_TRACKING_URI, the database in its `output`.

    Returns
    -------
    str
        The folder.

    Raises
    ------
    UserError
        If MLflow has no such model, or it is none of ours.
    """
    return fetch_registered(name, tracking_uri(config.tracking, resolve(config.output)), output)


def _version(client: MlflowClient, named: str) -> ModelVersion:
    """Find `NAME@ALIAS` or `NAME/VERSION`."""
    name, at, alias = named.partition("@")
    if at:
        return client.get_model_version_by_alias(name, alias)
    name, _, version = named.partition("/")
    return client.get_model_version(name, version)
