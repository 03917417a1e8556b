"""A registered model as the two files that it was made from."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.environment import without_secrets
from pipeline.errors import UserError, one_line
from pipeline.files import join, write_bytes
from pipeline.model_file import CARD, WEIGHTS

SCHEME = "models:/"


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
    import mlflow
    from mlflow.exceptions import MlflowException

    folder = join(output, "registered", re.sub(r"[^A-Za-z0-9._-]+", "-", name.removeprefix(SCHEME)))
    with TemporaryDirectory() as there:
        try:
            found = mlflow.artifacts.download_artifacts(name, dst_path=there, tracking_uri=uri)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"model {name}: MLflow {without_secrets(uri)} does not give it "
                f"({without_secrets(one_line(error))}); give its name as it was printed, and --tracking-uri"
            ) from error
        data = Path(found) / "data"
        if not (data / CARD).exists():
            raise UserError(f"model {name}: registered by something else; give a model of this package")
        for file in (WEIGHTS, CARD):
            write_bytes(join(folder, file), (data / file).read_bytes())
    return folder
