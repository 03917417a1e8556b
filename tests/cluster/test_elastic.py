"""A training on a cluster of several nodes: with more workers when one joins, with fewer when one is lost."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("resized.py")
EVERY = 10  # steps between checkpoints
LAST = [("mean", 300), ("residual", 10)]
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    dropped = ("RAY_", "MLFLOW_", "FINESCALE_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie in it
    cluster = {
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # after that it tries with fewer
    }
    output = tmp_path_factory.mktemp("elastic") / "out"
    try:
        done = subprocess.run(
            [sys.executable, SCRIPT, output], env=kept | cluster, capture_output=True, text=True, timeout=900
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


def told(messages, kind):
    return [message[2:] for message in messages if message[1] == kind]


def test_it_grows_and_shrinks(found):
    assert told(found["told"], "started") == [[1], [2], [1]]
    (lost,) = told(found["told"], "lost")
    assert lost[0]


def test_what_is_repeated_is_no_more_than_an_interval(found):
    starts, reached = [], 0
    for _, kind, *said in found["told"]:
        if kind == "step" and said[0] == "mean":
            reached = max(reached, said[1])
        if kind == "begun" and said[0] == "mean":
            starts.append(said[1])
            assert 0 <= reached - said[1] <= EVERY
    assert (
        0 == starts[0] < starts[1] < starts[2] < LAST[0][1]
    )  # each kept something that the next went on from


def test_it_ends_as_an_undisturbed_training(found):
    losses = {(stage, step): loss for stage, step, loss, *_ in told(found["told"], "step")}
    calm = {(stage, step): loss for stage, step, loss, *_ in told(found["calm"], "step")}
    assert sorted(losses) == sorted(calm)
    assert set(LAST) <= set(losses)
    for step, loss in calm.items():
        assert losses[step] == pytest.approx(loss, rel=1e-3), step
    assert found["metrics"]["crps"] == pytest.approx(found["wanted"]["crps"], rel=1e-3)
