"""Arranged tables of the MLflow UI: which runs, columns and charts they show, and where they are.

What the UI calls a shared view is a tag of the experiment: filter, columns and charts as JSON, under a key
that a link names. So a link opens a table that has been arranged for its question. The UI heeds no filter in
the link beside such a key, so every filter needs a view of its own.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pipeline.factors import FactorPair

ROLE = "finescale.role"
"""Tag that says what a run is: sweep, study, trial, rival, training, evaluation, evaluated."""
EVALUATED = "evaluated"
"""Role of one model's scores inside an evaluation."""
_VIEW = "mlflow.sharedViewState."
_TRAINING = "workflowType=machine_learning"  # else a new browser shows the pages for language models
_WIDTHS = {
    "metrics.beta": 80, "metrics.context": 70, "params.context": 70, "params.power": 80,
    "params.threshold": 90, "params.scope": 70, "metrics.crps": 90, "metrics.crps_skill": 90,
    "tags.finescale.pair": 110, "tags.finescale.conservation": 160, "tags.finescale.outcome": 140,
    "tags.finescale.sweep": 160, "tags.finescale.model_label": 150, "attributes.Dataset": 220,
    "metrics.spread_skill_ratio": 140, "metrics.test_spread_skill_ratio": 170,
    "metrics.validation_crps": 120,
    "metrics.test_crps_skill_low": 150, "metrics.test_crps_skill_high": 150,
    "metrics.validation_crps_skill_low": 180, "metrics.validation_crps_skill_high": 180,
}  # fmt: skip
"""Of columns, in pixels: what their heads and values need, if more or less than others."""


