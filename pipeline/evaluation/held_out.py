"""Which windows a finished model is scored on: unless told otherwise, those that its training scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import yaml

from pipeline.config import Config, SplitSettings
from pipeline.data.covariates import Covariate, Covariates
from pipeline.data.pair_data import PairData
from pipeline.data.splits import Segment, SplitName, longest_context, split_time
from pipeline.data.windows import Windows, check_divides
from pipeline.errors import UserError
from pipeline.evaluation.seen import seen
from pipeline.model_file import load_card, load_model
from pipeline.models.family import ModelSpec, SuperResolutionModel
from pipeline.store.field_store import FieldStore
from pipeline.store.manifest import StoreInfo

HeldOutSplit = Literal["validation", "test"]

_RELEVANT = {"preset", "seed", "data", "model", "sampling", "scoring", "evaluation"}


@dataclass(frozen=True)
class SavedModel:
    """A finished model and what its card remembers.

    Attributes
    ----------
    url : str
        Its folder.
    card : dict
        `model.json`.
    model : SuperResolutionModel
        On the CPU.
    """

    url: str
    card: dict[str, Any]
    model: SuperResolutionModel

    @classmethod
    def open(cls, url: str) -> SavedModel:
        """Load a model.

        Raises
        ------
        UserError
            If it is missing, damaged or newer than this version.
        """
        return cls(url, load_card(url), load_model(url))

    @cached_property
    def data(self) -> dict[str, Any]:
        """What the card says about the training data."""
        return dict(self.card.get("data") or {})

    @property
    def tells_windows(self) -> bool:
        """Whether the card says which windows the model was scored on; older ones do not."""
        return {"settings", "max_context", "seed"} <= self.data.keys()

    def defaults(self) -> dict[str, Any]:
        """Give the settings that score the model as its training did, as a tree for `load_config`."""
        spec, data = self.model.spec, self.data
        known = {
            "scoring": data.get("scoring") or self._scored_windows(),
            "seed": data.get("seed"),
            "sampling": self.card.get("sampling"),
            "tuning": {"max_context": data["max_context"]} if "max_context" in data else None,
        }
        return {
            "model": spec.settings.model_dump(mode="json"),
            "data": {**data.get("settings", {}), "transform": spec.transform.kind},
            **{key: value for key, value in known.items() if value is not None},
        }

    def _scored_windows(self) -> dict[str, int] | None:
        """Give how many windows the scores on the card stand on, for older cards, which tell no more."""
        # A split that had fewer windows than were asked for has as many today: the same ones.
        scores = self.card.get("scores", {})
        names = {"windows": "validation_windows", "test_windows": "test_windows"}
        return {key: int(scores[name]) for key, name in names.items() if scores.get(name)} or None

    def check(self, config: Config) -> None:
        """Refuse settings that a finished model no longer heeds.

        Raises
        ------
        UserError
            Naming the first.
        """
        wanted, own = config.model.model_dump(), self.model.spec.settings.model_dump()
        for name, value in own.items():
            if wanted[name] != value:
                raise UserError(
                    f"model.{name} = {wanted[name]}: the model was built with {value}; leave it out"
                )
        kind = self.model.spec.transform.kind
        if config.data.transform != kind:
            raise UserError(
                f"data.transform = {config.data.transform}: the model was trained with {kind}; leave it out"
            )
        for name in ("statics", "dynamics"):
            asked, names = getattr(config.data, name), _names(getattr(self.model.spec, name))
            if asked is not None and asked != names:
                raise UserError(
                    f"data.{name} = {_listed(asked)}: the model was trained with {_listed(names)}; "
                    "leave it out"
                )


def relevant(config: Config) -> str:
    """Write the part of a configuration that scoring heeds, as YAML that `--config` reads."""
    tree = config.model_dump(mode="json", include=_RELEVANT)
    tree["tuning"] = {"max_context": config.tuning.max_context}
    if config.data.store is not None:
        del tree["data"]["synthetic"]
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=108)


def check_store(saved: SavedModel, info: StoreInfo, config: Config, split: HeldOutSplit) -> list[str]:
    """Check that a model can be scored on a split of a store, honestly.

    Returns
    -------
    list of str
        What a reader of the scores should know, one line each.

    Raises
    ------
    UserError
        If units, covariates, pair or grid do not fit, or if frames that the model was trained on (or, on the
        test split, chosen by) would be scored.
    """
    data, spec = saved.data, saved.model.spec
    if "units" in data and info.units != data["units"]:
        raise UserError(
            f"store {info.name}: its units are {info.units}, the model's {data['units']}; "
            "ingest it again so that they agree"
        )
    _check_covariates(saved, info)
    check_divides(spec.pair, config.data, *info.shape[1:])
    _room_for_context(saved, info, config)
    same = info.fingerprint == data.get("fingerprint")
    if same and "split" in data.get("settings", {}):
        trained = SplitSettings.model_validate(data["settings"]["split"])
        if config.data.split != trained:
            raise UserError(
                f"data.split = {_brief(config.data.split)}: the model was trained with {_brief(trained)} of "
                "this store, so frames of its training would be scored; leave data.split out"
            )
    known = seen(data, info, split, config.data.split)
    notes = []
    if not saved.tells_windows:
        notes.append(
            "the model's card is from an older version and does not say which windows its training scored; "
            "the configuration's are used"
        )
    if not same:
        trained_on = f"{data.get('name', 'unknown')} ({str(data.get('fingerprint', '-'))[:8]})"
        note = f"{info.name} ({info.fingerprint[:8]}) is other data than the model's, {trained_on}"
        if known == "elsewhere":
            note += "; its days overlap those of the training, and only name, variable or projection differ"
        notes.append(note)
    if known == "chosen":
        notes.append(
            f"tuning chose by scores on days of this {split} split, so they are better here than on new "
            "data; --split test has other days"
        )
    if known == "unknown":
        notes.append("the model's card does not tell which days training has seen: these may be among them")
    if info.cadence_seconds != data.get("cadence_seconds", info.cadence_seconds):
        notes.append(
            f"its frames are {info.cadence_seconds / 60:g} min apart, "
            f"those of the training {data['cadence_seconds'] / 60:g} min"
        )
    return notes


def _check_covariates(saved: SavedModel, info: StoreInfo) -> None:
    spec = saved.model.spec
    for kind, remedy, needed, there in (
        ("static", "with --static NAME", spec.statics, info.statics),
        ("dynamic", "with --dynamic NAME", spec.dynamics, info.dynamics),
    ):
        lacking = [name for name in _names(needed) if name not in there]
        if lacking:
            raise UserError(
                f"store {info.name}: no {kind} covariate {', '.join(lacking)}, which the model needs; "
                f"ingest it again {remedy}"
            )


def _names(covariates: Sequence[Covariate]) -> tuple[str, ...]:
    return tuple(one.name for one in covariates)


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"


def _brief(split: SplitSettings) -> str:
    shares = "/".join(f"{share:g}" for share in (split.train, split.validation, split.test))
    return f"{shares} with tiles" if split.tiles else shares


def _room_for_context(
    saved: SavedModel, info: StoreInfo, config: Config
) -> tuple[dict[SplitName, Segment], int]:
    """Give the splits and the largest L that they leave room for; the model's must be among them."""
    spec = saved.model.spec
    context = spec.parameters.context
    if context > config.tuning.max_context:
        raise UserError(
            f"tuning.max_context = {config.tuning.max_context} is below the model's L = {context}; "
            f"give --set tuning.max_context={context} or more"
        )
    segments = split_time(info.shape[0], config.data.split)
    longest = longest_context(segments, spec.pair, config.tuning.max_context)
    if context > longest:
        raise UserError(
            f"store {info.name}: {info.shape[0]} frames leave room for L up to {longest}, the model looks "
            f"back over L = {context}; give a longer period"
        )
    return segments, longest


def held_out_data(saved: SavedModel, store: FieldStore, config: Config) -> PairData:
    """Give a store's data as a model sees them: with its transform, its covariates and their numbers.

    Raises
    ------
    UserError
        If the store is too short for the model's context.
    """
    spec = saved.model.spec
    segments, longest = _room_for_context(saved, store.info, config)
    return PairData(
        store,
        spec.pair,
        longest,
        spec.transform,
        spec.scale,
        Covariates(spec.statics, spec.dynamics),  # not this store's mean and spread: the model's
        settings=config.data,
        segments=segments,
    )


def seen_by(spec: ModelSpec, windows: Windows) -> Windows:
    """Give windows with the context of a model, and its covariates with their numbers."""
    covariates = Covariates(spec.statics, spec.dynamics)
    return replace(windows.with_context(spec.parameters.context), covariates=covariates)
