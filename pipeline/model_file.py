"""A finished model as two files any tool can read: `model.safetensors` and `model.json`."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from pipeline import __version__
from pipeline.config import Config, ModelSettings, SamplingSettings
from pipeline.data.covariates import Covariate
from pipeline.data.scaling import ValueTransform
from pipeline.errors import UserError
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.models.families import build_model
from pipeline.models.family import ModelSpec, SuperResolutionModel
from pipeline.storage.files import join, read_bytes, read_text, write_bytes, write_text
from pipeline.store.grids import attributes_of, pixel_step

if TYPE_CHECKING:
    from pipeline.store.field_store import FieldStore

WEIGHTS, CARD = "model.safetensors", "model.json"
FORMAT = 2  # 1 had no dynamics, and of the statics the names only


def save_model(
    url: str,
    model: SuperResolutionModel,
    *,
    sampling: SamplingSettings,
    data: dict[str, Any],
    scores: dict[str, float],
) -> None:
    """Write a model to a folder; `model.json` comes last and vouches for the weights.

    Parameters
    ----------
    url : str
        Folder at any fsspec URL.
    model : SuperResolutionModel
    sampling : SamplingSettings
        How the scores were drawn, and how the model should be used.
    data : dict
        What `describe_data` gives of the training data.
    scores : dict
        Held-out scores by name.
    """
    from safetensors.torch import save

    spec = model.spec
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    card = {
        "format": FORMAT,
        "family": spec.settings.family,
        "pair": str(spec.pair),
        "parameters": spec.parameters.model_dump(mode="json"),
        "settings": spec.settings.model_dump(mode="json"),
        "transform": spec.transform.model_dump(mode="json"),
        "scale": spec.scale,
        "statics": [one.model_dump(mode="json") for one in spec.statics],
        "dynamics": [one.model_dump(mode="json") for one in spec.dynamics],
        "sampling": sampling.model_dump(mode="json"),
        "data": data,
        "scores": json_numbers(scores),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "versions": {
            "finescale": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    write_bytes(join(url, WEIGHTS), weights)
    write_text(join(url, CARD), json.dumps(card, indent=2, allow_nan=False) + "\n")


def json_numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """Put None where JSON has no number: a ratio to zero, an interval from too few blocks."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def add_scores(url: str, scores: dict[str, float]) -> None:
    """Add held-out scores to a model's description."""
    card = load_card(url)
    card["scores"] |= json_numbers(scores)
    write_text(join(url, CARD), json.dumps(card, indent=2, allow_nan=False) + "\n")


def load_card(url: str) -> dict[str, Any]:
    """Read a model's description.

    Raises
    ------
    UserError
        If there is no model at `url`, or it was written by a newer version.
    """
    try:
        card: dict[str, Any] = json.loads(read_text(join(url, CARD)))
    except FileNotFoundError as error:
        raise UserError(f"model {url}: no {CARD} there; give the folder of a finished model") from error
    except ValueError as error:
        raise UserError(f"model {url}: {CARD} is not JSON; the model is damaged") from error
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise UserError(f"model {url}: {CARD} does not describe a model; give the folder of a finished one")
    if card["format"] > FORMAT:
        raise UserError(
            f"model {url}: written by a newer version (format {card['format']}); upgrade finescale"
        )
    return card


def load_model(url: str) -> SuperResolutionModel:
    """Load a model for use, on the CPU.

    Raises
    ------
    UserError
        If it is missing, damaged or newer than this version, or so old that its covariates have no numbers.
    """
    from safetensors.torch import load

    card = load_card(url)
    if card["format"] == 1 and card.get("statics"):
        raise UserError(
            f"model {url}: trained by an older version, which did not keep the mean and spread of "
            f"{', '.join(map(str, card['statics']))}; train again"
        )
    try:
        weights = read_bytes(join(url, WEIGHTS))
    except FileNotFoundError as error:
        raise UserError(f"model {url}: {WEIGHTS} is missing; the model is damaged") from error
    if hashlib.sha256(weights).hexdigest() != card.get("sha256"):
        raise UserError(f"model {url}: {WEIGHTS} is damaged (its SHA-256 differs from {CARD})")
    try:
        spec = ModelSpec(
            pair=FactorPair.parse(card["pair"]),
            parameters=ScaleParameters.model_validate(card["parameters"]),
            settings=ModelSettings.model_validate(card["settings"]),
            transform=ValueTransform.model_validate(card["transform"]),
            scale=float(card["scale"]),
            statics=tuple(Covariate.model_validate(one) for one in card["statics"]),
            dynamics=tuple(Covariate.model_validate(one) for one in card.get("dynamics", ())),
        )
        model = build_model(spec, seed=0)
        model.load_state_dict(load(weights))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # RuntimeError: the weights do not fit
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model {url}: {CARD} is damaged ({type(error).__name__}: {reason})") from error
    return model.eval().requires_grad_(False)


def describe_data(store: FieldStore, config: Config) -> dict[str, Any]:
    """Give what a model remembers of its data: the field, its pixels, and which windows were for what.

    `patch` is the side of a training window in fine pixels; `pixel` the size [dy, dx] of a fine pixel, in
    the units of the coordinates, `pixel_units`. Cards of older versions have neither.
    """
    wanted = ("name", "variable", "units", "cadence_seconds", "start", "end", "fingerprint", "crs")
    return {
        **{key: value for key, value in asdict(store.info).items() if key in wanted},
        "patch": config.data.patch,
        "pixel": [abs(pixel_step(axis)) for axis in (store.y, store.x)],
        "pixel_units": [str(attributes_of(store, name).get("units", "")) for name in ("y", "x")],
        "settings": config.data.deciding(),
        "scoring": config.scoring.model_dump(mode="json", exclude={"batch", "resamples"}),
        "max_context": config.tuning.max_context,
        "seed": config.seed,
    }
