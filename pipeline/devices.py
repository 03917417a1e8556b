"""Which device a process computes on."""

from __future__ import annotations

import torch

from pipeline.config import Config
from pipeline.errors import UserError


def pick_device(
    name: str, workers: int | None = None, gpus_per_worker: float = 0.0, key: str = "tuning.gpus_per_trial"
) -> torch.device:
    """Give the device that `cpu`, `cuda` or `auto` (a GPU if there is one) stands for.

    Parameters
    ----------
    name : str
    workers : int, optional
        Processes of a cluster, whose GPUs this process does not see.
    gpus_per_worker : float
    key : str
        What `gpus_per_worker` is called in the configuration, for the message.

    Raises
    ------
    UserError
        If there is no GPU but one is asked for.
    """
    if workers is not None:
        if name == "cuda" and gpus_per_worker == 0:
            raise UserError(
                f"--device cuda: with --workers give each its share of a GPU, as in --set {key}=0.5"
            )
        return torch.device("cuda" if name != "cpu" and gpus_per_worker > 0 else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; give --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_of_trial(config: Config) -> torch.device:
    """Give the GPU that Ray has assigned to this process if trials ask for one, else the CPU."""
    wanted = config.tuning.gpus_per_trial > 0 and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")
