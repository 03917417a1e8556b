"""Which run made a model, if MLflow or the registry's note beside the model knows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipeline.mlflow_view.views import ROLE, page_of_run
from pipeline.registered_model import ORIGIN
from pipeline.storage.files import exists, join, read_text, resolve

_MAKES = ("training", "study", "trial", "rival")  # a study's run shares its model with that of its best trial


@dataclass(frozen=True)
class SourceRun:
    """The run that made a model.

    Attributes
    ----------
    run_id, experiment_id, name : str
    """

    run_id: str
    experiment_id: str
    name: str

    @property
    def link(self) -> str:
        """Its page, in markdown."""
        return f"[{self.name}]({page_of_run(self.experiment_id, self.run_id)})"


def source_run(client: Any, experiment_id: str, model_url: str) -> SourceRun | None:
    """Find the run that made a model.

    Parameters
    ----------
    client : mlflow.MlflowClient
    experiment_id : str
        Where models are looked for that did not come out of the registry.
    model_url : str
        Folder of the model.

    Returns
    -------
    SourceRun or None
        None if nobody knows, or MLflow does not answer: it is only a link.
    """
    from mlflow.exceptions import MlflowException

    try:
        if exists(join(model_url, ORIGIN)):
            run = client.get_run(json.loads(read_text(join(model_url, ORIGIN)))["run_id"])
        else:
            run = _recorded(client, experiment_id, resolve(model_url))
    except MlflowException:
        return None
    return run and SourceRun(run.info.run_id, run.info.experiment_id, run.info.run_name)


def _recorded(client: Any, experiment_id: str, url: str) -> Any | None:
    if "'" in url:  # the search language cannot quote it
        return None
    found = client.search_runs([experiment_id], f"tags.`finescale.model` = '{url}'")
    makers = [run for run in found if run.data.tags.get(ROLE) in _MAKES]
    return min(makers, key=lambda run: _MAKES.index(run.data.tags[ROLE]), default=None)
