"""What the tests of training share: real processes joined by gloo, and data with many missing values."""

import importlib.util
import inspect
import multiprocessing
import pickle
import runpy
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.synthetic import synthetic_coordinates, synthetic_times
from pipeline.store.field_store import write_store

# One clean process imports everything once; the ranks are its children. None of them has ever run a thread.
PRELOAD = ["torch", "torch.distributed.fsdp", "pipeline.tuning.trial", "torch._dynamo"]


@pytest.fixture(scope="session")
def kit():
    """The functions of kit.py, which tests cannot import and ranks load by its path."""
    spec = importlib.util.spec_from_file_location("training_kit", Path(__file__).with_name("kit.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def on_ranks(tmp_path_factory):
    """Run a function of a test file on real processes: `on_ranks(world, function, *arguments)`.

    It is called with its `Ranks` first; what each process returns comes back in the order of ranks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    worker = str(Path(__file__).with_name("on_ranks.py"))

    def run(world, function, *arguments, seconds=150):
        folder = tmp_path_factory.mktemp("ranks")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        target = (inspect.getsourcefile(function), function.__name__)
        processes = []
        for rank in range(world):
            names = {"rank": rank, "world": world, "port": port, "target": target, "arguments": arguments}
            process = context.Process(
                target=runpy.run_path, args=(worker, names | {"folder": str(folder)}), daemon=True
            )
            process.start()
            processes.append(process)
        until = time.monotonic() + seconds
        while any(process.is_alive() for process in processes):
            if any(process.exitcode for process in processes) or time.monotonic() > until:
                time.sleep(0.5)  # the others' own last words
                for process in processes:
                    process.kill()
            time.sleep(0.02)
        errors = [f"rank {path.stem}:\n{path.read_text()}" for path in sorted(folder.glob("*.error"))]
        codes = [process.exitcode for process in processes]
        assert not any(codes), "\n".join(errors) or f"exit codes {codes} (late, or killed)"
        return [pickle.loads((folder / f"{rank}.result").read_bytes()) for rank in range(world)]

    return run


@pytest.fixture(scope="session")
def patchy_store(tiny, rain, tmp_path_factory):
    """The rain with much of it missing, so that windows differ in how many values they have."""
    field = np.where(np.isnan(rain), 0, rain)
    field[:, :26, :22] = np.nan
    field[::3, 30:, 20:40] = np.nan
    y, x = synthetic_coordinates(tiny.data.synthetic)
    return write_store(
        str(tmp_path_factory.mktemp("stores") / "patchy.zarr"),
        field,
        times=synthetic_times(tiny.data.synthetic),
        y=y,
        x=x,
        name="rain",
    )
