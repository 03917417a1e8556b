"""Measure this project by itself, as ratios: what sharing stages saves, what a trial costs beyond work."""

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

Results go to OUTPUT/benchmark; stage-cache carries on where it was stopped.
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
    parser.add_argument("measure", choices=["stage-cache", "trial-overhead"], help="what to measure")
    add_config_flags(parser, FLAGS)
    arguments = parser.parse_args(argv)
    config = config_from(arguments)
    environment.prepare()

    from pipeline.benchmarks import sweeps

    print(environment.without_secrets(config.to_yaml()), flush=True)
    if arguments.dry_run:
        return
    measure = {"stage-cache": sweeps.stage_cache_saving, "trial-overhead": sweeps.trial_overhead}
    print(measure[arguments.measure](config), flush=True)


if __name__ == "__main__":
    run_job(main)
