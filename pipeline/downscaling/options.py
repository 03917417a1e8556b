"""What the command line of `jobs/downscale.py` says about its input, checked."""

from __future__ import annotations

import argparse
from dataclasses import replace

from pipeline import files
from pipeline.data.readers import Selection
from pipeline.data.rules import load_rules
from pipeline.downscaling.opening import InputRequest
from pipeline.errors import UserError
from pipeline.ingest.inputs import Request
from pipeline.ingest.options import box, moment


def input_from(arguments: argparse.Namespace, output: str) -> InputRequest:
    """Say what is to be refined.

    Parameters
    ----------
    arguments : argparse.Namespace
    output : str
        Files are ingested beside it.

    Raises
    ------
    UserError
        For the first thing that makes no sense.
    """
    request = Request(
        paths=tuple(arguments.input),
        rules=load_rules(arguments.source) if arguments.source else None,
        selection=replace(_period(arguments.time), bbox=box(arguments.bbox)),
        variable=arguments.variable,
        units=arguments.units,
    )
    return InputRequest(
        request,
        ingested_url=files.resolve(output).rstrip("/") + ".input",
        statics_url=arguments.statics,
        coarsen=arguments.coarsen,
        overwrite=arguments.overwrite,
    )


def _period(text: str | None) -> Selection:
    """Read `A/B`, of dates also `A:B`; either end may be left out."""
    if text is None:
        return Selection()
    first, found, last = text.partition("/" if "/" in text or text.count(":") != 1 else ":")
    if not found:
        last = first
    start = moment("--time", first or None, last=False)
    stop = moment("--time", last or None, last=True)
    if start is not None and stop is not None and stop < start:
        raise UserError(f"--time {text}: ends before it begins")
    return Selection(start, stop)
