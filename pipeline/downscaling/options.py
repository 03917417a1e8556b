"""What the command line of `jobs/downscale.py` says about its input, checked."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import replace

from pipeline.config_layers import parse_assignment
from pipeline.downscaling.destination import Destination
from pipeline.downscaling.opening import InputRequest
from pipeline.errors import UserError
from pipeline.ingest.inputs import Request
from pipeline.ingest.options import box, moment
from pipeline.sources.readers import Selection
from pipeline.sources.rules import load_rules

HEEDED = ("seed", "sampling", "downscaling", "tracking", "output", "ray")
"""Parts of the configuration that a downscaling looks at; of `sampling` all but `members`."""
_DATES = re.compile(r"[\d-]*:[\d-]*")  # a colon that stands in no time of day
_FORMS = "write A/B, as in 2020-06-01T06:00/2020-06-03, of dates also A:B; or one date or moment"


def input_from(arguments: argparse.Namespace, destination: Destination) -> InputRequest:
    """Say what is to be refined.

    Parameters
    ----------
    arguments : argparse.Namespace
    destination : Destination
        Files are ingested beside it; what others have left there is replaced if no output has been begun.

    Raises
    ------
    UserError
        For the first thing that makes no sense.
    """
    request = Request(
        paths=tuple(arguments.input),
        rules=load_rules(arguments.source) if arguments.source else None,
        selection=replace(period(arguments.time), bbox=box(arguments.bbox)),
        variable=arguments.variable,
        units=arguments.units,
        ingest_flags=False,
    )
    return InputRequest(
        request,
        ingested_url=destination.ingested,
        statics_url=arguments.statics,
        coarsen=arguments.coarsen,
        overwrite=arguments.overwrite or not destination.begun,
    )


def refuse_settings(assignments: Iterable[str]) -> None:
    """Refuse a setting that would pass unheeded, or be taken for the size of the ensemble.

    Parameters
    ----------
    assignments : iterable of str
        What was given with `--set`.

    Raises
    ------
    UserError
        Naming it.
    """
    for text in assignments:
        key, value = parse_assignment(text)
        of_tree = key == "sampling" and isinstance(value, dict) and "members" in value
        if key == "sampling.members" or of_tree:
            raise UserError(f"--set {text}: is how many members score a trial; give --members N")
        if key.partition(".")[0] not in HEEDED:
            raise UserError(
                f"--set {text}: a downscaling does not heed {key}, only {', '.join(HEEDED)}; leave it out"
            )


def period(text: str | None) -> Selection:
    """Read `A/B`, of dates also `A:B`, either end of which may be left out; or one date or moment.

    One date is that whole day, one moment the coarse frame that it lies in.

    Raises
    ------
    UserError
        If it is none.
    """
    if text is None:
        return Selection()
    first, found, last = text.partition(":" if _DATES.fullmatch(text) else "/")
    if not found:
        last = first
    if not first and not last:
        raise UserError(f"--time {text!r}: names no time; {_FORMS}")
    try:
        start = moment("--time", first or None, last=False)
        stop = moment("--time", last or None, last=True)
    except UserError as error:
        reason = str(error).partition(": ")[2].partition(";")[0]
        raise UserError(f"--time {text}: not a period ({reason}); {_FORMS}") from error
    if start is not None and stop is not None and stop < start:
        raise UserError(f"--time {text}: ends before it begins")
    return Selection(start, stop)
