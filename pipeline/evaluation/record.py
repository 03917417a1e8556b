"""An evaluation in MLflow: a run with the report, and inside it one run with the scores of each model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipeline import environment
from pipeline.code_version import code_version
from pipeline.config import Config
from pipeline.evaluation.candidates import PUBLISHED, Candidate
from pipeline.evaluation.chunks import model_identity
from pipeline.evaluation.held_out import HeldOutSplit
from pipeline.evaluation.note import evaluation_note, model_note
from pipeline.evaluation.run import CSV, FIGURES, PARQUET, REPORT, SCORES, Evaluated
from pipeline.evaluation.summary import Summary
from pipeline.evaluation.tidy import Row
from pipeline.mlflow_view.recipe_values import pair_tags, recipe_metrics, run_params
from pipeline.mlflow_view.source_run import source_run
from pipeline.mlflow_view.views import EVALUATED, EVALUATIONS, ROLE
from pipeline.records.recording import recorded
from pipeline.storage.files import join, read_bytes, resolve
from pipeline.store.field_store import FieldStore
from pipeline.tracking import NOTE, TrackedData, Tracker, check_reachable, how_to_look, tracking_uri

_NAMES = {
    ("fair_crps", ""): "crps",
    ("fair_crps_skill", "bicubic"): "crps_skill",
    ("fair_crps_skill", "quantile_mapping"): "crps_skill_over_quantile_mapping",
    ("fair_crps_skill", PUBLISHED): "crps_skill_over_paper",
    **{
        (name, ""): name
        for name in (
            "rmse", "bias", "spread_skill_ratio", "log_spectral_distance", "conservation_tile",
            "conservation_cell",
        )
    },
}  # fmt: skip
"""By metric and reference: what MLflow calls it after the split, as the runs of trainings do."""


def where_recorded(config: Config) -> tuple[Config, str]:
    """Give the configuration with an absolute output, where the other runs are too, and MLflow's address.

    Raises
    ------
    UserError
        If nothing could be recorded there.
    """
    output = environment.resolve_output(config.output, "--set output=FOLDER")
    uri = tracking_uri(config.tracking, output)
    check_reachable(uri)
    return config.model_copy(update={"output": output}), uri


def evaluation_key(candidates: Sequence[Candidate], store: FieldStore, split: str, output: str) -> str:
    """Name an evaluation by all that makes it another one: the same again goes on with its run."""
    models = sorted(
        json.dumps([
            one.label, model_identity(one.saved.card), one.config.sampling.model_dump(mode="json"),
            one.config.seed, one.config.scoring.model_dump(mode="json", exclude={"batch"}),
            one.config.evaluation.model_dump(mode="json"), one.config.data.deciding(),
        ], sort_keys=True)
        for one in candidates
    )  # fmt: skip
    what = json.dumps([output, store.info.fingerprint, split, models])
    return f"evaluation-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


class EvaluationRun:
    """What MLflow is told of one evaluation.

    Parameters
    ----------
    tracker : Tracker
    name : str
        Key of its run; those of the models are below it.
    store : FieldStore
    split : {"validation", "test"}
    """

    def __init__(self, tracker: Tracker, name: str, store: FieldStore, split: str) -> None:
        self._tracker, self._name, self._store, self._split = tracker, name, store, split

    def start(self, candidates: Sequence[Candidate]) -> None:
        """Begin, before anything is scored: how busy the machine is belongs to it."""
        pairs = list(dict.fromkeys(str(one.pair) for one in candidates))
        self._tracker.use_data(TrackedData.of(self._store, "evaluation"))
        self._tracker.start(
            self._name,
            f"evaluation of {', '.join(pairs)}, {self._split} split",
            tags={
                ROLE: "evaluation",
                "finescale.split": self._split,
                "finescale.pairs": ",".join(pairs),
                "finescale.models": ", ".join(one.label for one in candidates),
            },
        )

    def finish(self, found: Evaluated) -> None:
        """Record every model's scores, the tables, the figures and the report."""
        keys = {}
        for number, one in enumerate(found.summaries):
            keys[one.candidate.label] = key = f"{self._name}/{one.candidate.pair}/{number}"
            self._model(key, one, found)
        level = found.summaries[0].interval.level
        note = evaluation_note(_with_prior(found), self._store.info.name, self._split, level, keys)
        self._tracker.note(self._name, note)
        for file in (REPORT, CSV, PARQUET, SCORES, *(f"{FIGURES}/{name}" for name in found.figures)):
            self._tracker.artifact(self._name, file, read_bytes(join(found.output, file)))
        self._tracker.end(self._name, "FINISHED")

    def _model(self, key: str, one: Summary, found: Evaluated) -> None:
        tracker, candidate, spec = self._tracker, one.candidate, one.candidate.saved.model.spec
        rows = [
            row for row in _with_prior(found)
            if (row.pair, row.model, row.field) == (str(spec.pair), candidate.label, "ensemble")
        ]  # fmt: skip
        source = source_run(tracker.client, tracker.experiment_id, candidate.saved.url)
        tracker.start(
            key,
            f"{spec.pair} evaluated · {candidate.label}",
            parent=self._name,
            tags={
                ROLE: EVALUATED,
                **pair_tags(spec.pair),
                "finescale.split": self._split,
                "finescale.model": resolve(candidate.saved.url),
                "finescale.model_label": candidate.label,
                "finescale.sha256": candidate.saved.card["sha256"],
                "finescale.conservation": str(spec.parameters.conservation),
                **({"finescale.source_run": source.run_id} if source else {}),
                NOTE: model_note(rows, self._name, candidate, self._split, one.interval.level, source),
            },
            params={
                **run_params(spec.pair, spec.parameters),
                **candidate.config.sampling.model_dump(mode="json"),
                "seed": candidate.config.seed,
            },
        )
        size = {"windows": one.scores.ensemble.windows, "blocks": one.interval.blocks}
        tracker.metrics(key, {**recipe_metrics(spec.parameters), **size, **_chosen(rows, self._split)})
        tracker.end(key, "FINISHED")


