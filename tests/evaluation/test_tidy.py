import csv
import io
import math

import pyarrow.parquet
import pytest

from pipeline.config import EvaluationSettings
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.metrics import metrics_for
from pipeline.evaluation.tidy import COLUMNS, DIMENSIONS, SKILL, Row, TidyTable, unit_of

REFERENCES = {*BASELINES, "quantile_mapping"}


@pytest.fixture
def table(score, store):
    return TidyTable.of([score()], store.info)


def test_every_field_has_every_metric_that_makes_sense_for_it(table):
    catalogue = metrics_for(EvaluationSettings())
    found = {}
    for row in table.rows:
        found.setdefault((row.model, row.field), set()).add(row.metric)
    models = {(label, field) for label in ("one", "other") for field in ("ensemble", "mean")}
    assert found.keys() == {("", name) for name in REFERENCES} | models
    ensembles_only = {metric.name for metric in catalogue if metric.ensemble_only}
    assert found["one", "ensemble"] == {metric.name for metric in catalogue} | {SKILL}
    assert found["one", "mean"] == found["one", "ensemble"] - ensembles_only
    assert found["", "bicubic"] == found["one", "mean"] - {SKILL}
    assert {row.reference for row in table.rows if row.metric == SKILL and row.model == "one"} == {
        *REFERENCES, "mean", "other",
    }  # fmt: skip


def test_rows_tell_where_they_come_from(table):
    assert {(row.pair, row.split, row.store, row.windows) for row in table.rows} == {
        ("4x2", "validation", "rain", 6)
    }
    (crps,) = table.all("4x2", "one", "ensemble", "fair_crps")
    assert (crps.units, crps.better, crps.coordinates) == ("mm/h", "lower", {})
    assert 0 < crps.low < crps.value < crps.high
    assert table.one("4x2", "", "bicubic", "spectrum").units == "(mm/h)^2"
    at = {"threshold": 1.0, "scale": 3.0}
    assert table.one("4x2", "one", "mean", "fss", at=at).coordinates == at
    assert table.one("4x2", "one", "mean", "fss", at={"scale": 7.0}) is None
    assert table.one("4x2", "one", "mean", "crps") is None
    with pytest.raises(KeyError):
        table.value("4x2", "one", "mean", "spread_skill_ratio")


def test_two_models_are_compared_on_the_same_draws(table):
    ours, theirs = (
        table.one("4x2", label, "ensemble", SKILL, other)
        for label, other in (("one", "other"), ("other", "one"))
    )
    assert 1 - ours.value == pytest.approx(1 / (1 - theirs.value))
    assert 1 - ours.low == pytest.approx(1 / (1 - theirs.high))
    alone = table.one("4x2", "one", "ensemble", "fair_crps")
    # What both see alike, such as how wet a block is, does not make the difference unsure.
    assert ours.high - ours.low < 0.5 * (alone.high - alone.low) / alone.value


def test_both_files_hold_the_same_rows(table):
    texts = list(csv.DictReader(io.StringIO(table.csv())))
    columns = pyarrow.parquet.read_table(io.BytesIO(table.parquet()))
    assert tuple(texts[0]) == tuple(columns.column_names) == COLUMNS
    assert len(texts) == columns.num_rows == len(table.rows)
    for text, row, kept in zip(texts, columns.to_pylist(), table.rows, strict=True):
        assert row == kept.flat()
        assert {name: value for name, value in text.items() if value} == {
            name: str(value) for name, value in row.items() if value not in (None, "")
        }
    assert columns.schema.field("value").type == pyarrow.float64()
    assert columns.schema.field("blocks").type == pyarrow.int64()


def test_what_has_no_number_is_empty():
    row = Row("", "4x2", "bicubic", "fss", 0.5, math.nan, math.nan, "", "higher", 6, 3, "test", "rain")
    flat = row.flat()
    assert [flat[name] for name in ("model", "reference", "low", "high", *DIMENSIONS)] == [None] * (
        4 + len(DIMENSIONS)
    )
    assert TidyTable((row,)).csv().splitlines()[1].startswith(",4x2,bicubic,fss,,")


def test_units_are_those_of_the_field(store):
    units = {metric.name: unit_of(metric, store.info) for metric in metrics_for(EvaluationSettings())}
    assert (units["fair_crps"], units["spectrum"], units["fss"]) == ("mm/h", "(mm/h)^2", "")
    assert units["log_spectral_distance"] == "dB"
