"""The families that exist, by name."""

from __future__ import annotations

import torch

from pipeline.config import ModelSettings, TrainingSettings
from pipeline.models.family import ModelSpec, Stage, SuperResolutionModel
from pipeline.models.scale_adaptive.family import ScaleAdaptive

FAMILIES: dict[str, type[SuperResolutionModel]] = {"scale_adaptive": ScaleAdaptive}


def build_model(spec: ModelSpec, seed: int) -> SuperResolutionModel:
    """Build an untrained model with weights drawn from `seed`, whatever ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch's initialisers take no generator
        return FAMILIES[spec.settings.family](spec)


def family_stages(settings: ModelSettings, training: TrainingSettings) -> tuple[Stage, ...]:
    """List a family's stages without building it."""
    return FAMILIES[settings.family].stages(settings, training)