@contextmanager
def evaluation_run(
    config: Config, store: FieldStore, candidates: Sequence[Candidate], split: HeldOutSplit, output: str
) -> Iterator[EvaluationRun]:
    """Hold the evaluation's run open while it is scored; at the end, say what became of the record.

    Parameters
    ----------
    config : Config
        From `where_recorded`.
    store : FieldStore
    candidates : sequence of Candidate
    split : {"validation", "test"}
    output : str
        Folder of the scores.

    Raises
    ------
    UserError
        If MLflow does not answer, or another process has this evaluation in hand.
    """
    name = evaluation_key(candidates, store, split, output)
    with recorded(config, store, name, "evaluation", {"finescale.code": code_version()}) as tracker:
        run = EvaluationRun(tracker, name, store, split)
        run.start(candidates)
        yield run
        if not tracker.flush(config.tracking.patience):
            print("MLflow does not answer: what it lacks is kept, the same command delivers it")
        if page := tracker.page(name):
            print(f"its run, in MLflow: {page}")
        print(f"all evaluated models: {tracker.address(EVALUATIONS[split])}")
        print(f"look at the run: {how_to_look(tracker.uri, config.output)}", flush=True)


def _with_prior(found: Evaluated) -> list[Row]:
    """Give all rows, those over a model with the paper's settings under one name, whatever its label."""
    priors = {
        (str(one.candidate.pair), one.candidate.label) for one in found.summaries if one.candidate.published
    }
    return [
        replace(row, reference=PUBLISHED) if (row.pair, row.reference) in priors else row
        for row in found.table.rows
    ]


def _chosen(rows: Sequence[Row], split: str) -> dict[str, float]:
    """Give a model's scores by the names of MLflow; of CRPS and skill also the ends of their intervals."""
    metrics: dict[str, float] = {}
    for row in rows:
        if (name := _NAMES.get((row.metric, row.reference))) is None:
            continue
        metrics[f"{split}_{name}"] = row.value
        if name.startswith("crps"):
            metrics |= {f"{split}_{name}_low": row.low, f"{split}_{name}_high": row.high}
    return metrics
