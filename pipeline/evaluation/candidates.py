"""The finished models that an evaluation is about, and those of one pair with the windows they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from pipeline.evaluation.model_folders import is_published, validation_crps
from pipeline.factors import FactorPair
from pipeline.store.field_store import FieldStore
from pipeline.store.manifest import StoreInfo

PUBLISHED = "published"
"""What a model with the paper's settings is called where others are compared with it."""

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
        return is_published(self.saved.card)

    @property
    def validation_crps(self) -> float:
        """What it was chosen by; infinite if its card tells none."""
        return validation_crps(self.saved.card)


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
