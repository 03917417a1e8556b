"""What a person reads about a registered model: which pair, which values, how good and how sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.factors import FactorPair, ScaleParameters
from pipeline.mlflow_view.views import page_of_run

OF_CHAMPION = "Champion is version"
"""How the description of a registered model begins, if no person wrote it."""


@dataclass(frozen=True)
class ModelFacts:
    """A model's pair, recipe values and score.

    Attributes
    ----------
    pair : FactorPair
    parameters : ScaleParameters
    family, dataset, units : str
    crps : float
        On the test split.
    interval : (float, float) or None
        90 % interval of the CRPS.
    validation : (float, str) or None
        CRPS on the validation split, which decides who is champion, and what names its windows.
    """

    pair: FactorPair
    parameters: ScaleParameters
    family: str
    dataset: str
    units: str
    crps: float
    interval: tuple[float, float] | None
    validation: tuple[float, str] | None = None

    @classmethod
    def of(
        cls,
        card: Mapping[str, Any],
        crps: float,
        interval: Sequence[float] | None,
        validation: Sequence[Any] | None = None,
    ) -> ModelFacts:
        """Take them from a model's card."""
        data = card.get("data") or {}
        return cls(
            pair=FactorPair.parse(card["pair"]),
            parameters=ScaleParameters.model_validate(card["parameters"]),
            family=str(card["family"]),
            dataset=str(data.get("name", "unknown data")),
            units=str(data.get("units", "")),
            crps=crps,
            interval=None if interval is None else (interval[0], interval[1]),
            validation=None if validation is None else (float(validation[0]), str(validation[1])),
        )

    def tags(self) -> dict[str, str]:
        """Give them as tags of a model version."""
        low_high = zip(("test_crps_low", "test_crps_high"), map(repr, self.interval or ()), strict=False)
        return {
            "pair": str(self.pair),
            "beta": repr(self.parameters.beta),
            "context": str(self.parameters.context),
            "conservation": str(self.parameters.conservation),
            "family": self.family,
            "dataset": self.dataset,
            "test_crps": repr(self.crps),
            **dict(low_high),
            **self._validated(),
        }

    def _validated(self) -> dict[str, str]:
        if self.validation is None:
            return {}
        return {"validation_crps": repr(self.validation[0]), "validated_on": self.validation[1]}

    def of_version(self, run: Any) -> str:
        """Describe a model version, with a link to the run that made it, in markdown."""
        sure = f" (90 %: {self.interval[0]:.4g} to {self.interval[1]:.4g})" if self.interval else ""
        chosen = f", validation CRPS {self.validation[0]:.4g}" if self.validation else ""
        info = run.info
        page = page_of_run(info.experiment_id, info.run_id)
        # Without emphasis: the list of versions shows the beginning as it is written.
        return (
            f"{self.parameters}; test CRPS {self.crps:.4g}{sure} {self.units}{chosen}. Made by "
            f"[{info.run_name}]({page}), for {self.dataset} made {self.pair.space} times finer in space and "
            f"{self.pair.time} in time ({self.family})."
        )


def of_model(name: str, version: str, description: str) -> str:
    """Describe a registered model by its champion, in markdown."""
    return (
        f"{OF_CHAMPION} {version}: {description}\n\n"
        "A version becomes champion by its CRPS on the validation split; the test split only reports.\n\n"
        f'Load it: `mlflow.pyfunc.load_model("models:/{name}@champion").predict({{"coarse": coarse}})`'
    )
