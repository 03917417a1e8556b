"""From what the user names, paths, URLs and patterns, to files."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence

from pipeline.errors import UserError
from pipeline.sources.readers.places import Place
from pipeline.storage import files
from pipeline.storage.cloud import reached


def expand(patterns: Sequence[str], *, anonymous: bool = False) -> list[str]:
    """Expand shell patterns that arrived unexpanded, and sort what they match.

    Raises
    ------
    UserError
        If a name is empty, a pattern matches nothing, or a file comes twice.
    """
    found: list[str] = []
    for pattern in patterns:
        if not pattern:
            raise UserError("'': an empty name among the files; is a variable of the shell not set?")
        matches = [pattern]
        local = "://" not in pattern
        if _is_pattern(pattern):
            matches = sorted(glob.glob(pattern, recursive=True) if local else _remote(pattern, anonymous))
            if not matches:
                raise UserError(f"{pattern}: no file matches")
        found += matches
    doubled = [path for path, count in Counter(files.resolve(path) for path in found).items() if count > 1]
    if doubled:
        raise UserError(f"{doubled[0]}: given twice")
    return found


def _is_pattern(path: str) -> bool:
    """Tell a pattern from the name of a file that looks like one; on the web there are no patterns."""
    if not glob.has_magic(path) or path.startswith(("http://", "https://")):
        return False
    return "://" in path or not os.path.exists(path)


def _remote(pattern: str, anonymous: bool) -> list[str]:
    with reached(pattern, anonymous=anonymous):
        fs, inside = Place(pattern, anonymous).file_system()
        try:
            return [fs.unstrip_protocol(path) for path in fs.glob(inside)]
        except ValueError as error:
            raise UserError(
                f"{pattern}: no pattern ({error}); write dir/**/*.h5 for all folders below"
            ) from error
