"""Switches of Ray, MLflow and gcsfs, in one place; each must be set before its library is imported."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.config import Config

_DEFAULTS = {
    # Ray: no usage reports; Tune writes no logs of its own (MLflow has them) and leaves Ctrl-C to us, so that runs
    # are ended properly; results need not hold the searched metric, because progress is reported too.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # MLflow: a dead server is reported within seconds, not minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
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
    for library in ("mlflow", "optuna", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)


def in_ray_job() -> bool:
    """Tell whether this process is the entry point of a submitted Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def resolve_output(output: str) -> str:
    """Make the output folder absolute.

    Raises
    ------
    UserError
        If it is relative in a Ray job, whose working directory is deleted at its end.
    """
    from pipeline.files import resolve

    if in_ray_job() and "://" not in output and not os.path.isabs(os.path.expanduser(output)):
        raise UserError(
            f"output {output!r}: a Ray job's working directory is deleted at its end; give an absolute path or a URL "
            "with --output"
        )
    return resolve(output)


def start_ray(config: Config) -> None:
    """Connect to the job's or the configured cluster, or start one on this machine's loopback address."""
    import ray

    if ray.is_initialized():
        return
    address = config.ray.address or os.environ.get("RAY_ADDRESS")
    if address is None and not in_ray_job():
        # Ours alone and on loopback only: no token is needed, and none is written to the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        # Workers must find this package when it is not installed.
        root = str(Path(__file__).resolve().parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        ray.init(
            address="local",
            num_cpus=config.ray.cpus,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
    else:
        try:
            ray.init(address=address or "auto", logging_level=logging.ERROR)
        except ConnectionError as error:
            raise UserError(f"Ray cluster {address}: cannot connect ({' '.join(str(error).split())[:200]})") from error
