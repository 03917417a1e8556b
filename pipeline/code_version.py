"""Which version of this code a result came from, as far as it can change a result."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

_DECIDING = (
    "conservation.py",
    "data/batch.py",
    "data/coarsen.py",
    "data/covariates.py",
    "data/importance.py",
    "data/order.py",
    "data/pair_data.py",
    "data/scaling.py",
    "data/splits.py",
    "data/symmetries.py",
    "data/window_index.py",
    "data/windows.py",
    "diffusion",
    "evaluation/baselines.py",
    "evaluation/evaluate.py",
    "evaluation/measures/metric.py",
    "evaluation/measures/pixel.py",
    "evaluation/scores.py",
    "evaluation/sorting.py",
    "evaluation/spectra.py",
    "evaluation/statistics.py",
    "factors.py",
    "laws.py",
    "models",
    "prior.py",
    "ranks.py",
    "recipe.py",
    "store/grids.py",
    "training",
    "tuning/proposal.py",
    "tuning/scoring.py",
    "tuning/study.py",
    "tuning/trial.py",
    "tuning/trial_progress.py",
)


@functools.cache
def code_version() -> str:
    """Digest the parts that decide what a trial tries, learns and scores.

    Studies and cached stages carry it, so what an earlier version of the code made is never mixed with what
    this one makes. Comments, docstrings and layout do not count: the syntax tree is what is digested.
    """
    versions = "".join(
        f"{library} {importlib.metadata.version(library)}\n"
        for library in ("optuna", "torch")  # other versions may draw other points and other numbers
    )
    return _digest(_DECIDING, hashlib.sha256(versions.encode()))


@functools.cache
def digest_of(*names: str) -> str:
    """Digest other parts of this package, files or folders, in the same way."""
    return _digest(names, hashlib.sha256())


def _digest(names: Iterable[str], digest: hashlib._Hash) -> str:
    package = Path(__file__).parent
    for name in names:
        path = package / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(package)}\n{_meaning(file.read_text())}".encode())
    return digest.hexdigest()[:10]


def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
