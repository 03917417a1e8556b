"""What the command line of `jobs/ingest.py` says, checked."""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter

import numpy as np

from pipeline.errors import UserError
from pipeline.ingest.inputs import Request
from pipeline.ingest.run import Target
from pipeline.sources.readers import Selection
from pipeline.sources.rules import OtherVariable, SourceRules, load_rules
from pipeline.storage import files


def request_from(arguments: argparse.Namespace) -> Request:
    """Say which files and frames are wanted.

    Raises
    ------
    UserError
        For the first thing that makes no sense.
    """
    start = moment("--start", arguments.start, last=False)
    stop = moment("--stop", arguments.stop, last=True)
    if start is not None and stop is not None and stop < start:
        raise UserError(f"--stop {arguments.stop}: before --start {arguments.start}")
    return Request(
        paths=tuple(arguments.files),
        rules=_rules(arguments),
        selection=Selection(start, stop, box(arguments.bbox)),
        variable=arguments.variable,
        units=arguments.units,
        skip_bad=arguments.skip_bad,
        only_new=arguments.only_new,
    )


def target_from(arguments: argparse.Namespace) -> Target:
    """Say where the frames go.

    Raises
    ------
    UserError
        For a static covariate that is given twice or whose filling is no number, or a name that is none.
    """
    if arguments.name is not None and not re.fullmatch(r"\w[\w .+-]*", arguments.name):
        raise UserError(f"--name {arguments.name}: no name; letters, digits, blanks and . + - _ are good")
    filled = [_filled(text) for text in arguments.static]
    for name, count in Counter(name for name, _ in filled).items():
        if count > 1:
            raise UserError(f"--static {name}: given {count} times; give it once")
    url = files.resolve(arguments.store)
    return Target(
        files.local_path(url) if url.startswith("file://") else url,
        name=arguments.name,
        statics=dict(filled),
        overwrite=arguments.overwrite,
        keep_stored=arguments.keep_stored,
    )


def _rules(arguments: argparse.Namespace) -> SourceRules | None:
    rules = load_rules(arguments.source) if arguments.source else None
    if not arguments.dynamic:
        return rules
    rules = rules or SourceRules(description="grid with dynamic covariates")
    if rules.reader != "grid":
        raise UserError(f"--dynamic: files of --source {arguments.source} hold one variable; leave it out")
    wanted = {
        name: rules.dynamics.get(name, OtherVariable(variable=name)) for name in sorted(arguments.dynamic)
    }
    return rules.model_copy(update={"dynamics": wanted})


def moment(flag: str, text: str | None, *, last: bool) -> np.datetime64 | None:
    """Read a time, or a date, which stands for its first second or its `last`.

    Raises
    ------
    UserError
        If it is none.
    """
    if text is None:
        return None
    try:
        if re.search(r"T.*[+-]", text):
            raise UserError(f"{flag} {text}: times are in UTC; write it without the offset")
        read = np.datetime64(text.removesuffix("Z"))
        if np.isnat(read) or not re.match(r"\d{4}(-|$)", text):
            raise ValueError(text)
    except ValueError as error:
        raise UserError(f"{flag} {text}: not a time; write it as 2020-06-01 or 2020-06-01T06:00") from error
    unit = np.datetime_data(read.dtype)[0]
    end = read + 1 if last and unit in ("Y", "M", "D", "h", "m") else read
    seconds = end.astype("datetime64[s]")
    return seconds - np.timedelta64(1, "s") if end != read else seconds


def box(text: str | None) -> tuple[float, float, float, float] | None:
    """Read `x0,y0,x1,y1`.

    Raises
    ------
    UserError
        If it is no box.
    """
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(number) for number in text.split(","))
    except ValueError as error:
        raise UserError(f"--bbox {text}: four numbers x0,y0,x1,y1 are wanted, as in 0,45,15,55") from error
    if not (x0 < x1 and y0 < y1):  # nor where one is NaN
        raise UserError(f"--bbox {text}: x0 must be below x1, and y0 below y1")
    return x0, y0, x1, y1


def _filled(text: str) -> tuple[str, float | None]:
    name, equals, fill = text.partition("=")
    if not equals:
        return name, None
    try:
        number = float(fill)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"--static {text}: {fill!r} is no number to stand for missing values, as in {name}=0")
    return name, number