@dataclass(frozen=True)
class View:
    """An arranged table of runs, with charts.

    Attributes
    ----------
    key : str
        What links name it by.
    filter : str
        In MLflow's search language.
    order_by : str
        A column, as in `metrics.crps`; the smallest first.
    columns : tuple of str
        In their order, as in `params.beta`.
    axes : tuple of str
        Columns of a parallel-coordinates chart; none: no chart.
    scatters : tuple of (str, str)
        x and y of scatter charts.
    name : str or None
        Under which the UI lists it among the saved views; none: only links lead there.
    """

    key: str
    filter: str
    order_by: str
    columns: tuple[str, ...]
    axes: tuple[str, ...] = ()
    scatters: tuple[tuple[str, str], ...] = ()
    name: str | None = None

    @property
    def tag(self) -> str:
        """The experiment's tag that holds it."""
        return f"{_VIEW}{self.key}"

    def to_json(self, time: int) -> str:
        """Write it as the UI reads it; `time` is milliseconds since 1970."""
        columns = [_column(name) for name in self.columns]
        state: dict[str, Any] = {
            "searchFilter": self.filter,
            "orderByKey": _column(self.order_by),
            "orderByAsc": True,
            "selectedColumns": columns,
            "columnOrder": columns,
            "columnWidths": {_column(name): _WIDTHS.get(name, 100) for name in self.columns},
            "runsHiddenMode": "SHOW_ALL",  # else a chart shows the first ten
            "hideEmptyCharts": True,
        }
        if self.axes or self.scatters:
            state |= self._charts()
        text = json.dumps(state)
        if self.name is None:
            return text
        return json.dumps({"name": self.name, "createdAt": time, "updatedAt": time, "state": text})

    def _charts(self) -> dict[str, Any]:
        charts = [
            self._card(f"{x} {y}", "SCATTER", "each", xaxis=_axis(x), yaxis=_axis(y), runsCountToCompare=100)
            for x, y in self.scatters
        ]
        if self.axes:
            names = {
                kind: [axis.partition(".")[2] for axis in self.axes if axis.startswith(f"{kind}.")]
                for kind in ("params", "metrics")
            }
            parallel = {"selectedParams": names["params"], "selectedMetrics": names["metrics"]}
            charts.insert(0, self._card("parallel", "PARALLEL", "together", showAllRuns=True, **parallel))
        sections = [
            _section(self._id("together"), "All values together", display=bool(self.axes), columns=1),
            _section(self._id("each"), "Value by value", display=bool(self.scatters), columns=2),
            # The UI puts a chart of every other metric there.
            _section(self._id("model"), "Model metrics", display=False),
            _section(self._id("system"), "System metrics", display=False),
        ]
        return {"compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}

    def _card(self, what: str, type_: str, section: str, **content: Any) -> dict[str, Any]:
        return {
            "uuid": self._id(what), "type": type_, "metricSectionId": self._id(section),
            "deleted": False, "isGenerated": False, **content,
        }  # fmt: skip

    def _id(self, what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.key}/{what}"))


_F = ("params.power", "params.threshold", "params.scope")

VALUES = View(
    key="finescale-values",
    name="Which beta, L, f for which pair",
    filter=f"metrics.test_crps >= 0 AND tags.`{ROLE}` != '{EVALUATED}'",
    order_by="tags.finescale.pair",
    columns=(
        "tags.finescale.pair", "metrics.beta", "metrics.context", "tags.finescale.conservation",
        "metrics.test_crps", "metrics.test_crps_low", "metrics.test_crps_high", "metrics.test_crps_skill",
        "metrics.test_spread_skill_ratio", "tags.finescale.role", "tags.finescale.sweep",
        "attributes.Dataset",
    ),
    axes=("params.space", "params.time", "metrics.log10_beta", "metrics.context", "metrics.test_crps_skill"),
)  # fmt: skip
"""Every run that was scored on held-out data, of all sweeps: the tuned pairs and the final models."""


def _evaluated(split: str) -> View:
    score = f"metrics.{split}_crps"
    return View(
        key=f"finescale-evaluated-{split}",
        name=f"Finished models evaluated on the {split} split",
        filter=f"tags.`{ROLE}` = '{EVALUATED}' AND {score} >= 0",
        order_by="tags.finescale.pair",
        columns=(
            "tags.finescale.pair", "tags.finescale.model_label", "metrics.beta", "metrics.context",
            "tags.finescale.conservation", score, f"{score}_low", f"{score}_high", f"{score}_skill",
            f"{score}_skill_low", f"{score}_skill_high", f"metrics.{split}_spread_skill_ratio",
            "metrics.windows", "attributes.Dataset",
        ),
        axes=("params.space", "params.time", "metrics.log10_beta", "metrics.context", f"{score}_skill"),
    )  # fmt: skip


EVALUATIONS = {split: _evaluated(split) for split in ("test", "validation")}
"""By split: the models that jobs/evaluate.py scored, one row each, in runs inside those with the reports."""


def trials_view(sweep: str, pair: FactorPair) -> View:
    """Arrange the trials of one pair, the best first, with what was searched over as axes."""
    scope = f"tags.`finescale.sweep` = '{sweep}' AND tags.`finescale.pair` = '{pair}'"
    return View(
        key=f"finescale-trials-{sweep}-{pair}",
        filter=f"{scope} AND tags.`finescale.role` = 'trial'",
        order_by="metrics.crps",
        columns=(
            "params.beta", "params.context", *_F, "metrics.crps", "metrics.crps_skill",
            "metrics.spread_skill_ratio", "metrics.trained_steps", "tags.finescale.outcome",
        ),
        axes=("params.context", *_F, "metrics.log10_beta", "metrics.crps"),
        scatters=(("metrics.log10_beta", "metrics.crps"), ("params.context", "metrics.crps")),
    )  # fmt: skip


def sweep_view(sweep: str) -> View:
    """Arrange the studies of a sweep, one row a pair."""
    return View(
        key=f"finescale-sweep-{sweep}",
        filter=f"tags.`finescale.sweep` = '{sweep}' AND metrics.test_crps >= 0",
        order_by=VALUES.order_by,
        columns=(*VALUES.columns[:9], "metrics.validation_crps", "metrics.prior_loss"),
        axes=VALUES.axes,
    )


def page_of_view(experiment_id: str, key: str, *, charts: bool = False) -> str:
    """Give the address of a view inside the UI, from its `#`."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?{_TRAINING}&viewStateShareKey={quote(key, safe='')}{mode}"


def page_of_run(experiment_id: str, run_id: str) -> str:
    """Give the address of a run inside the UI, from its `#`."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{_TRAINING}"


def _column(name: str) -> str:
    kind, _, key = name.partition(".")
    return f"{kind}.`{key}`"


def _axis(name: str) -> dict[str, str]:
    kind, _, key = name.partition(".")
    return {"key": key, "type": "METRIC" if kind == "metrics" else "PARAM"}


def _section(key: str, name: str, *, display: bool, columns: int = 3) -> dict[str, Any]:
    return {
        "uuid": key, "name": name, "display": display, "columns": columns,
        "isReordered": True, "deleted": False, "isGenerated": False,
    }  # fmt: skip
