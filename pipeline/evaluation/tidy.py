"""Every score as one row: model, pair, field, metric, value with its interval. CSV and Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from itertools import product
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pipeline.config import EvaluationSettings
from pipeline.evaluation.chunks import ENSEMBLE, MEAN
from pipeline.evaluation.intervals import Estimate, intervals, paired_intervals
from pipeline.evaluation.measures.metric import Metric, Sums
from pipeline.evaluation.metrics import metrics_for
from pipeline.evaluation.pieces import PairScores
from pipeline.store.manifest import StoreInfo

DIMENSIONS = ("threshold", "scale", "level", "return_windows", "bin", "rank", "wavenumber", "frequency")
SKILL = "fair_crps_skill"


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes
    ----------
    model : str
        Its label; empty for a reference, which is the same for all models of its pair.
    pair, field, metric : str
    value, low, high : float
        With the ends of its interval; NaN where there is none.
    units : str
        Empty for a ratio.
    better : str
        Which values are: lower, higher, one, zero or none.
    windows, blocks : int
        How much it stands on.
    split, store : str
    reference : str
        Of a comparison: what it is with, a field or another model's label.
    coordinates : dict
        By dimension (`DIMENSIONS`), of a metric that has any.
    """

    model: str
    pair: str
    field: str
    metric: str
    value: float
    low: float
    high: float
    units: str
    better: str
    windows: int
    blocks: int
    split: str
    store: str
    reference: str = ""
    coordinates: dict[str, float] = dataclass_field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """Give it as the tables have it; None where there is nothing."""
        numbers = {name: _number(getattr(self, name)) for name in ("value", "low", "high")}
        return {
            "model": self.model or None,
            "pair": self.pair,
            "field": self.field,
            "metric": self.metric,
            "reference": self.reference or None,
            **{name: self.coordinates.get(name) for name in DIMENSIONS},
            **numbers,
            "units": self.units,
            "better": self.better,
            "windows": self.windows,
            "blocks": self.blocks,
            "split": self.split,
            "store": self.store,
        }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


COLUMNS = (
    "model", "pair", "field", "metric", "reference", *DIMENSIONS, "value", "low", "high", "units", "better",
    "windows", "blocks", "split", "store",
)  # fmt: skip


