"""Score a finished model on held-out windows: unless told otherwise, those that its training scored it on."""

from __future__ import annotations

import sys
from pathlib import Path

# A Ray job runs this file from the folder it was shipped to, where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import environment
from pipeline.cli import add_config_flags, config_from, job_parser, run_job

EXAMPLES = """\
  python jobs/evaluate.py --model runs/models/NAME/4x2/final --store data/knmi.zarr     # its test score again
  python jobs/evaluate.py --model runs/models/NAME/4x2/final --store data/other.zarr    # on other data
  python jobs/evaluate.py --model runs/models/NAME/4x2/final --store data/knmi.zarr --split validation
  python jobs/evaluate.py --model gs://bucket/models/NAME/10x3 --store gs://bucket/rain.zarr --members 32 \\
      --device cuda --output scores

The model's card says how it was trained and sampled; what you give here or in --config goes before it.
"""

FLAGS = {
    "--store": ("data.store", "field store from jobs/ingest.py; without it, synthetic rain"),
    "--members": ("sampling.members", "members of each ensemble"),
    "--patch": ("data.patch", "side of a window in fine pixels, a multiple of the space factor"),
    "--seed": ("seed", "seed of the ensembles, and of the choice of windows"),
}


def main(argv: list[str]) -> None:
    """Load the model, resolve the configuration, print it, score."""
    parser = job_parser("jobs/evaluate.py", __doc__ or "", EXAMPLES)
    parser.add_argument("--model", required=True, metavar="URL", help="folder of a finished model")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="default: test")
    parser.add_argument("--windows", metavar="N", help="score at most so many windows of the split")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any"
    )
    parser.add_argument("--output", metavar="URL", help="folder for the scores (default: inside the model's)")
    add_config_flags(parser, FLAGS)
    arguments = parser.parse_args(argv)
    environment.prepare()

    from pipeline.data.dataset import open_dataset
    from pipeline.evaluation.held_out import SavedModel, relevant
    from pipeline.evaluation.report import (
        PANEL,
        SCORES,
        describe,
        evaluate_model,
        output_folder,
        pick_device,
    )
    from pipeline.files import join

    split, saved = arguments.split, SavedModel.open(arguments.model)
    setattr(arguments, f"key:scoring.{'test_windows' if split == 'test' else 'windows'}", arguments.windows)
    config = config_from(arguments, saved.defaults())
    saved.check(config)
    device = pick_device(arguments.device)
    makes_rain = config.data.store is None and arguments.dry_run
    store = None if makes_rain else open_dataset(config.data, config.output)
    plan = describe(saved, config, split, store.info if store else None)
    print(f"{environment.without_secrets(relevant(config))}\n{plan}", flush=True)
    if arguments.dry_run or store is None:
        return
    output = environment.resolve_output(arguments.output or output_folder(saved, split, store.info))
    scores = evaluate_model(saved, store, config, split=split, device=device, output=output)
    print(f"\n{scores.table()}\n\nscores: {join(output, SCORES)}\npicture: {join(output, PANEL)}")


if __name__ == "__main__":
    run_job(main)
