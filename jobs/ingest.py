"""Bring radar files, NetCDF or Zarr into a field store."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

# A Ray job runs this file from the folder it was shipped to, where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.cli import job_parser, run_job

EXAMPLES = """\
  python jobs/ingest.py radar/*.h5 --store data/knmi.zarr
  python jobs/ingest.py rain_2019.nc rain_2020.nc --variable pr --store gs://bucket/rain.zarr
  python jobs/ingest.py radar/*.h5 --store data/knmi.zarr --skip-bad --dry-run
"""


def main(argv: list[str]) -> None:
    """Check all files, write the store, say what is in it."""
    parser = job_parser("jobs/ingest.py", __doc__ or "", EXAMPLES)
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="KNMI HDF5, NetCDF 4 or Zarr; path, URL or pattern"
    )
    parser.add_argument(
        "--store", required=True, metavar="URL", help="where the store goes: a path, gs://, s3://"
    )
    parser.add_argument("--name", help="name of the data set (default: the store's)")
    parser.add_argument("--variable", help="variable to read (default: precipitation, or the only one)")
    parser.add_argument(
        "--units", help="declare the units: values are taken unchanged, not converted to mm/h"
    )
    parser.add_argument(
        "--static", action="append", default=[], metavar="NAME", help="(y, x) covariate; repeatable"
    )
    parser.add_argument("--skip-bad", action="store_true", help="go on without files that have a fault")
    parser.add_argument("--overwrite", action="store_true", help="replace a complete store")
    parser.add_argument(
        "--dry-run", action="store_true", help="check the headers, say what would be done, write nothing"
    )
    arguments = parser.parse_args(argv)

    from pipeline import ingest
    from pipeline.data import inputs

    planned = inputs.plan(
        ingest.expand(arguments.files),
        variable=arguments.variable,
        declared_units=arguments.units,
        skip_bad=arguments.skip_bad,
    )
    if arguments.dry_run:
        print(ingest.describe_plan(planned, arguments.store, overwrite=arguments.overwrite))
        return
    with ExitStack() as bars:
        planned, digests, statistics = inputs.check(planned, partial(_bar, bars))
    with ExitStack() as bars:
        store, written = ingest.write(
            planned,
            digests,
            arguments.store,
            name=arguments.name,
            statics=arguments.static,
            overwrite=arguments.overwrite,
            progress=partial(_bar, bars),
        )
    print(ingest.describe_store(store, planned, statistics, written=written))


def _bar(bars: ExitStack, what: str, total: int) -> Callable[[int], None]:
    from pipeline.progress import progress

    return bars.enter_context(progress(what, total, "frames"))


if __name__ == "__main__":
    run_job(main)
