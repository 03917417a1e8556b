"""Train the final model of one factor pair on any number of workers, with the values of a recipe."""

from __future__ import annotations

import sys
from pathlib import Path

# A Ray job runs this file from the folder it was shipped to, where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import environment
from pipeline.cli import add_config_flags, config_from, job_parser, run_job

EXAMPLES = """\
  python jobs/train.py --pair 4x2                                       # synthetic rain, the paper's values
  python jobs/train.py --store data/knmi.zarr --pair 4x2 --recipe runs/recipes/SWEEP.yaml --workers 2
  python jobs/train.py --store gs://bucket/rain.zarr --pair 10x3 --recipe recipe.yaml --preset paper \\
      --workers 8 --min-workers 4 --output gs://bucket/runs --tracking-uri http://mlflow:5000
  python jobs/train.py --store data/knmi.zarr --pair 8x3 --set training.mean_steps=3000 --dry-run

The same command carries on where it was stopped, also with another number of workers or another sharding.
"""

FLAGS = {
    "--store": ("data.store", "field store from jobs/ingest.py; without it, synthetic rain"),
    "--pair": ("train.pair", "factor pair SPACExTIME"),
    "--recipe": ("train.recipe", "recipe with the pair's beta, L and f; without it, the paper's prior"),
    "--workers": ("train.workers", "processes that train together, one per GPU"),
    "--min-workers": ("train.min_workers", "elastic: go on with so few when nodes are lost"),
    "--sharding": ("training.parallel.sharding", "auto, ddp, fsdp or hsdp"),
    "--output": ("output", "folder for stores, checkpoints, models and runs; absolute in a Ray job"),
    "--tracking-uri": ("tracking.uri", "MLflow server or database"),
    "--patch": ("data.patch", "side of a window in fine pixels, a multiple of the space factor"),
    "--seed": ("seed", "seed of everything"),
    "--name": ("train.name", "name of the training"),
}


def main(argv: list[str]) -> None:
    """Resolve the configuration, print it, train."""
    parser = job_parser("jobs/train.py", __doc__ or "", EXAMPLES)
    add_config_flags(parser, FLAGS)
    arguments = parser.parse_args(argv)
    environment.prepare()

    from pipeline.final.plan import describe_plan, plan_training
    from pipeline.final.run import run_training
    from pipeline.tuning.opening import dataset_shape

    config = config_from(arguments)
    plan = plan_training(config, dataset_shape(config))
    print(f"{environment.without_secrets(config.to_yaml())}\n{describe_plan(plan)}", flush=True)
    if not arguments.dry_run:
        run_training(plan)


if __name__ == "__main__":
    run_job(main)
