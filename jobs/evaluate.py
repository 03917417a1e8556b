"""Score finished models on held-out windows against references, with intervals: tables, figures, a report."""

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
    number_of_workers,
    registered_folder,
    run_job,
)
from pipeline.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.evaluation.candidates import Candidate

EXAMPLES = """\
  python jobs/evaluate.py --model runs/models/NAME/4x2/final --store data/knmi.zarr    # its test score again
  python jobs/evaluate.py --model runs/models/SWEEP --store data/knmi.zarr      # each pair's best and prior
  python jobs/evaluate.py --model runs/models/A/4x2/final runs/models/B/4x2/final --store data/knmi.zarr
  python jobs/evaluate.py --model models:/finescale-knmi-4x2@champion --store data/knmi.zarr \\
      --tracking-uri http://mlflow:5000                       # recorded there
  python jobs/evaluate.py --model runs/models/SWEEP --store data/other.zarr --split validation --windows 500
  python jobs/evaluate.py --model gs://bucket/models/SWEEP --store gs://bucket/rain.zarr \\
      --workers 8 --members 32 --set tuning.gpus_per_trial=0.5 --output gs://bucket/scores

The model's card says how it was trained and sampled; what you give here or in --config goes before it. Scores
do not depend on --workers. They are recorded in MLflow with the runs of sweeps and trainings. Whatever is
killed carries on when the same command is given again.
"""

FLAGS = {
    "--store": ("data.store", "field store from jobs/ingest.py; without it, synthetic rain"),
    "--members": ("sampling.members", "members of each ensemble"),
    "--patch": ("data.patch", "side of a window in fine pixels, a multiple of the space factor"),
    "--seed": ("seed", "seed of the ensembles, and of the choice of windows"),
    "--tracking-uri": ("tracking.uri", "MLflow server or database that the scores are recorded in"),
}


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("jobs/evaluate.py", __doc__ or "", EXAMPLES)
    parser.add_argument(
        "--model", required=True, nargs="+", action="append", metavar="URL",
        help="folder of a finished model, folder of a sweep's models (each pair's tuned one and the one with "
        "the paper's settings), or models:/NAME@ALIAS; those of one pair are compared on the same windows",
    )  # fmt: skip
    parser.add_argument(
        "--no-prior", action="store_true", help="of a sweep, score the tuned models only, not the prior's too"
    )
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="default: test")
    parser.add_argument("--windows", metavar="N", help="score at most so many windows of the split")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any"
    )
    parser.add_argument(
        "--workers", metavar="N",
        help="score on so many processes of a Ray cluster, each with tuning.cpus_per_trial and "
        "tuning.gpus_per_trial; without it, in this process",
    )  # fmt: skip
    parser.add_argument(
        "--output", metavar="URL",
        help="folder for the scores (default: inside a single model's, below runs/evaluations for several)",
    )  # fmt: skip
    add_config_flags(parser, FLAGS)
    return parser


def main(argv: list[str]) -> None:
    """Load the models, resolve their configurations, print them, score."""
    arguments = _parser().parse_args(argv)
    environment.prepare()
    workers = number_of_workers(arguments.workers)
    if arguments.output is not None and not arguments.output.strip():
        raise UserError(f"--output {arguments.output!r}: give a folder, or leave it out")

    from pipeline.data.dataset import open_dataset
    from pipeline.devices import pick_device
    from pipeline.evaluation.candidates import open_candidates
    from pipeline.evaluation.run import describe, output_folder, prepare, what_is_there

    split = arguments.split
    setattr(arguments, f"key:scoring.{'test_windows' if split == 'test' else 'windows'}", arguments.windows)
    given = [url for urls in arguments.model for url in urls]
    models = open_candidates(_folders(given, arguments), lambda known: config_from(arguments, known))
    config = models[0].config
    device = pick_device(arguments.device, workers, config.tuning.gpus_per_trial)
    makes_rain = config.data.store is None and arguments.dry_run
    store = None if makes_rain else open_dataset(config.data, config.output)
    plan = describe(models, split, store.info if store else None)
    settings = _settings(models)
    print(f"{settings}\n{plan}", flush=True)
    if store is None:
        return
    inside = not any(url.startswith("models:/") for url in given)
    output = arguments.output or output_folder(models, split, store.info, inside=inside)
    output = environment.resolve_output(output)
    if arguments.dry_run:
        print(what_is_there(models, store, split, output, device))
        return

    from pipeline.evaluation.record import evaluation_run, where_recorded

    config, uri = where_recorded(config)
    print(f"scores go to {output}, recorded at {environment.without_secrets(uri)}", flush=True)
    prepared = prepare(models, store, split=split, device=device, output=output)
    with evaluation_run(config, store, models, split, output) as run:
        found = prepared.score(workers=workers, settings=settings)
        print("\n" + "\n\n".join(one.table() for one in found.summaries) + "\n")
        print(f"tables: {output}\nreport: {found.report}", flush=True)
        run.finish(found)


def _folders(given: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """Find the models that are meant; registered ones are copied out of MLflow."""
    from pipeline.evaluation.model_folders import find_models

    folders = []
    for url in given:
        if url.startswith("models:/"):
            folders.append(registered_folder(url, arguments))
        else:
            folders += find_models(url.rstrip("/"), prior=not arguments.no_prior)
    return folders


def _settings(models: Sequence[Candidate]) -> str:
    """Write the settings that scoring heeds: of several models, each that differs from the ones before."""
    from pipeline.evaluation.held_out import relevant

    texts: dict[str, list[str]] = {}
    for one in models:
        texts.setdefault(environment.without_secrets(relevant(one.config)), []).append(one.label)
    if len(texts) == 1:
        return next(iter(texts))
    return "\n".join(f"# {', '.join(labels)}\n{text}" for text, labels in texts.items())


if __name__ == "__main__":
    run_job(main)
