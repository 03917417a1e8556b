"""Finished stages shared by the trials of all sweeps on one storage.

A stage is keyed by everything its weights depend on, so trials that differ only in `beta` find the same
conditional mean. The cache knows stages, not means.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.code_version import code_version
from pipeline.config import Config
from pipeline.models.families import family_stages
from pipeline.models.family import ModelSpec, Stage
from pipeline.storage.files import exists, join, read_bytes, read_text, write_bytes, write_text
from pipeline.tuning.claims import Claims

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


@dataclass
class SharedStages:
    """The stages of one storage, as one trial sees them.

    Attributes
    ----------
    url : str
        Folder at any fsspec URL.
    config : Config
    data_fingerprint : str
    claims : Claims
    owner : str
        Name of the trial.
    """

    url: str
    config: Config
    data_fingerprint: str
    claims: Claims
    owner: str

    def fetch_or_claim(self, stage: Stage, spec: ModelSpec) -> dict[str, Tensor] | None:
        """Give the stage's weights, waiting while another trial trains them; None: train them here."""
        if not stage.shareable:
            return None
        key = self.key(stage, spec)
        while True:
            state = self._load(key)
            if state is not None:
                self.claims.release(key, self.owner)
                return state
            if self.claims.claim(key, self.owner):
                # Published between the look and the claim? Then it is there now.
                state = self._load(key)
                if state is None:
                    return None
            else:
                time.sleep(_POLL_SECONDS)

    def renew(self, stage: Stage, spec: ModelSpec) -> None:
        """Keep the claim while training."""
        if stage.shareable:
            self.claims.claim(self.key(stage, spec), self.owner)

    def publish(self, stage: Stage, spec: ModelSpec, state: dict[str, Tensor]) -> None:
        """Store a finished stage: weights first, then the manifest that vouches for them."""
        if not stage.shareable:
            return
        from safetensors.torch import save

        key = self.key(stage, spec)
        weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
        manifest = {"sha256": hashlib.sha256(weights).hexdigest(), **self._identity(stage, spec)}
        write_bytes(join(self.url, f"{key}.safetensors"), weights)
        write_text(join(self.url, f"{key}.json"), json.dumps(manifest, indent=2) + "\n")
        self.claims.release(key, self.owner)

    def key(self, stage: Stage, spec: ModelSpec) -> str:
        """Name a stage by the content of what its weights depend on."""
        text = json.dumps(self._identity(stage, spec), sort_keys=True)
        return f"{stage.name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"

    def _identity(self, stage: Stage, spec: ModelSpec) -> dict[str, Any]:
        parameters, training = spec.parameters.model_dump(mode="json"), self.config.training.deciding()
        all_steps = {f"{one.name}_steps" for one in self._stages()}
        return {
            "code": code_version(),
            "stage": stage.name,
            "steps": self._steps_up_to(stage),
            "data": self.data_fingerprint,
            "pair": str(spec.pair),
            "parameters": {name: parameters[name] for name in sorted(stage.depends_on)},
            "transform": spec.transform.model_dump(mode="json"),
            "data_settings": self.config.data.deciding(),
            "model": spec.settings.model_dump(mode="json"),
            # Steps of later stages change nothing here.
            "training": {name: value for name, value in training.items() if name not in all_steps},
            "max_context": self.config.tuning.max_context,
            "seed": self.config.seed,
        }

    def _stages(self) -> tuple[Stage, ...]:
        return family_stages(self.config.model, self.config.training)

    def _steps_up_to(self, stage: Stage) -> dict[str, int]:
        """Give the steps of a stage and of those before it, which it may build on."""
        steps: dict[str, int] = {}
        for one in self._stages():
            steps[one.name] = one.steps
            if one.name == stage.name:
                break
        return steps

    def _load(self, key: str) -> dict[str, Tensor] | None:
        from safetensors.torch import load

        manifest_url, weights_url = (join(self.url, f"{key}.{suffix}") for suffix in ("json", "safetensors"))
        if not exists(manifest_url):
            return None
        try:
            weights = read_bytes(weights_url)
            intact = hashlib.sha256(weights).hexdigest() == json.loads(read_text(manifest_url))["sha256"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            log.warning("stage %s is damaged; it is trained again", weights_url)
            return None
        return dict(load(weights))
