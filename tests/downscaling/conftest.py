"""What the tests of downscaling share."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def outputs():
    """The functions of outputs.py, which tests cannot import and processes run by its path."""
    spec = importlib.util.spec_from_file_location("outputs", Path(__file__).with_name("outputs.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def done(outputs, tmp_path_factory):
    """An undisturbed output, for reading."""
    url = str(tmp_path_factory.mktemp("done") / "fine.zarr")
    assert outputs.complete(url, outputs.plan()) == 9
    return url
