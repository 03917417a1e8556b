"""How many network evaluations an ensemble needs: a finished model's CRPS by sampler and evaluations."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmarks.figures import steps_figure
from pipeline.benchmarks.finished import check_alike
from pipeline.benchmarks.tables import Row, StepsTable
from pipeline.config import Config, SamplingSettings
from pipeline.data.batch import Batch
from pipeline.data.dataset import open_dataset
from pipeline.data.pair_data import PairData
from pipeline.devices import device_of_trial
from pipeline.environment import resolve_output
from pipeline.errors import UserError
from pipeline.evaluation.figures.style import to_png
from pipeline.evaluation.held_out import SavedModel, check_store, held_out_data
from pipeline.progress import progress
from pipeline.storage.files import exists, join, read_text, write_bytes, write_text
from pipeline.store.field_store import FieldStore
from pipeline.tuning.scoring import score

WAYS: tuple[tuple[str, int], ...] = (
    *(("dpm_solver_pp_2m", evaluations) for evaluations in (3, 5, 8, 12, 20)),
    *(("heun", evaluations) for evaluations in (3, 5, 9)),
    *(("ddim", evaluations) for evaluations in (3, 5, 8, 20)),
    ("ancestral", 1000),
)
"""Samplers and network evaluations; the last one is what the others are compared with."""

Say = Callable[[str], None]

_KEY = ("model", "store", "settings")  # rows that agree in these belong to one table
_COLUMNS = (
    *_KEY, "pair", "units", "windows", "members", "sampler", "evaluations", "crps", "spread_skill", "seconds",
)  # fmt: skip


def crps_over_steps(config: Config, saved: SavedModel) -> StepsTable:
    """Score a model by all of `WAYS`; table and figure go to `benchmark` in the output folder."""
    return steps_benchmark(config, saved, WAYS)


def steps_benchmark(
    config: Config, saved: SavedModel, ways: Sequence[tuple[str, int]], say: Say = print
) -> StepsTable:
    """Score the same windows with the same members by several samplers; what is known is not done again.

    Known are the rows of OUTPUT/benchmark/steps.csv of this model, this store and these settings. Those of
    others stay there.

    Parameters
    ----------
    config : Config
        The user's settings above `saved.defaults()`.
    saved : SavedModel
    ways : sequence of (str, int)
        As `WAYS`; on a shorter schedule than they ask for, as many evaluations as it has.
    say : callable
        Told the table, a row when it is ready.

    Raises
    ------
    UserError
        If the store is not one for this model, has no test windows, or the table there is not ours.
    """
    folder = join(resolve_output(config.output), "benchmark")
    torch.set_num_threads(max(1, int(config.tuning.cpus_per_trial)))
    store = open_dataset(config.data, config.output)
    notes = check_alike(saved, store) + check_store(saved, store.info, config, "test")
    data, model = held_out_data(saved, store, config), saved.model.to(device_of_trial(config))
    spec = model.spec
    windows = data.scored_windows("test", spec.parameters.context, config.scoring, config.seed)
    most = spec.settings.noise_steps
    wanted = list(dict.fromkeys((sampler, min(evaluations, most)) for sampler, evaluations in ways))
    kept = _Kept.open(join(folder, "steps.csv"), saved, store, config)
    known = {(row.sampler, row.evaluations): row for row in kept.rows()}
    left = [way for way in wanted if way not in known]
    table = StepsTable(
        spec.pair, store.info.name, store.info.units, len(windows), config.sampling.members,
        reference=known.get(wanted[-1]),
    )  # fmt: skip
    for line in (*(f"note: {note}" for note in notes), table.head):
        say(line)
    with progress("scoring", sum(n for _, n in left) * len(windows), "evaluations") as tell:
        timed = _Timed(model, tell)
        for way in wanted:
            if way not in known:
                known[way] = _scored(timed, data, config, way, len(windows))
                kept.add(known[way], table)
            say(table.line(known[way]))
    rows = tuple(known[way] for way in wanted)
    done = StepsTable(
        table.pair, table.name, table.units, table.windows, table.members, rows, reference=rows[-1]
    )
    write_bytes(join(folder, "steps.png"), to_png(steps_figure(done)))
    say(f"table and figure: {folder}\n")
    return done


class _Timed:
    """A model that counts the seconds it samples for, and tells how far it is."""

    def __init__(self, model: Any, tell: Callable[[int], None]) -> None:
        self._model, self._tell, self.seconds = model, tell, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def sample(self, batch: Batch, sampling: SamplingSettings, seed: int) -> Tensor:
        """Draw an ensemble."""
        began = time.perf_counter()
        members: Tensor = self._model.sample(batch, sampling, seed)
        if members.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - began
        self._tell(sampling.steps * len(batch))
        return members


def _scored(timed: _Timed, data: PairData, config: Config, way: tuple[str, int], windows: int) -> Row:
    sampler, evaluations = way
    sampling = config.sampling.model_copy(update={"sampler": sampler, "steps": evaluations})
    timed.seconds = 0.0
    found = score(timed, data, config.model_copy(update={"sampling": sampling}), "test").ensemble
    fields = windows * sampling.members * data.pair.time
    return Row(sampler, evaluations, found.crps, found.spread_skill_ratio, timed.seconds / fields)


@dataclass(frozen=True)
class _Kept:
    """The CSV with the rows of this table, and of others."""

    url: str
    key: dict[str, str]
    lines: list[dict[str, str]]

    @classmethod
    def open(cls, url: str, saved: SavedModel, store: FieldStore, config: Config) -> _Kept:
        decides = {
            "data": config.data.deciding(),
            "max_context": config.tuning.max_context,
            "members": config.sampling.members,
            "seed": config.seed,
            "windows": config.scoring.test_windows,
        }
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        key = dict(zip(_KEY, (saved.card["sha256"], store.info.fingerprint, digest), strict=True))
        reader = csv.DictReader(io.StringIO(read_text(url) if exists(url) else ",".join(_COLUMNS)))
        kept = cls(url, key, list(reader))
        torn = any(None in line or None in line.values() for line in kept.lines)
        if torn or tuple(reader.fieldnames or ()) != _COLUMNS:
            raise UserError(f"{url}: not a table of this benchmark; move it away, or give another --output")
        return kept

    def rows(self) -> list[Row]:
        """Give the rows of this table."""
        mine = [line for line in self.lines if self.key.items() <= line.items()]
        try:
            return [_row(line) for line in mine]
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.url}: damaged ({error}); remove it, it is made again") from error

    def add(self, row: Row, table: StepsTable) -> None:
        """Write one more, with all others."""
        facts = {"pair": table.pair, "units": table.units, "windows": table.windows, "members": table.members}
        self.lines.append({name: str(value) for name, value in (self.key | facts | vars(row)).items()})
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.lines)
        write_text(self.url, text.getvalue())


def _row(line: Mapping[str, str]) -> Row:
    numbers = (float(line[name]) for name in ("crps", "spread_skill", "seconds"))
    return Row(line["sampler"], int(line["evaluations"]), *numbers)
