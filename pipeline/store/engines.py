"""xarray, loaded so that its engines do not take pyproj's library from under it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from types import ModuleType


def load_xarray() -> ModuleType:
    """Load xarray; where its engines will load ecCodes, pyproj goes first.

    ecCodes and pyproj each bring a PROJ library of their own. With ecCodes first, pyproj finds the wrong one,
    refuses every projection, and the process crashes when it ends.
    """
    if importlib.util.find_spec("eccodes") is not None:
        with contextlib.suppress(ImportError):
            importlib.import_module("pyproj")
    return importlib.import_module("xarray")
