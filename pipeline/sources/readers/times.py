"""Times of frames: from a file's name, and from the start of an interval to its end."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np

from pipeline.errors import UserError
from pipeline.sources.rules import SourceRules
from pipeline.storage import files

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def name_times(path: str, rules: SourceRules) -> np.ndarray | None:
    """Read the times that a file's name tells, without opening the file.

    Parameters
    ----------
    path : str
        Path or URL.
    rules : SourceRules

    Returns
    -------
    np.ndarray or None
        (1,) datetime64[s], the end of the interval; None if the rules take the time from the file, or the
        name is not of their pattern (`open_source` says so).
    """
    if rules.time.pattern is None or rules.time.format is None:
        return None
    match = re.search(rules.time.pattern, files.last_name(path))
    if match is None or match[1] is None:
        return None
    try:
        moment = moment_of(match[1], rules.time.format)
    except ValueError:
        return None
    return ends(np.array([moment]), rules)


def required_name_times(path: str, rules: SourceRules) -> np.ndarray | None:
    """Do the same; a name that is not of the pattern is a fault.

    Raises
    ------
    UserError
    """
    times = name_times(path, rules)
    if times is None and rules.time.pattern is not None:
        raise UserError(
            f"{path}: no time of the form {rules.time.format} in the name {files.last_name(path)!r} (pattern "
            f"{rules.time.pattern}); leave the file out, or change time.pattern in the rules"
        )
    return times


def ends(times: np.ndarray, rules: SourceRules) -> np.ndarray:
    """Shift times that are starts of intervals to their ends."""
    if rules.time.stamp == "end" or rules.interval_seconds is None:
        return times
    return times + np.timedelta64(round(rules.interval_seconds), "s")


def moment_of(text: str, form: str) -> np.datetime64:
    """Read a time by strptime's letters; months (%b) are English whatever the machine's language.

    Raises
    ------
    ValueError
        If the text is not of that form.
    """
    if "%b" in form:
        form = form.replace("%b", "%m")
        text = re.sub("[A-Za-z]{3}", lambda word: f"{_MONTHS.index(word[0].upper()) + 1:02d}", text, count=1)
    moment = datetime.strptime(text, form)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "s")
