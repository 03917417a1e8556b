"""What is kept of an unfinished stage, so that it can carry on after any kill."""

from __future__ import annotations

import io
import logging
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.files import exists, read_bytes, remove, write_bytes
from pipeline.models.family import SuperResolutionModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageCheckpoint:
    """One file at any fsspec URL, replaced as a whole at every save.

    Attributes
    ----------
    url : str
    """

    url: str

    def save(
        self,
        step: int,
        model: SuperResolutionModel,
        optimizer: torch.optim.Optimizer,
        average: dict[str, Tensor],
    ) -> None:
        """Write the state after `step` steps."""
        buffer = io.BytesIO()
        state = {
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
        }
        torch.save(state, buffer)
        content = buffer.getvalue()
        write_bytes(self.url, zlib.crc32(content).to_bytes(4, "big") + content)

    def restore(
        self,
        model: SuperResolutionModel,
        optimizer: torch.optim.Optimizer,
        average: dict[str, Tensor],
        device: torch.device,
    ) -> int:
        """Load the state into the arguments and give the number of steps done; 0 if there is none.

        A damaged checkpoint is said aloud and the stage starts again: it costs time, not correctness.
        """
        if not exists(self.url):
            return 0
        content = read_bytes(self.url)
        if zlib.crc32(content[4:]).to_bytes(4, "big") != content[:4]:
            log.warning("checkpoint %s is damaged; the stage starts again", self.url)
            return 0
        state: dict[str, Any] = torch.load(io.BytesIO(content[4:]), map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.update(state["average"])
        log.info("carrying on at step %d from %s", state["step"], self.url)
        return int(state["step"])

    def remove(self) -> None:
        """Delete the file, if there is one."""
        remove(self.url)
