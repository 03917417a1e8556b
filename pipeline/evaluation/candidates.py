"""Which finished models an evaluation is about: found by folder, by sweep or by registered name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.data.pair_data import PairData
from pipeline.data.windows import Windows
from pipeline.errors import UserError
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.blocks import Blocks
from pipeline.evaluation.chunks import ENSEMBLE, MAPPED, MEAN
from pipeline.evaluation.held_out import HeldOutSplit, SavedModel, check_store, held_out_data
from pipeline.factors import FactorPair, ScaleParameters
from pipeline.model_file import CARD, WEIGHTS, load_card
from pipeline.prior import paper_prior
from pipeline.storage.files import exists, join, list_folder
from pipeline.store.field_store import FieldStore
from pipeline.store.manifest import StoreInfo

_FIELDS = {*BASELINES, ENSEMBLE, MEAN, MAPPED}  # a comparison with one of these is none with a model


@dataclass(frozen=True)
class Candidate:
    """A finished model that is to be scored.

    Attributes
    ----------
    label : str
        What tables and figures call it; no two are the same.
    saved : SavedModel
    config : Config
        The user's settings over those of the model's card.
    """

    label: str
    saved: SavedModel
    config: Config

    @property
    def pair(self) -> FactorPair:
        """What it refines by."""
        return self.saved.model.spec.pair

    @property
    def published(self) -> bool:
        """Whether it has the paper's (beta, L, f), with L as far as its windows had room for it."""
        return _published(self.saved.card)


@dataclass(frozen=True)
class Rivals:
    """The models of one pair and the windows on which all of them are scored.

    Attributes
    ----------
    models : tuple of Candidate
        At least one.
    split : {"validation", "test"}
    data : PairData
        The store's data as the first of them sees them.
    windows : Windows
        Of the split, with L = 1.
    blocks : Blocks
        Of the windows, for the bootstrap.
    """

    models: tuple[Candidate, ...]
    split: HeldOutSplit
    data: PairData
    windows: Windows
    blocks: Blocks

    @property
    def pair(self) -> FactorPair:
        """What they refine by."""
        return self.models[0].pair

    @property
    def config(self) -> Config:
        """The settings of the first."""
        return self.models[0].config


def find_models(url: str, *, prior: bool = False) -> list[str]:
    """Give the folders of the models that a user means.

    Parameters
    ----------
    url : str
        The folder of a model, or either of its files; or the folder that a sweep or a training keeps its
        models in, `PAIR/LABEL` below it, or one pair of it: then the model with the best validation CRPS of
        each pair.
    prior : bool
        Where the best is chosen, give the one with the paper's settings too: what retuning has to beat.

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
    inside = list_folder(url)
    here = _chosen([join(url, name) for name in inside], prior)
    if here:
        return here
    found = (
        _chosen([join(url, name, label) for label in list_folder(join(url, name))], prior) for name in inside
    )
    models = [model for chosen in sorted(filter(None, found), key=_pair_of) for model in chosen]
    if not models:
        raise UserError(
            f"model {url}: no {CARD} there, nor below it as PAIR/LABEL; give the folder of a finished model, "
            "or of a sweep's models (runs/models/SWEEP)"
        )
    return models


def _chosen(folders: Sequence[str], prior: bool) -> list[str]:
    """Give the best of the models of one pair, and the one with the paper's settings if that is another."""
    models = [folder for folder in folders if exists(join(folder, CARD))]
    best = min(models, key=_validation_crps, default=None)
    published = [model for model in models if _published(load_card(model))] if prior else []
    return [model for model in dict.fromkeys((best, *published[:1])) if model is not None]


def _validation_crps(url: str) -> float:
    score = load_card(url).get("scores", {}).get("validation_crps")
    return math.inf if score is None else float(score)


def _pair_of(models: Sequence[str]) -> tuple[int, int]:
    pair = FactorPair.parse(load_card(models[0])["pair"])
    return pair.space, pair.time


def _published(card: Mapping[str, Any]) -> bool:
    prior = paper_prior(FactorPair.parse(card["pair"]))
    longest = (card.get("data") or {}).get("max_context", prior.context)  # windows had no room for more
    prior = prior.model_copy(update={"context": min(prior.context, longest)})
    return ScaleParameters.model_validate(card["parameters"]) == prior


