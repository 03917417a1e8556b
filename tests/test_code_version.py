import ast
from pathlib import Path

import pytest

import pipeline
from pipeline import code_version as module
from pipeline.code_version import code_version
from pipeline.evaluation import pieces

SOURCE = '''"""What it is."""

from __future__ import annotations

LIMIT = 3
"""How many."""


def grow(x: float, by: float = 1.0) -> float:
    """Grow."""
    # a comment
    return x + by * (1 if x > LIMIT else 2)


class Thing:
    """A thing."""

    name = "text"

    def run(self):
        """Run."""
'''


def version(tmp_path, monkeypatch, source=SOURCE, **more):
    """The version of a package of these files."""
    package = tmp_path / str(len(list(tmp_path.iterdir())))
    for name, text in {"part/a.py": source, "b.py": "x = 1\n", "free.py": "y = 1\n", **more}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(module, "__file__", str(package / "code_version.py"))
    monkeypatch.setattr(module, "_DECIDING", ("b.py", "part"))
    return code_version.__wrapped__()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another\n    # and one more"),
        ("    # a comment\n", ""),
        ('"""Grow."""', '"""Grow by `by`.\n\n    At length.\n    """'),
        ('    """Grow."""\n', ""),  # a docstring more or less
        ('    name = "text"', '    name = "text"\n    """What it is called."""'),
        ('"""How many."""\n', ""),
        ('        """Run."""\n', "        pass\n"),
        ("x + by * (1 if x > LIMIT else 2)", "(\n        x\n        + by * (1 if x > LIMIT else 2)\n    )"),
        ('"text"', "'text'"),
        ("\n\nclass", "\n\n\n\n\nclass"),
    ],
)
def test_what_does_not_count(tmp_path, monkeypatch, old, new):
    assert SOURCE.count(old) == 1
    changed = version(tmp_path, monkeypatch, SOURCE.replace(old, new))
    assert changed == version(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("by: float = 1.0", "by: float = 2.0"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("x > LIMIT", "x >= LIMIT"),
        ('"text"', '"other"'),
        ("return x +", "return x -"),
        ("def run", "def walk"),
        ('"""Run."""', "return 'Run.'"),
    ],
)
def test_what_counts(tmp_path, monkeypatch, old, new):
    assert SOURCE.count(old) == 1
    changed = version(tmp_path, monkeypatch, SOURCE.replace(old, new))
    assert changed != version(tmp_path, monkeypatch)


def test_which_files_count(tmp_path, monkeypatch):
    same = version(tmp_path, monkeypatch)
    assert version(tmp_path, monkeypatch, **{"free.py": "y = 2\n"}) == same
    others = [
        version(tmp_path, monkeypatch, **{"b.py": "x = 2\n"}),
        version(tmp_path, monkeypatch, **{"part/c.py": ""}),
        version(tmp_path, monkeypatch, **{"part/deep/c.py": ""}),
    ]
    assert len({same, *others}) == 4


def imports_of(file, package):
    """Modules of the package that a file imports, as paths in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            path = package.parent.joinpath(*name.split(".")).with_suffix(".py")
            if package in path.parents and path.exists():
                found.add(path)
    return found


def used_by(names, package):
    """What deciding parts import from this package and is not among them."""
    deciding = {
        file
        for name in names
        for file in ((package / name).rglob("*.py") if (package / name).is_dir() else [package / name])
    }
    used = {path for file in deciding for path in imports_of(file, package)} - deciding
    return {path.relative_to(package).as_posix() for path in used}


READING = {  # a store's fingerprint counts, not how it is read
    "data/chunk_cache.py",
    "data/view.py",
    "store/field_store.py",
    "store/frame_rows.py",
    "store/layout.py",
    "store/manifest.py",
}


def test_of_this_package():
    """Whatever the deciding parts import decides too, or is named here because it does not."""
    assert code_version() == code_version.__wrapped__()
    package = Path(pipeline.__file__).parent
    assert all((package / name).exists() for name in module._DECIDING)
    parts = ("data", "diffusion", "evaluation", "models", "sources", "store", "training")
    used = used_by(module._DECIDING, package)
    assert {name for name in used if name.split("/")[-2:-1] and name.split("/")[-2] in parts} <= {
        *READING,
        "evaluation/showcase.py",  # pictures
        "evaluation/sums.py",  # of the evaluation of finished models
    }


def test_of_an_evaluation():
    """Likewise of what turns windows into sums; settings are in its key."""
    package = Path(pipeline.__file__).parent
    deciding = (*module._DECIDING, *pieces._DECIDING)
    assert all((package / name).exists() for name in deciding)
    used = {name for name in used_by(deciding, package) if not name.startswith(("settings/", "tuning/"))}
    assert used <= {
        *READING,
        "config.py",
        "devices.py",  # where it is computed, which is no part of what
        "errors.py",
        "evaluation/seen.py",  # refuses, and changes no sum
        "evaluation/showcase.py",  # pictures
        "storage/files.py",
    }
