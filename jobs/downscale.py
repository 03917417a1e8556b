"""Refine a coarse archive with a finished model: an ensemble of any size, over domains of any size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

# A Ray job runs this file from the folder it was shipped to, where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import environment
from pipeline.cli import (
    add_config_flags,
    config_from,
    job_parser,
    number_of_workers,
    registered_folder,
    run_job,
)

EXAMPLES = """\
  python jobs/downscale.py --model runs/models/NAME/4x2/final --input data/coarse.zarr --output fine.zarr
  python jobs/downscale.py --model models:/finescale-knmi-4x2@champion --tracking-uri http://mlflow:5000 \\
      --input 'era5/*.nc' --source era5-grib --output gs://bucket/hr.zarr --members 16 --workers 8
  python jobs/downscale.py --model runs/models/NAME/4x2/final --input data/knmi.zarr --coarsen \\
      --time 2021-07-13T12:00/2021-07-13T18:00 --output event.nc          # a fine field, coarsened first
  python jobs/downscale.py --model gs://bucket/models/NAME/10x3 --input gs://bucket/lr.zarr \\
      --output gs://bucket/risk.zarr --members 64 --quantiles 0.5,0.9,0.99 --exceed 10,25 --no-members

Whatever is killed carries on when the same command is given again. What is written does not depend on
--workers nor on what else is refined with it: noise belongs to the seed, the member, the time and the place.
"""

FLAGS = {
    "--members": ("downscaling.members", "members of the ensemble"),
    "--steps": ("sampling.steps", "network evaluations per member (default: the model's)"),
    "--quantiles": (
        "downscaling.quantiles",
        "quantiles of the ensemble to write, as in 0.5,0.9; one worker then draws all members of a frame",
    ),
    "--exceed": (
        "downscaling.exceed",
        "amounts whose probability of exceedance to write; likewise one frame is one task",
    ),
    "--tile": ("downscaling.tile", "fine pixels that the network sees at once (default: as in training)"),
    "--seed": ("seed", "seed of the ensemble"),
    "--tracking-uri": ("tracking.uri", "MLflow server or database that knows models:/NAME@ALIAS"),
}


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("jobs/downscale.py", __doc__ or "", EXAMPLES)
    add = parser.add_argument
    add("--model", required=True, metavar="URL", help="folder of a finished model, or models:/NAME@ALIAS")
    add("--input", required=True, nargs="+", metavar="URL", help="coarse field store, or files or patterns")
    add("--output", required=True, metavar="URL", help="Zarr to write; a local .nc for small outputs")
    add(
        "--time",
        metavar="A/B",
        help="period to refine: A/B, as in 2020-06-01T06:00/2020-06-03, of dates also A:B; or one date or "
        "moment",
    )
    add("--bbox", metavar="X0,Y0,X1,Y1", help="part of the grid to refine, in its own coordinates")
    add("--coarsen", action="store_true", help="the input is fine: coarsen it by the model's factors first")
    add("--source", metavar="NAME", help="rules for the input's files, as in jobs/ingest.py")
    add("--variable", help="variable of the input's files")
    add("--units", help="declare the units of the input's files")
    add("--statics", metavar="URL", help="file with the model's static covariates on the fine grid")
    add("--no-members", action="store_true", help="write the summary of the ensemble only")
    add("--workers", metavar="N", help="so many actors on a Ray cluster; without it, this process")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any")
    add("--overwrite", action="store_true", help="replace what another downscaling has written there")
    add_config_flags(parser, FLAGS)
    return parser


def main(argv: list[str]) -> None:
    """Check everything, say what will be done, do it."""
    arguments = _parser().parse_args(argv)
    environment.prepare()
    workers = number_of_workers(arguments.workers)

    from pipeline.devices import pick_device
    from pipeline.downscaling.destination import Destination, write_to
    from pipeline.downscaling.options import input_from, refuse_settings
    from pipeline.downscaling.run import defaults_of, prepare

    refuse_settings(arguments.set)
    if arguments.no_members:
        arguments.set.append("downscaling.write_members=false")
    model = arguments.model
    if model.startswith("models:/"):
        model = registered_folder(model, arguments)
    config = config_from(arguments, defaults_of(model))
    destination = Destination.of(arguments.output)
    destination.check()
    wanted = input_from(arguments, destination)
    share = config.downscaling.gpus_per_worker
    device = pick_device(arguments.device, workers, share, key="downscaling.gpus_per_worker").type
    with ExitStack() as folders:
        if arguments.dry_run:
            folder = folders.enter_context(TemporaryDirectory(prefix="finescale-"))
            wanted = replace(wanted, ingested_url=f"{folder}/input")
        with ExitStack() as bars:
            told = partial(_bar, bars)
            elsewhere = workers is not None
            prepared = prepare(config, model, wanted, device=device, told=told, elsewhere=elsewhere)
        done = destination.holds(prepared.plan, overwrite=arguments.overwrite)
        print(prepared.describe(destination.url), flush=True)
        if arguments.dry_run:
            return
    if workers is not None and not done:
        each = {"CPU": config.downscaling.cpus_per_worker, "GPU": share}
        environment.start_ray(config, each, processes=workers, setting="downscaling")
    print(write_to(prepared, destination, workers=workers, overwrite=arguments.overwrite))
    print(f"output: {destination.url}")


def _bar(bars: ExitStack, what: str, total: int) -> Callable[[int], None]:
    from pipeline.progress import progress

    return bars.enter_context(progress(what, total, "frames"))


if __name__ == "__main__":
    run_job(main)
