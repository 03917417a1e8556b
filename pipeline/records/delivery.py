"""What becomes of a record at MLflow. Everything here may be done twice: a record is delivered at least once.

A record is a dict with `kind`, `key` (which run, by its `finescale.key`) and `time` (milliseconds since 1970,
when it was made, which is what MLflow is told however late it is delivered).
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.environment import without_secrets
from pipeline.mlflow_view.markdown import NOTE, linked
from pipeline.records.outbox import Record, Retry

KEY, SWEEP, PARENT = "finescale.key", "finescale.sweep", "mlflow.parentRunId"

_MAY_PASS = {
    "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED",
    "RESOURCE_CONFLICT", "ABORTED", "CANCELLED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED",
}  # fmt: skip
_STATUS_MAY_PASS = {401, 408, 409, 425, 429}
_FILE_ERRORS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_TRIES = 10  # minutes: as long as a server may need that answers, but with an error of its own


def as_outbox_error(error: Exception, what: str) -> Exception:
    """Judge an error of a delivery.

    Returns
    -------
    Exception
        `Retry` without end if the server or the way to it is in trouble; `Retry` for some minutes if it may
        be the record; any other if it is the record. The text holds no passwords.
    """
    from mlflow.exceptions import MlflowException

    text = without_secrets(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")
    if isinstance(error, MlflowException):
        if error.error_code == "INTERNAL_ERROR":  # so MLflow calls a server that it cannot reach, too
            unreachable = re.search("failed with (timeout )?exception", text) and "500 error" not in text
            return Retry(text, None if unreachable else _TRIES)
        return Retry(text) if error.error_code in _MAY_PASS else ValueError(text)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):  # an artifact's upload
        return Retry(text) if status >= 500 or status in _STATUS_MAY_PASS else ValueError(text)
    if isinstance(error, OSError):
        return ValueError(text) if isinstance(error, _FILE_ERRORS) else Retry(text)
    if isinstance(error, LookupError | ValueError | TypeError):
        return ValueError(text)
    return Retry(text, _TRIES)  # of an artifact store's own library


class Delivery:
    """Writes records to the runs of one sweep.

    Parameters
    ----------
    client : mlflow.MlflowClient
    experiment_id : str
    tags : mapping
        Put on every run; one is the sweep.

    Attributes
    ----------
    run_ids : dict
        Run id by key, of every run that is known to exist.
    registered : dict
        `models:/NAME@ALIAS` by key.
    """

    def __init__(self, client: Any, experiment_id: str, tags: Mapping[str, str]) -> None:
        self._client, self._experiment_id, self._tags = client, experiment_id, dict(tags)
        self.run_ids: dict[str, str] = {}
        self.registered: dict[str, str] = {}

    def find(self) -> tuple[dict[str, str], dict[str, str]]:
        """Find the sweep's runs.

        A request that timed out may have made a run all the same, so that two have one key. The one that
        holds more counts, or else the newer.

        Returns
        -------
        dict
            Status by key.
        dict
            Key by run id, of the runs that do not count.
        """
        status: dict[str, str] = {}
        doubles: dict[str, str] = {}
        runs = self._search(f"tags.`{SWEEP}` = '{self._tags[SWEEP]}'")
        for run in sorted(runs, key=_content, reverse=True):
            key = run.data.tags.get(KEY, "")
            if key in status:
                doubles[run.info.run_id] = key
            else:
                status[key], self.run_ids[key] = run.info.status, run.info.run_id
        return status, doubles

    def _search(self, filter_: str) -> list[Any]:
        from mlflow.entities import ViewType

        runs, token = [], None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], filter_, ViewType.ACTIVE_ONLY, page_token=token
            )
            runs.extend(page)
            token = page.token
            if not token:
                return runs

    def __call__(self, record: Record) -> None:
        """Deliver a record.

        Raises
        ------
        Retry
            If it should be tried again.
        ValueError
            If that would not help.
        """
        try:
            getattr(self, f"_{record['kind']}")(record)
        except Exception as error:
            raise as_outbox_error(error, f"{record.get('kind')} of {record.get('key')}") from error

    def _start(self, record: Record) -> None:
        from mlflow.entities import Param, RunTag

        key, parent = record["key"], self.run_ids.get(record["parent"] or "")
        tags = {**self._tags, **self._linked(record["tags"]), KEY: key} | ({PARENT: parent} if parent else {})
        known: Mapping[str, str] = {}
        run_id = self.run_ids.get(key) or self._made_unheard(key)
        if run_id is None:
            run = self._client.create_run(self._experiment_id, record["time"], tags, record["name"])
            run_id = run.info.run_id
        else:
            self._client.update_run(run_id, status="RUNNING")
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
            known = self._client.get_run(run_id).data.params
        self.run_ids[key] = run_id
        missing = [Param(name, value) for name, value in record["params"].items() if name not in known]
        self._client.log_batch(run_id, params=missing)
        if record.get("data"):  # records of older versions name none
            self._client.log_inputs(run_id, [_data_input(record["data"])])

    def _made_unheard(self, key: str) -> str | None:
        """Find a run that an earlier try made without our hearing of it."""
        found = self._search(f"tags.`{SWEEP}` = '{self._tags[SWEEP]}' and tags.`{KEY}` = '{key}'")
        return max(found, key=_content).info.run_id if found else None

    def _metrics(self, record: Record) -> None:
        from mlflow.entities import Metric

        batch = [
            Metric(name, value, record["time"], record["step"]) for name, value in record["metrics"].items()
        ]
        self._client.log_batch(self._run(record), metrics=batch)

    def _tag(self, record: Record) -> None:
        from mlflow.entities import RunTag

        batch = [RunTag(name, value) for name, value in self._linked(record["tags"]).items()]
        self._client.log_batch(self._run(record), tags=batch)

    def _experiment(self, record: Record) -> None:
        """Set a tag of the experiment; what it holds already stays, a person may have changed it."""
        experiment = self._client.get_experiment(self._experiment_id)
        if not experiment.tags.get(record["tag"]):
            value = self._linked({record["tag"]: record["value"]})[record["tag"]]
            self._client.set_experiment_tag(self._experiment_id, record["tag"], value)

    def _linked(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Turn the links of a description into addresses, which are known here at the earliest."""
        links = {
            name: linked(tags[name], self._experiment_id, self._anywhere) for name in tags if name == NOTE
        }
        return {**tags, **links}

    def _anywhere(self, key: str) -> str | None:
        """Find a run by its key, also one of another sweep."""
        if key in self.run_ids:
            return self.run_ids[key]
        found = self._search(f"tags.`{KEY}` = '{key}'") if "'" not in key else []
        return max(found, key=_content).info.run_id if found else None

    def _artifact(self, record: Record) -> None:
        name = Path(record["name"])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name.name
            path.write_bytes(base64.b64decode(record["content"]))
            folder_there = str(name.parent) if name.parent.parts else None
            self._client.log_artifact(self._run(record), str(path), folder_there)

    def _end(self, record: Record) -> None:
        self._client.set_terminated(self._run(record), record["status"], record["time"])

    def _discard(self, record: Record) -> None:
        """Take a run away that does not count; MLflow keeps it among the deleted ones."""
        run_id = record["run_id"]
        if self._client.get_run(run_id).info.lifecycle_stage == "active":
            self._client.set_terminated(run_id, "KILLED", record["time"])
            self._client.delete_run(run_id)

    def _register(self, record: Record) -> None:
        from pipeline.registry import register

        self.registered[record["key"]] = register(
            self._client,
            self._run(record),
            record["model_url"],
            record["name"],
            crps=record["crps"],
            scored_on=record["scored_on"],
            interval=record.get("interval"),
            validation=record.get("validation"),
        )

    def _run(self, record: Record) -> str:
        run_id = self.run_ids.get(record["key"])
        if run_id is None:
            raise LookupError("there is no such run")
        return run_id


def _data_input(data: Mapping[str, str]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    described = Dataset(
        data["name"], data["digest"], "finescale_store", data["source"], data["schema"], data["profile"]
    )
    return DatasetInput(described, [InputTag("mlflow.data.context", data["context"])])


def _content(run: Any) -> tuple[int, int]:
    return len(run.data.metrics) + len(run.data.params), run.info.start_time
