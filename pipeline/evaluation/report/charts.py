"""The figures of a report, filled from sums and rows; each with what it shows and how it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from matplotlib.figure import Figure

from pipeline.evaluation import figures
from pipeline.evaluation.candidates import PUBLISHED, Candidate
from pipeline.evaluation.chunks import ENSEMBLE, MEAN
from pipeline.evaluation.figures import Skill, field_style, to_png
from pipeline.evaluation.grid import pixel_size
from pipeline.evaluation.measures.metric import Sums
from pipeline.evaluation.metrics import metrics_for, value_bins
from pipeline.evaluation.pieces import PairScores
from pipeline.evaluation.sums import WINDOWS, total
from pipeline.evaluation.tidy import SKILL, TidyTable
from pipeline.factors import FactorPair
from pipeline.store.manifest import StoreInfo

_CURVES = ("nearest", "bicubic", "quantile_mapping")  # references that curves are drawn of
_LEVELS = (*np.arange(0.05, 0.95, 0.05).round(2), 0.95, 0.975, 0.99, 0.995, 0.999, 0.9995, 0.9999)


@dataclass(frozen=True)
class Picture:
    """A figure for people.

    Attributes
    ----------
    name : str
        Of its file, without the ending.
    content : bytes
        PNG or GIF.
    alt : str
        What it shows.
    caption : str
        How it is read.
    """

    name: str
    content: bytes
    alt: str
    caption: str

    @property
    def file(self) -> str:
        """Its name with the ending."""
        return f"{self.name}.{'gif' if self.content.startswith(b'GIF8') else 'png'}"


@dataclass(frozen=True)
class Charts:
    """All figures that need no field values.

    Attributes
    ----------
    scores : sequence of PairScores
    table : TidyTable
    info : StoreInfo
    """

    scores: Sequence[PairScores]
    table: TidyTable
    info: StoreInfo

    @cached_property
    def best(self) -> dict[FactorPair, Candidate]:
        """The model of each pair that is drawn: the one that was best in validation, not by these scores.

        One with the paper's settings is a reference, and drawn only if it is the pair's only model.
        """
        return {
            one.rivals.pair: min(
                one.rivals.models, key=lambda model: (model.published, model.validation_crps)
            )
            for one in self.scores
        }

    def across_pairs(self) -> Iterator[Picture]:
        """Draw skill with intervals, skill as a map, and the hyperparameters."""
        skill = self.skill
        yield self._picture(
            "skill-intervals",
            figures.skill_intervals(skill, level=self.scores[0].rivals.config.evaluation.level),
            "CRPS skill of each pair's model over every reference, with intervals",
            "Right of 0 the ensemble is better than the reference. An interval that leaves out 0 decides it: "
            "it says where the skill would lie with other weather of the same kind.",
        )
        errors = {"bicubic": "bicubic's error", PUBLISHED: "the error with the paper's settings"}
        for name, error in errors.items():
            over = {pair: row[name].value for pair, row in skill.items() if name in row}
            if len(over) > 1:
                yield self._picture(
                    "skill-map" if name == "bicubic" else f"skill-map-{name}",
                    figures.skill_map(over, name),
                    f"CRPS skill over {field_style(name).title.lower()} by space factor and time factor",
                    f"The share of {error} that the ensemble saves, in per cent, for every factor pair; "
                    "negative: it errs more.",
                )
        parameters = {pair: one.saved.model.spec.parameters for pair, one in self.best.items()}
        yield self._picture(
            "parameters",
            figures.parameters_over_pairs(parameters),
            "beta, L and f of the models over the factors",
            "The three values that are retuned for each pair.",
        )

    @cached_property
    def skill(self) -> dict[FactorPair, dict[str, Skill]]:
        """What each pair's best model saves of the error of the references, and of the paper's settings."""
        found: dict[FactorPair, dict[str, Skill]] = {}
        for one in self.scores:
            pair, label = one.rivals.pair, self.best[one.rivals.pair].label
            for name in (*one.baselines, MEAN):
                (row,) = self.table.all(pair, label, ENSEMBLE, SKILL, name)
                found.setdefault(pair, {})[name] = Skill(row.value, row.low, row.high)
            for model in one.rivals.models:
                if model.published and model.label != label:
                    (row,) = self.table.all(pair, label, ENSEMBLE, SKILL, model.label)
                    found[pair][PUBLISHED] = Skill(row.value, row.low, row.high)
        return found

    def calibration(self) -> Iterator[Picture]:
        """Draw rank histograms of all pairs, and a reliability diagram of each."""
        histograms = [
            figures.RankHistogram(one.rivals.pair, self._total(one)["ranks.counts"].numpy())
            for one in self.scores
        ]
        yield self._picture(
            "rank-histograms",
            figures.rank_histograms(histograms),
            "Rank of the truth among the members, a histogram per pair",
            "Flat: the truth could be one of the members. A U: too little spread. A slope: a bias. Ties, as "
            "between dry pixels, share their ranks evenly.",
        )
        for one in self.scores:
            pair, sums = one.rivals.pair, self._total(one)
            thresholds = one.rivals.config.evaluation.thresholds
            curves = [
                figures.ReliabilityCurve(
                    threshold,
                    forecast=(sums["exceedance.forecast"][i] / sums["exceedance.count"][i]).numpy(),
                    observed=(sums["exceedance.observed"][i] / sums["exceedance.count"][i]).numpy(),
                    count=sums["exceedance.count"][i].numpy(),
                )
                for i, threshold in enumerate(thresholds)
            ]
            yield self._picture(
                f"reliability-{pair}",
                figures.reliability(curves, f"Reliability of exceedance probabilities, {pair}", self._rate),
                f"Reliability diagram of pair {pair} at {len(thresholds)} thresholds",
                "On the diagonal, what is forecast with 70 % happens in 70 % of the cases. Below: how often "
                "each probability is forecast.",
            )

    def distributions(self) -> Iterator[Picture]:
        """Draw quantiles and spectra of all pairs."""
        yield self._picture(
            "quantiles",
            figures.quantile_quantile([self._quantiles(one) for one in self.scores], self.info.units),
            "Quantiles of members, mean and references against those of the truth, a panel per pair",
            "Below the diagonal a field is too weak: interpolation smooths extremes away.",
        )
        yield self._picture(
            "spectra",
            figures.spectra([self._spectra(one) for one in self.scores], self.info.units),
            "Radially averaged power spectra of truth, members, mean and references, a panel per pair",
            "A field whose curve falls below the truth's lacks variance at that scale: it is too smooth.",
        )
        in_time = [self._in_time(one) for one in self.scores if one.rivals.pair.time > 1]
        if in_time:
            yield self._picture(
                "temporal-spectra",
                figures.temporal_spectra(in_time),
                "Power by period in time of members, mean and references, relative to the truth's, a panel "
                "per pair that refines time",
                "Below 1 a field changes too little from frame to frame, above 1 it flickers; at 0 are "
                "references that repeat one frame. A window has few frames, so there are few periods.",
            )

    def neighbourhoods(self) -> Iterator[Picture]:
        """Draw the fractions skill score of each pair."""
        for one in self.scores:
            pair, settings = one.rivals.pair, one.rivals.config.evaluation
            metric = next(one for one in metrics_for(settings, self.info.units) if one.name == "fss")
            sums = self._total(one)
            base = (sums["exceedance.observed"].sum(-1) / sums["exceedance.count"].sum(-1)).numpy()
            found = {name: metric.compute(total(of)).numpy() for name, of in self._shown(one).items()}
            # A score of no event says nothing of a place.
            found = {name: np.where(base[:, None] > 0, values, np.nan) for name, values in found.items()}
            skill = figures.FractionsSkill(settings.thresholds, settings.scales, found, base, *self._pixel)
            yield self._picture(
                f"fss-{pair}",
                figures.fractions_skill(skill, f"Fractions skill score, {pair}", self._rate),
                f"Fractions skill score of pair {pair} by threshold and neighbourhood",
                "From which scale on rain above a threshold is in the right place: 1 is perfect, above the "
                "grey line it is useful.",
            )

    @cached_property
    def _pixel(self) -> tuple[float, str]:
        """Side of a pixel and its unit."""
        return pixel_size(self.scores[0].rivals.data.store)

    @property
    def _rate(self) -> str:
        """Units of the thresholds."""
        settings = self.scores[0].rivals.config.evaluation
        return "mm/h" if settings.threshold_units == "mm/h" else self.info.units

    def _total(self, one: PairScores) -> dict[str, torch.Tensor]:
        return total(one.models[self.best[one.rivals.pair].label][ENSEMBLE])

    def _shown(self, one: PairScores) -> dict[str, Sums]:
        """Give the fields that curves are drawn of."""
        model = one.models[self.best[one.rivals.pair].label]
        references = {name: one.baselines[name] for name in _CURVES if name in one.baselines}
        return {ENSEMBLE: model[ENSEMBLE], MEAN: model[MEAN], **references}

    def _quantiles(self, one: PairScores) -> figures.Quantiles:
        bins = value_bins(one.rivals.config.evaluation, self.info.units)
        levels = torch.tensor(_LEVELS, dtype=torch.float64)

        def of(sums: Sums, name: str) -> np.ndarray:
            return bins.quantiles(total(sums)[f"values.{name}"], levels).numpy()

        shown = self._shown(one)
        values = {"truth": of(shown[ENSEMBLE], "truth")}
        values |= {name: of(sums, "field") for name, sums in shown.items()}
        return figures.Quantiles(one.rivals.pair, levels.numpy(), values)

    def _spectra(self, one: PairScores) -> figures.Spectra:
        power = self._power(one, "spectra")
        return figures.Spectra(one.rivals.pair, power, one.rivals.windows.patch, *self._pixel)

    def _in_time(self, one: PairScores) -> figures.TemporalSpectra:
        minutes = self.info.cadence_seconds / 60
        return figures.TemporalSpectra(one.rivals.pair, self._power(one, "temporal"), minutes)

    def _power(self, one: PairScores, statistic: str) -> dict[str, np.ndarray]:
        """Give the power of a window, of the truth and of every field that curves are drawn of."""

        def of(sums: Sums, name: str) -> np.ndarray:
            whole = total(sums)
            return (whole[f"{statistic}.{name}"] / whole[WINDOWS]).numpy()

        shown = self._shown(one)
        return {
            "truth": of(shown[ENSEMBLE], "truth"),
            **{name: of(sums, "field") for name, sums in shown.items()},
        }

    def _picture(self, name: str, drawn: Figure, alt: str, caption: str) -> Picture:
        return Picture(name, to_png(drawn), alt, caption)
