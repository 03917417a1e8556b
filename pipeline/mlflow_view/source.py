"""What MLflow is told of the code that made a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline import __version__


def code_tags() -> dict[str, str]:
    """Say what made the runs."""
    return {
        "finescale.version": __version__,
        "mlflow.source.name": Path(sys.argv[0]).name,
        **_git_commit(),
    }


def _git_commit() -> dict[str, str]:
    """Give the commit this code is at, if it is a checkout."""
    try:
        folder = Path(__file__).parent
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": done.stdout.strip()}