def labels(urls: Sequence[str]) -> list[str]:
    """Name models by as many of the last parts of their folders as tell them apart.

    Raises
    ------
    UserError
        If one is given twice.
    """
    parts = [url.rstrip("/").split("/") for url in urls]
    for url in urls:
        if urls.count(url) > 1:
            raise UserError(f"--model {url}: given twice")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names) and not {*names} & _FIELDS:
            return names
    return list(urls)


def open_candidates(urls: Sequence[str], config_of: Callable[[dict[str, Any]], Config]) -> list[Candidate]:
    """Load models, and resolve the settings that each is scored with.

    Parameters
    ----------
    urls : sequence of str
        Folders of models.
    config_of : callable
        From the settings that a card knows, as a tree, to those with the user's above them.

    Raises
    ------
    UserError
        If one is missing, damaged, given twice, or no longer heeds a setting.
    """
    candidates = []
    for label, url in zip(labels(urls), urls, strict=True):
        saved = SavedModel.open(url)
        candidate = Candidate(label, saved, config_of(saved.defaults()))
        if candidate.published:
            candidate = replace(candidate, label=f"{label} (the paper's settings)")
        saved.check(candidate.config)
        candidates.append(candidate)
    return candidates


def check_candidates(candidates: Sequence[Candidate], info: StoreInfo, split: HeldOutSplit) -> list[str]:
    """Check that all models can be scored on a split of a store, without reading any value.

    Returns
    -------
    list of str
        What a reader of the scores should know, one line each.

    Raises
    ------
    UserError
        If one cannot, or two of one pair would see other windows.
    """
    notes: dict[str, list[str]] = {}
    for one in candidates:
        for note in check_store(one.saved, info, one.config, split):
            notes.setdefault(note, []).append(one.label)
    for models in by_pair(candidates):
        first, *others = models
        for other in others:
            _same_windows(first, other)
    everyone = len(candidates)
    return [note if len(whom) == everyone else f"{', '.join(whom)}: {note}" for note, whom in notes.items()]


def by_pair(candidates: Sequence[Candidate]) -> list[tuple[Candidate, ...]]:
    """Give the models of each pair, pairs in order of their factors."""
    pairs = sorted({one.pair for one in candidates}, key=lambda pair: (pair.space, pair.time))
    return [tuple(one for one in candidates if one.pair == pair) for pair in pairs]


def _same_windows(one: Candidate, other: Candidate) -> None:
    """Refuse two models that would be scored on other windows: their scores do not compare."""
    ours, theirs = _choice_of_windows(one.config), _choice_of_windows(other.config)
    for name, value in ours.items():
        if theirs[name] != value:
            raise UserError(
                f"models {one.label} and {other.label} of pair {one.pair}: {name} is {value} and "
                f"{theirs[name]}, so they would be scored on other windows; give one with --set "
                f"{name}=..., or score one at a time"
            )


def _choice_of_windows(config: Config) -> dict[str, Any]:
    data = config.data.deciding()
    chosen = ("patch", "trim", "min_valid", "wet_threshold", "min_wet", "most_windows")
    return {
        **{f"data.{name}": data[name] for name in chosen},
        **{f"data.split.{name}": value for name, value in data["split"].items()},
        "tuning.max_context": config.tuning.max_context,
        "seed": config.seed,
    }


def rivals(candidates: Sequence[Candidate], store: FieldStore, split: HeldOutSplit) -> list[Rivals]:
    """Find the windows of every pair.

    Raises
    ------
    UserError
        If there is none, or two models of a pair would see other ones.
    """
    found = []
    for models in by_pair(candidates):
        first, *others = models
        data, config = held_out_data(first.saved, store, first.config), first.config
        windows, *theirs = (
            data.scored_windows(split, 1, one.config.scoring, one.config.seed) for one in models
        )
        # More may have been asked for than there are, so the numbers alone do not tell.
        for other, seen in zip(others, theirs, strict=True):
            if not np.array_equal(seen.places, windows.places):
                raise UserError(
                    f"models {first.label} and {other.label} of pair {first.pair} were scored on "
                    f"{len(windows)} and {len(seen)} windows of the split; give --windows, as many for both"
                )
        blocks = Blocks.of(windows, store.times, config.scoring, config.evaluation.blocks)
        found.append(Rivals(models, split, data, replace(windows, wetness=None), blocks))
    return found
