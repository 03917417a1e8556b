"""Bring radar files, NetCDF, GRIB, GeoTIFF or Zarr into a field store, or add new ones to it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

# A Ray job runs this file from the folder it was shipped to, where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.cli import job_parser, run_job

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
  python jobs/ingest.py radar/*.h5 --store data/knmi.zarr              # again with more files: they are added
  python jobs/ingest.py fmi/*.tif --source fmi --store data/fmi.zarr --dry-run
  python jobs/ingest.py rain_2019.nc rain_2020.nc --variable pr --store gs://bucket/rain.zarr
  python jobs/ingest.py --source era5-arco --start 2020-06-01 --stop 2020-08-31 --bbox 0,45,15,55 \\
      --static orography --store gs://bucket/era5.zarr
  python jobs/ingest.py 'gs://radar/2026/**/*.tif' --source fmi --only-new --store gs://bucket/fmi.zarr
  python jobs/ingest.py --check data/knmi.zarr                         # report and figure
  python jobs/ingest.py --list-sources

A killed ingest is carried on by the same command. A time that is in the store already changes nothing if its
values are the same, and is refused otherwise; one that fills a gap is added, however late it comes.
"""


def main(argv: list[str]) -> None:
    """Check the files, write what is new, say what is in the store."""
    arguments = _parser().parse_args(argv)
    _refuse_idle(arguments)
    from pipeline import environment

    environment.prepare()
    if arguments.list_sources:
        from pipeline.sources.rules import packaged

        print("\n".join(f"{name:<12} {text}" for name, text in packaged().items()))
    elif arguments.check is not None:
        _check(arguments)
    else:
        _ingest(arguments)


def _refuse_idle(arguments: argparse.Namespace) -> None:
    """Refuse what a mode would pass over: of a mistyped command the rest is no wish."""
    from pipeline.errors import UserError

    given = [name for name, value in vars(arguments).items() if value not in (None, False, [])]
    if "list_sources" in given:
        idle, why = [name for name in given if name != "list_sources"], "not used with --list-sources"
    elif "check" in given:
        idle = [name for name in given if name not in ("check", "figure", "lenient")]
        why = "not used with --check, which takes --figure and --lenient"
    else:
        idle, why = [name for name in given if name in ("figure", "lenient")], "is for --check"
    if idle:
        flag = arguments.files[0] if idle[0] == "files" else f"--{idle[0].replace('_', '-')}"
        raise UserError(f"{flag}: {why}; leave it out")


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("jobs/ingest.py", __doc__ or "", EXAMPLES)
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="path, URL or pattern; none: what the --source names")
    add("--store", metavar="URL", help="where the store is or goes: a path, gs://, s3://")
    add("--source", metavar="NAME", help="rules for these files: a name (--list-sources) or a YAML file")
    add("--list-sources", action="store_true", help="list the rules that come with Finescale")
    add("--name", help="name of the data set (default: the store's)")
    add("--variable", help="variable to read (default: precipitation, or the only one)")
    add("--units", help="declare the units: values are taken unchanged, not converted to mm/h")
    add("--static", action="append", default=[], metavar="NAME[=FILL]", help="(y, x) covariate; repeatable")
    add("--dynamic", action="append", default=[], metavar="NAME", help="(time, y, x) covariate; repeatable")
    add("--start", metavar="TIME", help="first time to take, as in 2020-06-01 or 2020-06-01T06:00")
    add("--stop", metavar="TIME", help="last time to take; a date alone stands for its whole day")
    add("--bbox", metavar="X0,Y0,X1,Y1", help="part of the grid to take, in its own coordinates")
    add("--only-new", action="store_true", help="pass over times that the store has, unread")
    add("--keep-stored", action="store_true", help="keep the store's values where a file has others")
    add("--skip-bad", action="store_true", help="go on without files that have a fault")
    add("--overwrite", action="store_true", help="replace the store that is there")
    add("--dry-run", action="store_true", help="read headers and one frame, say what would be done")
    add("--check", metavar="STORE", help="check a store: a report, and a figure beside it")
    add("--figure", metavar="PNG", help="where the figure of --check goes (default: STORE-check.png, here)")
    add("--lenient", action="store_true", help="with --check: end well in spite of problems")
    return parser


def _ingest(arguments: argparse.Namespace) -> None:
    from pipeline.errors import UserError

    if not arguments.store:
        raise UserError("the following arguments are required: --store; see jobs/ingest.py --help")
    from pipeline.ingest.options import request_from, target_from
    from pipeline.ingest.report import describe_ingested, describe_plan
    from pipeline.ingest.run import ingest, planned_for

    request, target = request_from(arguments), target_from(arguments)
    if arguments.dry_run:
        planned, store = planned_for(request, target)
        print(describe_plan(planned, target, store))
        return
    with ExitStack() as bars:
        done = ingest(request, target, partial(_bar, bars))
    print(describe_ingested(done))


def _check(arguments: argparse.Namespace) -> None:
    from pipeline.errors import UserError
    from pipeline.ingest.run import default_name
    from pipeline.storage import files
    from pipeline.store.checks.report import check_store

    figure = arguments.figure or f"{default_name(files.resolve(arguments.check))}-check.png"
    with ExitStack() as bars:
        report = check_store(
            arguments.check, figure=figure, lenient=arguments.lenient, progress=partial(_bar, bars)
        )
    print(report.text)
    if report.problems and not arguments.lenient:
        more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise UserError(f"{report.problems[0]}{more}; --lenient passes over problems")


def _bar(bars: ExitStack, what: str, total: int) -> Callable[[int], None]:
    from pipeline.progress import progress

    return bars.enter_context(progress(what, total, "frames"))


if __name__ == "__main__":
    run_job(main)
