"""The report that people read: what was scored, headline scores, figures, formulas, provenance."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import torch

from pipeline import __version__
from pipeline.data.manifest import StoreInfo
from pipeline.evaluation import html
from pipeline.evaluation.charts import Picture
from pipeline.evaluation.chunks import ENSEMBLE, deciding_code
from pipeline.evaluation.figures import field_style
from pipeline.evaluation.html import Cell, Section
from pipeline.evaluation.metrics import metrics_for
from pipeline.evaluation.run import PairScores
from pipeline.evaluation.tidy import SKILL, Row
from pipeline.evaluation.words import cell, known, moment, number, percents, signed, spread_in_words, wanted


@dataclass(frozen=True)
class Page:
    """All that a report is made from.

    Attributes
    ----------
    scores : sequence of PairScores
    rows : sequence of Row
    info : StoreInfo
    split : str
    notes : sequence of str
        What a reader must know.
    pictures : mapping of str to sequences of Picture
        By section: `pairs`, `calibration`, `distributions`, `neighbourhoods`, `windows`.
    settings : str
        The configuration, as YAML.
    """

    scores: Sequence[PairScores]
    rows: Sequence[Row]
    info: StoreInfo
    split: str
    notes: Sequence[str]
    pictures: dict[str, list[Picture]]
    settings: str

    def html(self) -> str:
        """Write it."""
        models = sum(len(one.models) for one in self.scores)
        pairs = len(self.scores)
        title = (
            f"{self.info.name}: {models} model{'s' * (models > 1)}, {pairs} factor pair{'s' * (pairs > 1)}"
        )
        lead = (
            f"Ensembles of super-resolved fields on the {self.split} split, which training and tuning have "
            f"not seen, against references on the same windows and pixels. {self.info.units}; intervals hold "
            f"{self._level:.0%} of the resamples of a block bootstrap."
        )
        sections = [
            Section("In short", self._short()),
            Section("What was scored", self._scored()),
            Section("Headline scores", self._headline()),
            Section("Skill", self._skill()),
            Section("Calibration", self._shown("calibration")),
            Section("Values and scales", self._shown("distributions")),
            Section("Place", self._shown("neighbourhoods")),
            Section("Windows to look at", self._shown("windows")),
            Section("All numbers", self._numbers()),
            Section("Metrics", self._metrics()),
            Section("Provenance", self._provenance()),
        ]
        return html.document(title, lead, [one for one in sections if one.content])

    @property
    def _level(self) -> float:
        return self.scores[0].rivals.config.evaluation.level

    @cached_property
    def _index(self) -> dict[tuple[str, str, str, str, str], list[Row]]:
        found: dict[tuple[str, str, str, str, str], list[Row]] = {}
        for row in self.rows:
            key = row.pair, row.model, row.field, row.metric, row.reference
            found.setdefault(key, []).append(row)
        return found

    def _of(
        self, pair: str, model: str, field: str, metric: str, reference: str = "",
        at: Mapping[str, float] = MappingProxyType({}),
    ) -> Row | None:  # fmt: skip
        for row in self._index.get((pair, model, field, metric, reference), []):
            if all(row.coordinates.get(name) == value for name, value in at.items()):
                return row
        return None

    def _models(self) -> list[tuple[PairScores, str]]:
        return [(one, label) for one in self.scores for label in one.models]

    def _short(self) -> str:
        """Say the result of each model in a sentence."""
        lines = []
        for one, label in self._models():
            pair = str(one.rivals.pair)
            crps = self._of(pair, label, ENSEMBLE, "fair_crps")
            spread = self._of(pair, label, ENSEMBLE, "spread_skill_ratio")
            skills = [
                row for row in self.rows
                if (row.pair, row.model, row.field, row.metric) == (pair, label, ENSEMBLE, SKILL)
                and row.reference in one.baselines
            ]  # fmt: skip
            if crps is None or not skills:
                continue
            hardest = min(skills, key=lambda row: row.value)
            name = field_style(hardest.reference).title.lower()
            than = f"{abs(hardest.value):.0%} {'below' if hardest.value >= 0 else 'above'} that of {name}"
            text = f"{pair}, {label}: CRPS {crps.value:.3g} {crps.units}, {than}, the best of the references"
            text += f" ({percents(hardest)})" if known(hardest) else ""
            if spread is not None:
                text += f"; {spread_in_words(spread.value)}"
            lines.append(html.paragraph(text + "."))
        return "\n".join([*(html.paragraph(note, "note") for note in self.notes), *lines])

    def _scored(self) -> str:
        rows = []
        for one in self.scores:
            for model in one.rivals.models:
                spec, config = model.saved.model.spec, model.config
                sampling = config.sampling
                rows.append([
                    str(one.rivals.pair), model.label, f"{spec.parameters.beta:.3g}",
                    str(spec.parameters.context), str(spec.parameters.conservation),
                    f"{sampling.members}, {sampling.sampler}, {sampling.steps} steps, seed {config.seed}",
                    f"{len(one.rivals.windows)} of {one.rivals.windows.patch} x {one.rivals.windows.patch}",
                    f"{one.blocks.count}: {one.blocks.described(config.scoring)}",
                ])  # fmt: skip
        heads = ["pair", "model", "beta", "L", "f", "members", "windows", "blocks"]
        rivals = self.scores[0].rivals
        times, segment = rivals.data.store.times, rivals.data.segments
        chosen = next(one for one in segment.values() if one.start <= rivals.windows.places[0, 0] < one.stop)
        facts = (
            f"Store {self.info.name} ({self.info.variable}, {self.info.units}, every "
            f"{self.info.cadence_seconds / 60:g} min, {self.info.shape[1]} x {self.info.shape[2]} pixels), "
            f"{self.split} split: {moment(times[chosen.start])} to {moment(times[chosen.stop - 1])} UTC. A "
            "pair 4x2 is 4 times finer in space and 2 times in time. Models of one pair see the same windows."
        )
        return html.paragraph(facts) + html.table(heads, rows, names=True)

    def _headline(self) -> str:
        settings = self.scores[0].rivals.config.evaluation
        thresholds, scales = settings.thresholds, settings.scales
        threshold = 1.0 if 1.0 in thresholds else thresholds[len(thresholds) // 2]
        scale = float(5 if 5 in scales else scales[len(scales) // 2])
        level = settings.quantiles[-1]
        unit = "mm/h" if settings.threshold_units == "mm/h" else self.info.units
        columns: list[tuple[str, str, dict[str, float], Callable[[float], str]]] = [
            (f"CRPS, {self.info.units}", "fair_crps", {}, "{:.4f}".format),
            ("bias", "bias", {}, signed),
            ("spread / skill", "spread_skill_ratio", {}, "{:.2f}".format),
            (f"P{100 * level:g} error", "quantile_error", {"level": level}, signed),
            (f"FSS {threshold:g} {unit}, {scale:g} px", "fss", {"threshold": threshold, "scale": scale},
             "{:.3f}".format),
            ("spectral distance, dB", "log_spectral_distance", {}, "{:.1f}".format),
            ("amount error per tile", "conservation_tile", {}, "{:.1e}".format),
            ("amount error per cell", "conservation_cell", {}, "{:.1e}".format),
        ]  # fmt: skip
        rows: list[list[Cell | str]] = []
        for one in self.scores:
            pair = str(one.rivals.pair)
            fields = [(label, name) for label, of in one.models.items() for name in of]
            fields += [("", name) for name in one.baselines]
            for label, name in fields:
                ours = name == ENSEMBLE
                cells: list[Cell | str] = [pair, Cell(field_style(name).title, label, strong=ours)]
                for _, metric, at, write in columns:
                    cells.append(cell(self._of(pair, label, name, metric, at=at), write))
                rows.append(cells)
        words = html.paragraph(
            "Every field on the same windows and pixels; small: its interval. CRPS: that of a field without "
            "uncertainty is its mean absolute error. A spread / skill of 1 is a reliable ensemble, below 1 "
            f"it is overconfident. P{100 * level:g} error: the field's quantile less the truth's. FSS: 1 is "
            "perfect. Amount error: of the rain kept, relative. A click on a head sorts."
        )
        heads = ["pair", "field", *(head for head, *_ in columns)]
        return words + html.table(heads, rows, names=True)

    def _skill(self) -> str:
        references = list(
            dict.fromkeys(row.reference for row in self.rows
                          if row.metric == SKILL and row.field == ENSEMBLE)
        )  # fmt: skip
        rows = []
        for one, label in self._models():
            cells: list[Cell | str] = [Cell(str(one.rivals.pair), label)]
            for reference in references:
                found = self._of(str(one.rivals.pair), label, ENSEMBLE, SKILL, reference)
                cells.append(cell(found, "{:.1%}".format, starred=True))
            rows.append(cells)
        words = html.paragraph(
            "1 - CRPS / CRPS of the reference, from the same draws of blocks for both: 100 % is perfect, 0 "
            "no better. *: the interval leaves out 0."
        )
        heads = ["pair", *(f"over {field_style(name).title.lower()}" for name in references)]
        return words + html.table(heads, rows) + self._shown("pairs")

    def _shown(self, part: str) -> str:
        return "\n".join(html.figure(p.content, p.alt, p.caption) for p in self.pictures.get(part, []))

    def _numbers(self) -> str:
        """Give every metric that is a number or a few, of every field, a table per pair."""
        parts = []
        for one in self.scores:
            fields = [("", name) for name in one.baselines]
            fields = [(label, name) for label, of in one.models.items() for name in of] + fields
            rows: list[list[Cell | str]] = []
            for metric in metrics_for(one.rivals.config.evaluation, self.info.units):
                few = {"threshold", "scale", "level", "return_windows"}
                if not set(metric.dimensions) <= few:
                    continue
                found = {
                    field: {tuple(row.coordinates.items()): row
                            for row in self._index.get((str(one.rivals.pair), *field, metric.name, ""), [])}
                    for field in fields
                }  # fmt: skip
                for at in dict.fromkeys(key for of in found.values() for key in of):
                    where = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in at)
                    unit = metric.unit.replace("units", self.info.units)
                    name = Cell(metric.title + (f", {unit}" if unit else ""), where)
                    rows.append([name, *(cell(found[field].get(at), number) for field in fields)])
            several = len(one.models) > 1
            heads = [
                f"{field_style(name).title}{f' of {label}' if label and several else ''}"
                for label, name in fields
            ]
            parts.append(html.folded(f"{one.rivals.pair}: all metrics", html.table(["metric", *heads], rows)))
        words = (
            "Curves (spectra, reliability, ranks) and everything here are rows of scores.csv and "
            "scores.parquet."
        )
        return html.paragraph(words) + "\n".join(parts)

    def _metrics(self) -> str:
        settings = self.scores[0].rivals.config.evaluation
        rows: list[list[Cell | str]] = [
            [Cell(metric.title, metric.name), metric.formula, wanted(metric.better), metric.source]
            for metric in metrics_for(settings, self.info.units)
        ]
        return html.folded(
            "Formulas and sources", html.table(["metric", "formula", "best", "source"], rows, text=True)
        )

    def _provenance(self) -> str:
        models: list[list[Cell | str]] = [
            [f"model {model.label}", f"{model.saved.url}, weights SHA-256 {model.saved.card['sha256']}"]
            for one in self.scores
            for model in one.rivals.models
        ]
        rows: list[list[Cell | str]] = [
            ["store", f"{self.info.name}, fingerprint {self.info.fingerprint}"],
            *models,
            ["code", f"finescale {__version__}, deciding code {deciding_code()}"],
            ["libraries", f"PyTorch {torch.__version__}, Python {platform.python_version()}"],
        ]
        facts = html.table(["what", "which"], rows, text=True)
        return facts + html.folded("Settings", html.verbatim(self.settings))
