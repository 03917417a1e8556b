"""The page: what was scored, headline scores, figures, formulas, provenance."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from pipeline import __version__
from pipeline.evaluation.chunks import ENSEMBLE
from pipeline.evaluation.figures.style import field_style, in_order
from pipeline.evaluation.held_out import HeldOutSplit
from pipeline.evaluation.metrics import metrics_for
from pipeline.evaluation.pieces import PairScores, deciding_code
from pipeline.evaluation.report import html
from pipeline.evaluation.report.charts import Picture
from pipeline.evaluation.report.html import Cell, Section
from pipeline.evaluation.report.results import references, results, skill_over
from pipeline.evaluation.report.words import (
    cell,
    moment,
    number,
    only_wet,
    signed,
    tiny,
    wanted,
)
from pipeline.evaluation.seen import Seen, in_words, seen
from pipeline.evaluation.tidy import Row, TidyTable, unit_of
from pipeline.store.manifest import StoreInfo

_FEW = {"threshold", "scale", "level", "return_windows"}
"""Dimensions of metrics that fit into a table; the others are curves."""


@dataclass(frozen=True)
class Page:
    """All that a report is made from.

    Attributes
    ----------
    scores : sequence of PairScores
    table : TidyTable
    info : StoreInfo
    split : {"validation", "test"}
    notes : sequence of str
        What a reader must know.
    pictures : mapping of str to sequences of Picture
        By section: `pairs`, `calibration`, `distributions`, `neighbourhoods`, `windows`.
    settings : str
        The configuration, as YAML.
    """

    scores: Sequence[PairScores]
    table: TidyTable
    info: StoreInfo
    split: HeldOutSplit
    notes: Sequence[str]
    pictures: Mapping[str, Sequence[Picture]]
    settings: str

    def html(self) -> str:
        """Write it."""
        models, pairs = len(self._models()), len(self.scores)
        title = (
            f"{self.info.name}: {models} model{'s' * (models > 1)}, {pairs} factor pair{'s' * (pairs > 1)}"
        )
        level = self.scores[0].rivals.config.evaluation.level
        lead = (
            f"Ensembles of super-resolved fields on the {self.split} split, {in_words(self._seen())}, "
            f"against references on the same windows and pixels. Values are in {self.info.units}; intervals "
            f"are of {level:.0%}, from a bootstrap over blocks of weather."
        )
        sections = [
            Section("In short", self._short()),
            Section("What was scored", self._scored()),
            Section("Headline scores", self._headline()),
            Section("Skill over references", self._skill() + self._shown("pairs")),
            Section("Calibration", self._shown("calibration")),
            Section("Values and scales", self._shown("distributions")),
            Section("In the right place", self._shown("neighbourhoods")),
            Section("Windows to look at", self._shown("windows")),
            Section("All numbers", self._numbers()),
            Section("Formulas and sources", self._metrics()),
            Section("Provenance", self._provenance()),
        ]
        return html.document(title, lead, sections)

    def _seen(self) -> list[Seen]:
        return [
            seen(model.saved.data, self.info, self.split, model.config.data.split)
            for one in self.scores
            for model in one.rivals.models
        ]

    def _models(self) -> list[tuple[PairScores, str]]:
        return [(one, label) for one in self.scores for label in one.models]

    def _shown(self, part: str) -> str:
        """Give the figures of a part; what is said of several alike stands below the first."""
        figures, said = [], ""
        for one in self.pictures[part]:
            figures.append(html.figure(one.content, one.alt, "" if one.caption == said else one.caption))
            said = one.caption
        return "\n".join(figures)

    def _short(self) -> str:
        """Say the result of each model in a sentence or two; one with the paper's settings is a reference."""
        notes = [html.paragraph(note, "note") for note in self.notes]
        return "\n".join([*notes, *map(html.paragraph, results(self.scores, self.table))])

    def _scored(self) -> str:
        rows: list[list[Cell | str]] = []
        sampled, blocks, wet = [], [], []
        for one in self.scores:
            windows = one.rivals.windows
            for model in one.rivals.models:
                spec, config = model.saved.model.spec, model.config
                beta, context = spec.parameters.beta, spec.parameters.context
                rows.append([
                    str(one.rivals.pair), model.label, Cell(f"{beta:.3g}", value=beta), _count(context),
                    str(spec.parameters.conservation), _count(config.sampling.members), _count(len(windows)),
                    f"{windows.patch} x {windows.patch}", _count(one.rivals.blocks.count),
                ])  # fmt: skip
                sampled.append(
                    f"{config.sampling.sampler}, {config.sampling.steps} steps, seed {config.seed}"
                )
                blocks.append(one.rivals.blocks.described(config.scoring))
                wet.append(only_wet(config.data, self.info.units))
        heads = ["pair", "model", "beta", "L", "f", "members", "windows", "pixels of each", "blocks"]
        rivals = self.scores[0].rivals
        times, chosen = rivals.data.store.times, rivals.data.segments[rivals.split]
        facts = (
            f"Store {self.info.name} ({self.info.variable}, {self.info.units}, every "
            f"{self.info.cadence_seconds / 60:g} min, {self.info.shape[1]} x {self.info.shape[2]} pixels), "
            f"{self.split} split: {moment(times[chosen.start])} to {moment(times[chosen.stop - 1])} UTC. A "
            "pair 4x2 is 4 times finer in space and 2 times in time; its models see the same windows. "
            f"{_distinct(wet)} Absolute scores also depend on the weather of so few windows and are less "
            "certain than skills, which compare fields on the same weather. "
            f"Members are drawn with {_distinct(sampled)}; blocks of the bootstrap are {_distinct(blocks)}."
        )
        return html.paragraph(facts) + html.table(heads, rows)

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
            (f"FSS, {threshold:g} {unit}, {scale:g} px", "fss", {"threshold": threshold, "scale": scale},
             "{:.3f}".format),
            ("spectral distance, dB", "log_spectral_distance", {}, "{:.1f}".format),
            ("amount error per tile", "conservation_tile", {}, tiny),
            ("amount error per cell", "conservation_cell", {}, tiny),
        ]  # fmt: skip
        rows: list[list[Cell | str]] = []
        for one in self.scores:
            pair = one.rivals.pair
            for label, name in _fields(one):
                first = Cell(f"{pair} {field_style(name).title}", label, strong=name == ENSEMBLE)
                rows.append([first, *(
                    cell(self.table.one(pair, label, name, metric, at=at), write, bare=write is tiny)
                    for _, metric, at, write in columns
                )])  # fmt: skip
        words = html.paragraph(
            "Every field on the same windows and pixels; small: its interval. CRPS: that of a field without "
            "uncertainty is its mean absolute error. A spread / skill of 1 is a reliable ensemble, below 1 "
            f"it is overconfident. P{100 * level:g} error: the field's quantile less the truth's. FSS: 1 is "
            "perfect. Amount error: how far the rain of a window or a coarse cell is from what was given, "
            "relative. A click on a head sorts."
        )
        return words + html.table(["field", *(head for head, *_ in columns)], rows)

    def _skill(self) -> str:
        """Give the skill of every model over every reference, a column for each, whatever the pair."""
        found: list[tuple[Cell, dict[str, Row]]] = []
        for one, label in self._models():
            known_as = references(one, label)
            skill = {column: skill_over(self.table, one, label, name) for column, name in known_as.items()}
            found.append((Cell(str(one.rivals.pair), label), skill))
        columns = in_order(column for _, skill in found for column in skill)
        rows: list[list[Cell | str]] = [
            [first, *(cell(skill.get(column), "{:.1%}".format, starred=True) for column in columns)]
            for first, skill in found
        ]
        words = html.paragraph(
            "1 - CRPS / CRPS of the reference, from the same draws of blocks for both: 100 % is perfect, 0 "
            "no better. *: the interval leaves out 0."
        )
        heads = ["pair", *(f"over {field_style(name).title.lower()}" for name in columns)]
        return words + html.table(heads, rows)

    def _numbers(self) -> str:
        """Give every metric that is a number or a few, of every field, a table per pair."""
        parts = []
        for one in self.scores:
            fields, rows = _fields(one), []
            for metric in metrics_for(one.rivals.config.evaluation, self.info.units):
                if not set(metric.dimensions) <= _FEW:
                    continue
                found = [
                    {tuple(row.coordinates.items()): row
                     for row in self.table.all(one.rivals.pair, label, name, metric.name)}
                    for label, name in fields
                ]  # fmt: skip
                unit = unit_of(metric, self.info)
                for at in dict.fromkeys(key for of in found for key in of):
                    where = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in at)
                    name = Cell(metric.title + (f", {unit}" if unit else ""), where)
                    rows.append([name, *(cell(of.get(at), number) for of in found)])
            several = len(one.models) > 1
            heads = [
                f"{field_style(name).title}{f' of {label}' if label and several else ''}"
                for label, name in fields
            ]
            parts.append(html.folded(f"{one.rivals.pair}: all metrics", html.table(["metric", *heads], rows)))
        words = "This, and curves (spectra, reliability, ranks), are rows of scores.csv and scores.parquet."
        return html.paragraph(words) + "\n".join(parts)

    def _metrics(self) -> str:
        settings = self.scores[0].rivals.config.evaluation
        rows: list[list[Cell | str]] = [
            [Cell(metric.title, metric.name), metric.formula, wanted(metric.better), metric.source]
            for metric in metrics_for(settings, self.info.units)
        ]
        heads = ["metric", "formula", "best", "source"]
        return html.folded(f"{len(rows)} metrics", html.table(heads, rows, words=True))

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
        facts = html.table(["what", "which"], rows, words=True)
        return facts + html.folded("Settings", html.verbatim(self.settings))


def _fields(one: PairScores) -> list[tuple[str, str]]:
    """Give label and name of every field of a pair, the models' first."""
    models = [(label, name) for label, fields in one.models.items() for name in fields]
    return models + [("", name) for name in one.baselines]


def _count(number_of: int) -> Cell:
    return Cell(f"{number_of:,}", value=number_of)


def _distinct(texts: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(texts))
