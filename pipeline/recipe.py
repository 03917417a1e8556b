"""A recipe: which hyperparameters to use for which factor pair, and where each came from."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.errors import UserError
from pipeline.factors import FactorPair, PairField, ScaleParameters
from pipeline.files import read_text, write_text
from pipeline.prior import PUBLISHED, paper_prior


class Origin(StrEnum):
    """Where an entry's values came from."""

    PAPER = "paper"  # published, or by the rule of `pipeline.prior`
    TUNED = "tuned"  # the best trial of a finished study
    PREDICTED = "predicted"  # from scaling laws fitted to tuned entries


class RecipeEntry(BaseModel):
    """The values of one pair.

    Attributes
    ----------
    pair : FactorPair
    parameters : ScaleParameters
    origin : Origin
    score : float or None
        Fair CRPS on held-out windows in the store's units; only tuned entries have one.
    study : str or None
        Name of the study that found it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair: PairField
    parameters: ScaleParameters
    origin: Origin
    score: float | None = Field(None, ge=0)
    study: str | None = None


class Recipe(BaseModel):
    """Entries for any number of pairs; a pair that has none takes the paper's prior."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str | None = None
    entries: tuple[RecipeEntry, ...] = ()

    @model_validator(mode="after")
    def _pairs_once(self) -> Recipe:
        pairs = [entry.pair for entry in self.entries]
        doubled = sorted({str(pair) for pair in pairs if pairs.count(pair) > 1})
        if doubled:
            raise ValueError(f"two entries for {', '.join(doubled)}; keep one")
        return self

    @classmethod
    def paper(cls, pairs: Iterable[FactorPair] = tuple(PUBLISHED)) -> Recipe:
        """Give the paper's values for `pairs` (the four published ones unless told otherwise)."""
        return cls(
            entries=tuple(RecipeEntry(pair=p, parameters=paper_prior(p), origin=Origin.PAPER) for p in pairs)
        )

    @classmethod
    def load(cls, url: str) -> Recipe:
        """Read a recipe from a YAML file at any fsspec URL.

        Raises
        ------
        UserError
            If it is missing or not a recipe.
        """
        try:
            return cls.model_validate(yaml.safe_load(read_text(url)))
        except FileNotFoundError as error:
            raise UserError(f"recipe {url}: no such file") from error
        except OSError as error:
            raise UserError(f"recipe {url}: cannot be read ({error.strerror or error})") from error
        except (yaml.YAMLError, ValueError) as error:  # not UTF-8, not YAML, or not what a recipe holds
            reason = " ".join(str(error).split())
            raise UserError(f"recipe {url}: not a valid recipe ({reason})") from error

    def save(self, url: str) -> None:
        """Write the recipe as YAML, whole or not at all."""
        write_text(url, yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False))

    def updated(self, entries: Iterable[RecipeEntry]) -> Recipe:
        """Give a recipe with these entries in place of the same pairs' old ones; other pairs stay."""
        new = {entry.pair: entry for entry in entries}
        kept = tuple(entry for entry in self.entries if entry.pair not in new)
        return Recipe(dataset=self.dataset, entries=(*kept, *new.values()))

    def entry(self, pair: FactorPair) -> RecipeEntry:
        """Give the entry of `pair`, or the paper's prior where there is none."""
        for entry in self.entries:
            if entry.pair == pair:
                return entry
        return RecipeEntry(pair=pair, parameters=paper_prior(pair), origin=Origin.PAPER)
