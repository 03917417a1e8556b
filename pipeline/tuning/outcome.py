"""How a trial ended: what its process reports, what its folder keeps, what its study is told."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.factors import ScaleParameters
from pipeline.storage.files import join, read_text, write_text

_FILE = "outcome.json"


class Outcome(BaseModel):
    """The verdict on a point.

    Attributes
    ----------
    state : {"complete", "pruned", "failed"}
        Failed: the training diverged. A process that dies has no outcome; its trial is repeated.
    parameters : ScaleParameters
    metrics : dict
        Validation scores by name, and the seconds spent; empty unless complete.
    rungs : dict
        CRPS by step of the last stage, on the few windows that pruning looks at.
    trained_steps : int
        Training steps that were run for this trial; stages from the cache cost none.
    model_url : str or None
        Folder of the model, if complete.
    reason : str or None
        Why it failed.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="constants", protected_namespaces=()
    )

    state: Literal["complete", "pruned", "failed"]
    parameters: ScaleParameters
    metrics: dict[str, float] = {}
    rungs: dict[int, float] = {}
    trained_steps: int = 0
    model_url: str | None = None
    reason: str | None = None

    def save(self, folder: str) -> None:
        """Write it beside the model, last of all: a trial that is repeated after this trains nothing."""
        write_text(join(folder, _FILE), self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: str, parameters: ScaleParameters) -> Outcome | None:
        """Read the outcome of the same point; None if there is none that can be read."""
        try:
            outcome = cls.model_validate_json(read_text(join(folder, _FILE)))
        except (FileNotFoundError, ValidationError, UnicodeDecodeError):
            return None
        return outcome if outcome.parameters == parameters else None
