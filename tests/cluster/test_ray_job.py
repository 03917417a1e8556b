"""The main job through a real cluster: `ray start`, a separate MLflow server, `ray job submit`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]


def free_ports(count):
    """Ports that nobody listens on, outside those that Ray gives to its workers."""
    held = []
    while len(held) < count:
        one = socket.socket()
        one.bind(("127.0.0.1", 0))
        if one.getsockname()[1] > 20_000:
            held.append(one)
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def end(process):
    """End a process we started and all that it started, each by its id."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    for one in alive:
        one.send_signal(signal.SIGKILL)
    psutil.wait_procs(alive, timeout=10)


def wait_for(url, process, log):
    for _ in range(240):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url}: no answer\n{log.read_text()[-3000:]}")


@pytest.fixture
def start(tmp_path):
    """Start a process in the background; all are ended with the test."""
    started = []

    def start_(name, *command, env):
        log = tmp_path / f"{name}.log"
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=tmp_path)
        started.append(process)
        return process, log

    yield start_
    for process in reversed(started):
        end(process)


@pytest.fixture
def environment():
    """A clean environment with a short folder for Ray: a socket's name has at most 107 letters."""
    folder = tempfile.mkdtemp(prefix="fs", dir="/tmp")
    dropped = ("RAY_", "MLFLOW_", "FINESCALE_", "PYTHONPATH")
    yield {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    shutil.rmtree(folder, ignore_errors=True)


def test_submitted_job_is_recorded_on_a_server(start, environment, tmp_path):
    gcs, dashboard, client, agent, mlflow_port = free_ports(5)
    tracking = f"http://127.0.0.1:{mlflow_port}"
    server, server_log = start(
        "mlflow", BIN / "mlflow", "server", "--workers", "1",
        "--host", "127.0.0.1", "--port", str(mlflow_port),
        "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination", str(tmp_path / "artifacts"), env=environment,
    )  # fmt: skip
    head, head_log = start(
        "ray", BIN / "ray", "start", "--head", "--block", "--num-cpus", "2", "--node-ip-address", "127.0.0.1",
        "--port", str(gcs), "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
        "--ray-client-server-port", str(client), "--dashboard-agent-listen-port", str(agent),
        "--object-store-memory", str(200 * 2**20), env=environment,
    )  # fmt: skip
    wait_for(f"{tracking}/health", server, server_log)
    wait_for(f"http://127.0.0.1:{dashboard}/api/version", head, head_log)

    def submit(*flags):
        command = ["job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--working-dir", "."]
        job = ["python", "jobs/tune_factors.py", "--preset", "tiny", "--tracking-uri", tracking, *flags]
        return subprocess.run(
            [BIN / "ray", *command, "--", *job],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    output = tmp_path / "output"
    done = submit("--pairs", "2x2,1x2", "--trials", "1", "--output", str(output))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "succeeded" in said
    assert "models:/finescale-synthetic-2x2@champion" in said

    from mlflow import MlflowClient

    client = MlflowClient(tracking)
    (experiment,) = client.search_experiments(filter_string="name LIKE 'finescale/%'")
    assert experiment.name == "finescale/synthetic/scale_adaptive"
    runs = client.search_runs([experiment.experiment_id])
    roles = Counter(run.data.tags["finescale.role"] for run in runs)
    assert roles - Counter(rival=roles["rival"]) == Counter(sweep=1, study=2, trial=2)
    assert {run.info.status for run in runs} == {"FINISHED"}
    study = next(run for run in runs if run.data.tags.get("finescale.role") == "study")
    assert "figures" in [artifact.path for artifact in client.list_artifacts(study.info.run_id)]
    assert (output / "recipes").is_dir()

    # A mistake is one line there too; a relative output would vanish with the job.
    refused = submit("--pairs", "2x2")
    assert refused.returncode != 0
    errors = [line for line in (refused.stdout + refused.stderr).splitlines() if line.startswith("error:")]
    assert len(errors) >= 1
    assert "absolute path" in errors[0]
