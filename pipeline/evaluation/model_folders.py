"""Which folders of models a user means: one model, or the best of each pair of a sweep or a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.evaluation.seen import longest_trained
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.model_file import CARD, WEIGHTS, load_card
from pipeline.prior import paper_prior
from pipeline.storage.files import exists, join, list_folder

_RIVAL = "rival-"  # what a sweep trains only to compare its tuned values with


@dataclass(frozen=True)
class _Folder:
    url: str
    card: dict[str, Any]

    @property
    def pair(self) -> FactorPair:
        return FactorPair.parse(self.card["pair"])


def find_models(url: str, *, prior: bool = False) -> list[str]:
    """Give the folders of the models that a user means.

    Parameters
    ----------
    url : str
        The folder of a model, or either of its files; or the folder that a sweep or a training keeps its
        models in, `PAIR/LABEL` below it, or one pair of it: then the tuned model of each pair, that is the
        trial with the best validation CRPS.
    prior : bool
        Of a sweep, give each pair's trial with the paper's settings too: what retuning has to beat.

    Raises
    ------
    UserError
        If there is none.
    """
    folder, _, file = url.rpartition("/")
    if file in (CARD, WEIGHTS):
        url = folder or "."
    if exists(join(url, CARD)):
        return [url]
    here = _models(url)  # of one pair
    found = [here] if here else [_models(join(url, name)) for name in list_folder(url)]
    pairs = sorted(filter(None, found), key=lambda models: (models[0].pair.space, models[0].pair.time))
    if not pairs:
        raise UserError(
            f"model {url}: no {CARD} there, nor below it as PAIR/LABEL; give the folder of a finished model, "
            "or of a sweep's models (runs/models/SWEEP)"
        )
    return [one for models in pairs for one in _chosen(models, prior)]


def is_published(card: Mapping[str, Any]) -> bool:
    """Say whether a model has the paper's (beta, L, f), with L as far as its training had room for it.

    Parameters
    ----------
    card : mapping
        What `load_card` gives.
    """
    pair = FactorPair.parse(card["pair"])
    prior, longest = paper_prior(pair), longest_trained(card.get("data") or {}, pair)
    if longest is not None:
        prior = prior.model_copy(update={"context": min(prior.context, longest)})
    return ScaleParameters.model_validate(card["parameters"]) == prior


def validation_crps(card: Mapping[str, Any]) -> float:
    """Give the CRPS that a model was chosen by; infinite if its card tells none."""
    score = card.get("scores", {}).get("validation_crps")
    return math.inf if score is None else float(score)


def _models(url: str) -> list[_Folder]:
    """Read the cards of the models in the folder of a pair."""
    folders = [join(url, name) for name in list_folder(url) if not name.startswith(_RIVAL)]
    return [_Folder(folder, load_card(folder)) for folder in folders if exists(join(folder, CARD))]


def _chosen(models: Sequence[_Folder], prior: bool) -> list[str]:
    best = min(models, key=lambda one: validation_crps(one.card))
    published = next((one for one in models if is_published(one.card)), None) if prior else None
    return list(dict.fromkeys([best.url, *([published.url] if published else [])]))
