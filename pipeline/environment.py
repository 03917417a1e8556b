"""Switches of Ray, MLflow and gcsfs, in one place; each must be set before its library is imported."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.config import Config

_DEFAULTS = {
    # Ray: no usage reports; Tune writes no logs of its own (MLflow has them) and leaves Ctrl-C to us, so that
    # runs are ended properly; results need not hold the searched metric, because progress is reported too.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a lost worker is noticed so soon; Ray's own is 2 s
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # MLflow: silent about the database it makes (it sets its loggers when imported, so nothing else holds)
    # and about every run that ends; no usage reports; one try per request, since the outbox does the waiting.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # gcsfs: its experimental bucket probing takes half a minute per call against an emulator.
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
}


def prepare() -> None:
    """Set every switch the user has not set."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Each time the database is locked this logs a traceback; the outbox tries again and says so in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def without_secrets(text: str) -> str:
    """Hide user and password of every URL in a text, wherever in the URL they stand."""
    text = re.sub(r"://[^/\s'\"]*@", "://***@", text)
    # A password with a slash; what follows a port is a path, which may hold an @.
    text = re.sub(r"://[^/\s'\"@:]*:(?!\d+/)[^\s'\"]*@", "://***@", text)
    return re.sub(r"(?i)((?:password|passwd|token|secret)=)[^&\s'\"]*", r"\1***", text)


def in_ray_job() -> bool:
    """Tell whether this process is the entry point of a submitted Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def resolve_output(output: str, flag: str = "--output") -> str:
    """Make the output folder absolute; `flag` gives another, for the message.

    Raises
    ------
    UserError
        If it is relative in a Ray job, whose working directory is deleted at its end, or if no folder can be
        there.
    """
    from pipeline.storage.files import resolve

    if in_ray_job() and "://" not in output and not os.path.isabs(os.path.expanduser(output)):
        raise UserError(
            f"output {output!r}: a Ray job's working directory is deleted at its end; give an absolute path "
            f"or a URL with {flag}"
        )
    absolute = resolve(output)
    if "://" not in absolute:
        above = Path(absolute)
        while not above.exists():
            above = above.parent
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise UserError(
                f"output {output}: {above} is not a folder that can be written to; give another with {flag}"
            )
    return absolute


def start_ray(
    config: Config, wanted: Mapping[str, float], *, processes: int = 1, setting: str = "tuning"
) -> None:
    """Connect to the job's or the configured cluster, or start one on this machine that only we can use.

    Parameters
    ----------
    config : Config
    wanted : mapping
        What one process takes, as in `{"CPU": 1.0, "GPU": 0.5}`.
    processes : int
        How many have to run at once.
    setting : {"tuning", "train", "downscaling"}
        Part of the configuration that says so, for the message.

    Raises
    ------
    UserError
        If the cluster cannot be reached, or this machine has less than is needed.
    """
    address = config.ray.address or os.environ.get("RAY_ADDRESS")
    local = address is None and not in_ray_job()
    if local and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on every network interface, whatever address it is given: a token of this run's own,
        # handed down by environment and written nowhere, keeps others out. Ray reads it when it is imported.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray

    if ray.is_initialized():
        return
    # Ray Train's processes talk a lot; what its workers have to say comes by their mailbox.
    quiet: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": processes == 1 and setting != "train",
    }
    if local:
        # Workers must find this package when it is not installed.
        root = str(Path(__file__).resolve().parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        ray.init(
            address="local",
            num_cpus=config.ray.cpus,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            **quiet,
        )
        _check_room(wanted, processes, setting, ray.cluster_resources())
    else:
        try:
            _knock(address)
            ray.init(address=address or "auto", **quiet)
        except OSError as error:
            raise UserError(
                f"Ray cluster {address}: cannot connect ({' '.join(str(error).split())[:200]})"
            ) from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(kind, 0.0) >= amount for kind, amount in wanted.items()) for node in nodes):
            asked = ", ".join(f"{amount:g} {kind}" for kind, amount in wanted.items() if amount)
            print(f"note: no node of the cluster has {asked} for a process; they wait until one joins")


def _check_room(
    wanted: Mapping[str, float], processes: int, setting: str, resources: dict[str, float]
) -> None:
    """Refuse processes that would wait for ever: a cluster of one machine does not grow."""
    for kind, amount in wanted.items():
        if amount * processes > resources.get(kind, 0.0):
            each = "trial" if setting == "tuning" else "worker"
            times = f" for each of {processes} {each}s" if processes > 1 else ""
            more = "; ray.cpus gives it more logical ones" if kind == "CPU" else ""
            raise UserError(
                f"{setting}.{kind.lower()}s_per_{each}: {amount:g} wanted{times}, this machine has "
                f"{resources.get(kind, 0.0):g}{more}"
            )


def _knock(address: str | None) -> None:
    """Find out within seconds that nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def fetched(reference: Any) -> Any:
    """Wait for what a function gave that ran on the cluster, or raise what it raised, as it raised it.

    Raises
    ------
    UserError
        As it was raised there: Ray would wrap it into one with a traceback for a message.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def remotely(function: Callable[..., Any], config: Config) -> Any:
    """Make a function run on the cluster with the resources of one trial."""
    import ray

    return ray.remote(num_cpus=config.tuning.cpus_per_trial, num_gpus=config.tuning.gpus_per_trial)(function)
