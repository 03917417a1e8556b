"""Measure this project by itself: what sharing saves, what a trial, a step, a rank and reading cost.

Two measures are of a finished model: `steps`, its scores over network evaluations, and `seams`, whether the
tiles of a large domain are to be seen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# A Ray job runs this file from the folder it was shipped to, where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import environment
from pipeline.cli import (
    add_config_flags,
    config_from,
    job_parser,
    refuse_flags,
    registered_folder,
    run_job,
)
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.evaluation.held_out import SavedModel

EXAMPLES = """\
  python jobs/benchmark.py stage-cache --pairs 4x2 --trials 16             # synthetic rain
  python jobs/benchmark.py stage-cache --store data/knmi.zarr --pairs 4x2 --trials 16
  python jobs/benchmark.py trial-overhead --preset tiny --pairs 4x2 --trials 12 --set tuning.pruning.rungs=0
  python jobs/benchmark.py train-step --preset paper --pairs 10x3          # on a GPU if there is one
  python jobs/benchmark.py shard-memory --preset paper --pairs 10x3        # on 1, 2 and 4 workers
  python jobs/benchmark.py loader --pairs 4x2 --set data.synthetic.frames=288 \\
      --set data.synthetic.height=768 --set data.synthetic.width=768
  python jobs/benchmark.py loader-memory --pairs 4x2                       # a field of 50 GB
  python jobs/benchmark.py sample --preset small --pairs 4x2               # and the memory of large domains
  python jobs/benchmark.py scores --pairs 4x2                              # against scores and xskillscore
  python jobs/benchmark.py steps --model runs/models/NAME/4x2/final --store data/knmi.zarr \\
      --set scoring.test_windows=24                                        # CRPS over network evaluations
  python jobs/benchmark.py seams --model models:/finescale-knmi-4x2@champion --store data/knmi.zarr

Results of sweeps, tables and figures go to OUTPUT/benchmark; stage-cache and steps carry on where they were
stopped.
"""

FLAGS = {
    "--store": ("data.store", "field store from jobs/ingest.py; without it, synthetic rain"),
    "--pairs": ("tuning.pairs", "factor pair SPACExTIME"),
    "--trials": ("tuning.trials", "trials of each sweep"),
    "--output": ("output", "folder for what is measured"),
    "--seed": ("seed", "seed of everything"),
    "--tracking-uri": ("tracking.uri", "MLflow server or database that knows models:/NAME@ALIAS"),
}

OF_A_MODEL = ("steps", "seams")


def main(argv: list[str]) -> None:
    """Resolve the configuration and run the measurement that was asked for."""
    parser = job_parser("jobs/benchmark.py", __doc__ or "", EXAMPLES)
    parser.add_argument(
        "measure",
        choices=[
            "stage-cache",
            "trial-overhead",
            "train-step",
            "shard-memory",
            "loader",
            "loader-memory",
            "sample",
            "scores",
            *OF_A_MODEL,
        ],
        help="what to measure",
    )
    parser.add_argument(
        "--model", metavar="URL", help=f"{' and '.join(OF_A_MODEL)}: folder of a finished model, or "
        "models:/NAME@ALIAS",
    )  # fmt: skip
    add_config_flags(parser, FLAGS)
    arguments = parser.parse_args(argv)
    environment.prepare()
    saved = _finished(arguments)
    config = config_from(arguments, saved.defaults() if saved else None)
    if saved is not None:
        saved.check(config)

    from pipeline.benchmarks import loader, loader_memory, sample, scores, sharding, sweeps, training

    print(environment.without_secrets(config.to_yaml()), flush=True)
    if arguments.dry_run:
        return
    if saved is not None:
        print(_measured(arguments.measure, config, saved), flush=True)
        return
    measure = {
        "stage-cache": sweeps.stage_cache_saving,
        "trial-overhead": sweeps.trial_overhead,
        "train-step": training.train_step,
        "shard-memory": sharding.shard_memory,
        "loader": loader.loader_speed,
        "loader-memory": loader_memory.loader_memory,
        "sample": sample.sampling_cost,
        "scores": scores.scoring_speed,
    }
    print(measure[arguments.measure](config), flush=True)


def _finished(arguments: argparse.Namespace) -> SavedModel | None:
    """Open the model that is measured, if one is; a registered one is copied out of MLflow."""
    url, measure = arguments.model, arguments.measure
    if measure not in OF_A_MODEL:
        if url is not None:
            raise UserError(
                f"--model {url}: not used with {measure}, which trains or makes its own; leave it out"
            )
        return None
    if url is None:
        raise UserError(f"{measure}: measures a finished model; give its folder with --model")
    refuse_flags(arguments, FLAGS, measure, ("--model", "--store", "--output", "--seed", "--tracking-uri"))

    from pipeline.evaluation.held_out import SavedModel

    return SavedModel.open(registered_folder(url, arguments) if url.startswith("models:/") else url)


def _measured(measure: str, config: Config, saved: SavedModel) -> object:
    from pipeline.benchmarks.seams import seams_of_tiles
    from pipeline.benchmarks.steps import crps_over_steps

    return {"steps": crps_over_steps, "seams": seams_of_tiles}[measure](config, saved)


if __name__ == "__main__":
    run_job(main)
