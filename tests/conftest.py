"""What the tests of the models and their data share: a small rain store and what is made of it."""

import contextlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline import Conservation, FactorPair, ScaleParameters, UserError, environment
from pipeline.cli import run_job
from pipeline.config_layers import load_config
from pipeline.data.pair_data import PairData
from pipeline.data.synthetic import synthetic_coordinates, synthetic_rain, synthetic_times
from pipeline.models.families import build_model
from pipeline.models.family import ModelSpec
from pipeline.store.field_store import write_store
from pipeline.tracking import check_reachable

JOBS = Path(__file__).resolve().parents[1] / "jobs"

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_settings_from_the_shell(monkeypatch):
    for name in [name for name in os.environ if name.startswith("FINESCALE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny():
    return load_config([("preset", "tiny")], environment={})


@pytest.fixture(scope="session")
def rain(tiny):
    """(64, 48, 48) synthetic rain with a missing corner and a few missing pixels elsewhere."""
    blocks = [np.asarray(block) for block in synthetic_rain(tiny.data.synthetic)]
    field = np.concatenate([block if block.ndim == 3 else block[None] for block in blocks]).astype("f4")
    field[:, :8, :8] = np.nan
    field[:, 30, 40:44] = np.nan
    return field


@pytest.fixture(scope="session")
def store(tiny, rain, tmp_path_factory):
    y, x = synthetic_coordinates(tiny.data.synthetic)
    orography = np.random.default_rng(1).normal(300, 80, rain.shape[1:]).astype("f4")
    return write_store(
        str(tmp_path_factory.mktemp("stores") / "rain.zarr"),
        rain,
        times=synthetic_times(tiny.data.synthetic),
        y=y,
        x=x,
        name="rain",
        statics={"orography": orography},
    )


@pytest.fixture(scope="session")
def pair():
    return FactorPair(4, 2)


@pytest.fixture(scope="session")
def data(store, pair, tiny):
    return PairData.prepare(store, pair, tiny.data, wanted_context=3)


@pytest.fixture(scope="session")
def make_spec(data, tiny):
    def make(beta=0.02, context=3, conservation=None, **settings):
        parameters = ScaleParameters(
            beta=beta, context=context, conservation=conservation or Conservation(power=0.7, threshold=0.01)
        )
        changed = tiny.model.model_validate(tiny.model.model_dump() | settings)
        return ModelSpec(data.pair, parameters, changed, data.transform, data.scale, data.covariates.statics)

    return make


@pytest.fixture(scope="session")
def perturb():
    """Move all weights a little, since some layers start at zero and would hide what they do."""

    def move(model, by=0.05):
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(by * torch.randn(parameter.shape, generator=generator))
        return model

    return move


@pytest.fixture(scope="session")
def trained_like(make_spec, perturb):
    """Give a model that behaves as a trained one does, without the training."""

    def make(**changes):
        return perturb(build_model(make_spec(**changes), seed=0)).eval().requires_grad_(False)

    return make


@pytest.fixture
def one_line():
    """Check that an error is what a user should see: one line that names what is wrong."""

    def check(raised, *parts):
        message = str(raised.value)
        assert "\n" not in message
        for part in parts:
            assert part in message, message

    return check


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Run a job in this process; give its status and the lines on stdout and stderr."""

    def run(name, *arguments):
        job = JOBS / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(job), *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(environment, "prepare", lambda: None)  # it would last beyond this test
        with pytest.raises(SystemExit) as ended:
            run_job(runpy.run_path(str(job))["main"])
        said = capsys.readouterr()
        return ended.value.code, said.out.splitlines(), said.err.splitlines()

    return run


@pytest.fixture(scope="session")
def windows(data):
    """Training and scored windows of the shared store, for L = 3."""
    scoring = SimpleNamespace(windows=6, test_windows=6)
    return SimpleNamespace(
        train=data.training_windows(3), scored=data.scored_windows("validation", 3, scoring, seed=0)
    )


class MlflowServer:
    """A real server on loopback that can be stopped and started again on its database."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.uri, self._folder, self._process = f"http://127.0.0.1:{port}", folder, None
        self._command = [
            str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1",
            "--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", f"{folder}/artifacts",
        ]  # fmt: skip

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with open(self._folder / "server.log", "a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True,
                env=environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        for _ in range(600):
            with contextlib.suppress(UserError):
                return check_reachable(self.uri)
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.1)
        raise TimeoutError("the MLflow server did not start")

    def stop(self):
        """End the server and its workers, which form a group of their own."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@pytest.fixture
def mlflow_server(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # as `environment.prepare` sets it
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    server = MlflowServer(tmp_path)
    server.start()
    yield server
    server.stop()
