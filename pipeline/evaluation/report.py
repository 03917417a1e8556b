"""A finished model's scores on held-out windows, with all that they stand on, as files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import torch

from pipeline import __version__
from pipeline.config import Config
from pipeline.data.manifest import StoreInfo
from pipeline.data.store import FieldStore
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.evaluation.held_out import (
    CountedWindows,
    HeldOutSplit,
    SavedModel,
    check_store,
    held_out_windows,
)
from pipeline.evaluation.interval import Interval, crps_interval
from pipeline.evaluation.showcase import wettest_panel
from pipeline.evaluation.table import scores_table
from pipeline.files import join, write_bytes, write_text
from pipeline.model_file import json_numbers
from pipeline.progress import progress

SCORES, PANEL = "scores.json", "panel.png"
FORMAT = 1


@dataclass(frozen=True)
class ModelScores:
    """All that is known about a model's scores.

    Attributes
    ----------
    saved : SavedModel
    info : StoreInfo
        Of the store that was scored on.
    config : Config
    split : {"validation", "test"}
    evaluation : Evaluation
    interval : Interval
        Of the CRPS.
    """

    saved: SavedModel
    info: StoreInfo
    config: Config
    split: HeldOutSplit
    evaluation: Evaluation
    interval: Interval

    def table(self) -> str:
        """Lay the scores out as text."""
        return scores_table(self.saved.model.spec, self.info, self.split, self.evaluation, self.interval)

    def to_json(self) -> str:
        """Write everything that the scores stand on, and the scores."""
        spec, config = self.saved.model.spec, self.config
        content = {
            "format": FORMAT,
            "model": {
                "sha256": self.saved.card["sha256"],
                "family": spec.settings.family,
                "pair": str(spec.pair),
                "parameters": spec.parameters.model_dump(mode="json"),
            },
            "data": {
                "name": self.info.name,
                "fingerprint": self.info.fingerprint,
                "units": self.info.units,
                "cadence_seconds": self.info.cadence_seconds,
                "settings": config.data.deciding(),
                "max_context": config.tuning.max_context,
            },
            "split": self.split,
            "windows": self.evaluation.ensemble.windows,
            "sampling": config.sampling.model_dump(mode="json"),
            "seed": config.seed,
            "scores": json_numbers(self.evaluation.as_metrics()),
            "crps_interval": json_numbers(asdict(self.interval)),
            "versions": {"finescale": __version__, "torch": torch.__version__},
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


def describe(saved: SavedModel, config: Config, split: HeldOutSplit, info: StoreInfo | None) -> str:
    """Say what would be scored, after all checks that need no field values.

    Parameters
    ----------
    saved : SavedModel
    config : Config
    split : {"validation", "test"}
    info : StoreInfo, optional
        Of the store; none: synthetic rain that is not made for that.

    Raises
    ------
    UserError
        If the model cannot be scored so.
    """
    saved.check(config)
    notes = check_store(saved, info, config) if info else []
    count = config.scoring.test_windows if split == "test" else config.scoring.windows
    data = info.name if info else "synthetic rain"
    return "\n".join(
        [
            f"plan: {saved.model.spec.pair}, {saved.model.spec.parameters}",
            f"  scored on at most {count} windows of the {split} split of {data}, "
            f"{config.sampling.members} members each, {config.sampling.steps} network evaluations a member",
            *(f"note: {note}" for note in notes),
        ]
    )


def output_folder(saved: SavedModel, split: HeldOutSplit, info: StoreInfo) -> str:
    """Give where scores go unless another place is named: a folder inside the model's."""
    return join(saved.url, "evaluation", f"{split}-{info.fingerprint[:8]}")


def pick_device(name: str) -> torch.device:
    """Give the device that `cpu`, `cuda` or `auto` (a GPU if there is one) stands for.

    Raises
    ------
    UserError
        If there is no GPU but one is asked for.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; give --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def evaluate_model(
    saved: SavedModel,
    store: FieldStore,
    config: Config,
    *,
    split: HeldOutSplit,
    device: torch.device,
    output: str,
) -> ModelScores:
    """Score a finished model on held-out windows; write its scores and a picture.

    Parameters
    ----------
    saved : SavedModel
    store : FieldStore
    config : Config
        With `saved.defaults()` below the user's settings, windows and ensembles are those of the training.
    split : {"validation", "test"}
    device : torch.device
    output : str
        Folder for `panel.png` and, last, `scores.json`.

    Raises
    ------
    UserError
        If the model does not fit the store, or frames of its training would be scored; nothing is written.
    """
    saved.check(config)
    check_store(saved, store.info, config)
    windows = held_out_windows(saved, store, config, split)
    model = saved.model.to(device)
    with progress("scoring", len(windows), "windows") as advance:
        evaluation = evaluate(
            model,
            CountedWindows.over(windows, advance),
            config.sampling,
            batch=config.scoring.batch,
            seed=config.seed,
            device=device,
        )
    interval = crps_interval(evaluation, windows, config.scoring, config.seed)
    scores = ModelScores(saved, store.info, config, split, evaluation, interval)
    picture = wettest_panel(
        model,
        windows,
        config.sampling,
        seed=config.seed,
        device=device,
        name=store.info.name,
        units=store.info.units,
    )
    write_bytes(join(output, PANEL), picture)
    write_text(join(output, SCORES), scores.to_json())
    return scores
