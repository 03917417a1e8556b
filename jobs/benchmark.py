"""Measure this project by itself: what sharing saves, what a trial, a step, a rank and reading cost."""

from __future__ import annotations

import sys
from pathlib import Path

# A Ray job runs this file from the folder it was shipped to, where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import environment
from pipeline.cli import add_config_flags, config_from, job_parser, run_job

EXAMPLES = """\
  python jobs/benchmark.py stage-cache --pairs 4x2 --trials 16             # synthetic rain
  python jobs/benchmark.py stage-cache --store data/knmi.zarr --pairs 4x2 --trials 16
  python jobs/benchmark.py trial-overhead --preset tiny --pairs 4x2 --trials 12 --set tuning.pruning.rungs=0
  python jobs/benchmark.py train-step --preset paper --pairs 10x3          # on a GPU if there is one
  python jobs/benchmark.py shard-memory --preset paper --pairs 10x3        # on 1, 2 and 4 workers
  python jobs/benchmark.py loader --pairs 4x2 --set data.synthetic.frames=288 \\
      --set data.synthetic.height=768 --set data.synthetic.width=768
  python jobs/benchmark.py loader-memory --pairs 4x2 --set data.memory_gib=1   # a field of 50 GB
  python jobs/benchmark.py sample --preset small --pairs 4x2               # and the memory of large domains
  python jobs/benchmark.py scores --pairs 4x2                              # against scores and xskillscore

Results of sweeps go to OUTPUT/benchmark; stage-cache carries on where it was stopped.
"""

FLAGS = {
    "--store": ("data.store", "field store from jobs/ingest.py; without it, synthetic rain"),
    "--pairs": ("tuning.pairs", "factor pair SPACExTIME"),
    "--trials": ("tuning.trials", "trials of each sweep"),
    "--output": ("output", "folder for what is measured"),
    "--seed": ("seed", "seed of everything"),
}


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
        ],
        help="what to measure",
    )
    add_config_flags(parser, FLAGS)
    arguments = parser.parse_args(argv)
    config = config_from(arguments)
    environment.prepare()

    from pipeline.benchmarks import loader, loader_memory, sample, scores, sharding, sweeps, training

    print(environment.without_secrets(config.to_yaml()), flush=True)
    if arguments.dry_run:
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


if __name__ == "__main__":
    run_job(main)
