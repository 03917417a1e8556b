"""What starts quickly must stay quick: no heavy library behind `import pipeline` or a job's `--help`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
JOBS = sorted((ROOT / "jobs").glob("*.py"))
HEAVY = ["torch", "ray", "mlflow", "xarray", "optuna", "zarr", "matplotlib"]

TELL = f"import json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
RUN_HELP = """
import runpy, sys
sys.argv = [{path!r}, "--help"]
try:
    runpy.run_path({path!r}, run_name="__main__")
except SystemExit as ended:
    assert ended.code == 0, ended.code
"""


def loaded_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{TELL}"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


def test_package_is_light():
    assert loaded_by("import pipeline")[1] == []


def test_the_check_sees_a_heavy_import():
    assert loaded_by("import pipeline.data.coarsen")[1] == ["torch"]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_help_is_light(job):
    shown, heavy = loaded_by(RUN_HELP.format(path=str(job)))
    assert heavy == []
    assert f"jobs/{job.name}" in shown
    assert "examples:" in shown
