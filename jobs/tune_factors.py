"""Retune beta, L and f for every factor pair: one Optuna study per pair on Ray Tune, recorded in MLflow."""

from __future__ import annotations

import sys
from pathlib import Path

# A Ray job runs this file from the folder it was shipped to, where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import environment
from pipeline.cli import add_config_flags, config_from, job_parser, refuse_flags, run_job

EXAMPLES = """\
  python jobs/tune_factors.py --pairs 4x1,1x3,4x2 --trials 4           # synthetic rain, results under ./runs
  python jobs/tune_factors.py --store data/knmi.zarr --pairs 4x2,8x1 --trials 12
  python jobs/tune_factors.py --store data/knmi.zarr --pairs 10x3 --patch 40 --dry-run
  python jobs/tune_factors.py --store data/knmi.zarr --pairs 2x1,4x2,8x1,8x3 --trials 16 --predict 6x2,16x3
  python jobs/tune_factors.py --store data/knmi.zarr --pairs 6x2 --recipe runs/recipes/SWEEP.yaml
  python jobs/tune_factors.py --report SWEEP --output runs             # tables and figures again
  python jobs/tune_factors.py --store gs://bucket/rain.zarr --pairs 25x6 --preset paper \\
      --output /mnt/shared/runs --tracking-uri http://mlflow:5000 --set tuning.gpus_per_trial=0.5

The same command carries on where it was stopped; with more --trials or --pairs it extends the sweep.
"""

FLAGS = {
    "--store": ("data.store", "field store from jobs/ingest.py; without it, synthetic rain"),
    "--pairs": ("tuning.pairs", "factor pairs SPACExTIME, separated by commas"),
    "--trials": ("tuning.trials", "finished trials wanted per pair"),
    "--recipe": ("tuning.recipe", "recipe of an earlier sweep, to centre and narrow the search"),
    "--predict": ("tuning.predict", "pairs to predict from the tuned ones, separated by commas"),
    "--objectives": ("tuning.objectives", "crps, or crps,spectral for a Pareto set"),
    "--output": ("output", "folder for stores, studies, models and runs; absolute in a Ray job"),
    "--tracking-uri": ("tracking.uri", "MLflow server or database"),
    "--patch": ("data.patch", "side of a window in fine pixels, a multiple of the space factor"),
    "--seed": ("seed", "seed of everything"),
    "--name": ("tuning.name", "name of the sweep"),
}


def main(argv: list[str]) -> None:
    """Resolve the configuration, print it, run the sweep."""
    parser = job_parser("jobs/tune_factors.py", __doc__ or "", EXAMPLES)
    add_config_flags(parser, FLAGS)
    parser.add_argument(
        "--report", metavar="SWEEP", help="make the report of this sweep again, train nothing"
    )
    arguments = parser.parse_args(argv)
    environment.prepare()

    from pipeline.tuning.kept import config_of
    from pipeline.tuning.opening import dataset_shape
    from pipeline.tuning.plan import describe_plan, plan_sweep
    from pipeline.tuning.run import run_sweep

    config = config_from(arguments)
    if arguments.report:
        refuse_flags(arguments, FLAGS, "--report", allowed={"--output", "--tracking-uri", "--predict"})
        config = config_of(arguments.report, config)
    plan = describe_plan(config, plan_sweep(config, dataset_shape(config))) if not arguments.report else ""
    print(f"{environment.without_secrets(config.to_yaml())}\n{plan}", flush=True)
    if not arguments.dry_run and not run_sweep(config, arguments.report):
        sys.exit(1)


if __name__ == "__main__":
    run_job(main)
