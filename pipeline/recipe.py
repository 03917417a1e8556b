"""A recipe: which hyperparameters to use for which factor pair, and where each came from."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.errors import UserError
from pipeline.factors import FactorPair, PairField, ScaleParameters
from pipeline.laws import Laws, ParameterInterval
from pipeline.prior import PUBLISHED, paper_prior
from pipeline.storage.files import read_text, write_text


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
    interval : ParameterInterval or None
        Where beta and L lie with a probability of 90 %; only predicted entries have one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair: PairField
    parameters: ScaleParameters
    origin: Origin
    score: float | None = Field(None, ge=0)
    study: str | None = None
    interval: ParameterInterval | None = None

    @classmethod
    def predicted(cls, laws: Laws, pair: FactorPair, max_context: int | None = None) -> RecipeEntry:
        """Give the entry of a pair by the laws, with L up to `max_context`."""
        found = laws.predict(pair, max_context)
        return cls(pair=pair, parameters=found.parameters, origin=Origin.PREDICTED, interval=found.interval)


class Recipe(BaseModel):
    """Entries for any number of pairs; the laws, or else the paper's prior, speak for all others.

    Attributes
    ----------
    dataset : str or None
    entries : tuple of RecipeEntry
    laws : Laws or None
        Fitted to the tuned entries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str | None = None
    entries: tuple[RecipeEntry, ...] = ()
    laws: Laws | None = None

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
        content = self.model_dump(mode="json", exclude_none=True)
        write_text(url, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=108))

    def updated(self, entries: Iterable[RecipeEntry], laws: Laws | None = None) -> Recipe:
        """Give a recipe with these entries in place of the same pairs' old ones; other pairs stay.

        Parameters
        ----------
        entries : iterable of RecipeEntry
            A predicted one does not take the place of a tuned one.
        laws : Laws, optional
            In place of the old ones; old predicted entries then follow the new laws too. None: the old stay.
        """
        tuned = {entry.pair for entry in self.entries if entry.origin is Origin.TUNED}
        new = {
            entry.pair: entry
            for entry in entries
            if not (entry.origin is Origin.PREDICTED and entry.pair in tuned)
        }
        kept = [
            RecipeEntry.predicted(laws, entry.pair) if laws and entry.origin is Origin.PREDICTED else entry
            for entry in self.entries
            if entry.pair not in new
        ]
        return Recipe(dataset=self.dataset, entries=(*kept, *new.values()), laws=laws or self.laws)

    def entry(self, pair: FactorPair) -> RecipeEntry:
        """Give the entry of `pair`; where there is none, the laws' prediction, or else the paper's prior."""
        for entry in self.entries:
            if entry.pair == pair:
                return entry
        if self.laws:
            return RecipeEntry.predicted(self.laws, pair)
        return RecipeEntry(pair=pair, parameters=paper_prior(pair), origin=Origin.PAPER)