@dataclass(frozen=True)
class TidyTable:
    """All numbers of an evaluation.

    Attributes
    ----------
    rows : tuple of Row
        Of each pair: its references, then its models, each followed by its CRPS skill over every reference,
        over its own mean, and over the pair's other models.
    """

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, scores: Sequence[PairScores], info: StoreInfo) -> TidyTable:
        """Compute every metric of every field, with intervals, and every comparison."""
        return cls(tuple(row for one in scores for row in _Pair(one, info).rows()))

    @cached_property
    def _by_name(self) -> dict[tuple[str, str, str, str, str], list[Row]]:
        found: dict[tuple[str, str, str, str, str], list[Row]] = {}
        for row in self.rows:
            key = row.pair, row.model, row.field, row.metric, row.reference
            found.setdefault(key, []).append(row)
        return found

    def all(self, pair: object, model: str, field: str, metric: str, reference: str = "") -> list[Row]:
        """Give the rows of a metric of one field, one for each of its coordinates."""
        return self._by_name.get((str(pair), model, field, metric, reference), [])

    def one(
        self,
        pair: object,
        model: str,
        field: str,
        metric: str,
        reference: str = "",
        *,
        at: Mapping[str, float] = MappingProxyType({}),
    ) -> Row | None:
        """Give the row of a metric at some coordinates; none if it is not there."""
        for row in self.all(pair, model, field, metric, reference):
            if all(row.coordinates.get(name) == value for name, value in at.items()):
                return row
        return None

    def value(self, pair: object, model: str, field: str, metric: str) -> float:
        """Give a number that is there for certain.

        Raises
        ------
        KeyError
            If it is not.
        """
        row, *_ = self._by_name[str(pair), model, field, metric, ""]
        return row.value

    def csv(self) -> str:
        """Write it as CSV; an empty cell is a number or a name that does not exist."""
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.flat() for row in self.rows)
        return out.getvalue()

    def parquet(self) -> bytes:
        """Write it as Parquet, with null for a number or a name that does not exist."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers, counts = {*DIMENSIONS, "value", "low", "high"}, {"windows", "blocks"}
        kinds = {
            name: pa.float64() if name in numbers else pa.int64() if name in counts else pa.string()
            for name in COLUMNS
        }
        out = io.BytesIO()
        table = pa.Table.from_pylist([row.flat() for row in self.rows], schema=pa.schema(kinds))
        pq.write_table(table, out, compression="zstd")
        return out.getvalue()


@dataclass(frozen=True)
class _Pair:
    scores: PairScores
    info: StoreInfo

    @property
    def settings(self) -> EvaluationSettings:
        return self.scores.rivals.config.evaluation

    def rows(self) -> Iterator[Row]:
        metrics = metrics_for(self.settings, self.info.units)
        crps = next(metric for metric in metrics if metric.name == "fair_crps")
        for name, sums in self.scores.baselines.items():
            yield from self._field("", name, sums, metrics)
        for label, fields in self.scores.models.items():
            for name, sums in fields.items():
                yield from self._field(label, name, sums, metrics)
                others = dict(self.scores.baselines)
                if name == ENSEMBLE:
                    others[MEAN] = fields[MEAN]
                    others |= {
                        other: theirs[ENSEMBLE]
                        for other, theirs in self.scores.models.items()
                        if other != label
                    }
                for reference, theirs in others.items():
                    yield self._skill(label, name, sums, reference, theirs, crps)

    def _drawing(self) -> dict[str, Any]:
        """Give what every interval is drawn with: the same blocks for each, so that they compare."""
        config = self.scores.rivals.config
        return {
            "resamples": config.scoring.resamples,
            "generator": torch.Generator().manual_seed(config.seed),
            "level": self.settings.level,
        }

    def _field(self, model: str, name: str, sums: Sums, metrics: Iterable[Metric]) -> Iterator[Row]:
        for metric in metrics:
            if not metric.applies(sums, ensemble=name == ENSEMBLE):
                continue
            found = intervals(sums, metric, **self._drawing())
            axes = [
                metric.coordinate(dimension, size)
                for dimension, size in zip(metric.dimensions, found.value.shape, strict=True)
            ]
            units = unit_of(metric, self.info)
            for index in product(*(range(len(axis)) for axis in axes)):
                at = {
                    dimension: float(axis[i])
                    for dimension, axis, i in zip(metric.dimensions, axes, index, strict=True)
                }
                ends = _ends(found, index)
                yield self._row(model, name, metric.name, ends, units, metric.better, coordinates=at)

    def _skill(self, model: str, name: str, sums: Sums, reference: str, theirs: Sums, crps: Metric) -> Row:
        found = paired_intervals(sums, theirs, crps, kind="skill", **self._drawing())
        return self._row(model, name, SKILL, _ends(found, ()), "", "higher", reference=reference)

    def _row(
        self,
        model: str,
        name: str,
        metric: str,
        ends: tuple[float, float, float],
        units: str,
        better: str,
        **more: Any,
    ) -> Row:
        rivals, (value, low, high) = self.scores.rivals, ends
        return Row(
            model, str(rivals.pair), name, metric, value, low, high, units, better, len(rivals.windows),
            rivals.blocks.count, rivals.split, self.info.name, **more,
        )  # fmt: skip


def _ends(found: Estimate, index: tuple[int, ...]) -> tuple[float, float, float]:
    def at(values: Tensor) -> float:
        return float(values[index])

    return at(found.value), at(found.low), at(found.high)


def unit_of(metric: Metric, info: StoreInfo) -> str:
    """Give a metric's unit; empty for a ratio."""
    return metric.unit.replace("units^2", f"({info.units})^2").replace("units", info.units)
