"""A sweep as its user runs it: a process of its own, killed at will, and what it leaves behind."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mlflow
import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from pipeline.config import SamplingSettings
from pipeline.config_layers import load_config
from pipeline.model_file import describe_data, save_model

JOB = Path(__file__).resolve().parents[2] / "jobs" / "tune_factors.py"


class SweepProcess:
    """Runs the job on one output folder, and looks at what it left there."""

    def __init__(self, output):
        self.output = output
        self.processes = []

    @staticmethod
    def environment():
        dropped = ("RAY_", "MLFLOW_", "FINESCALE_", "PYTHONPATH")
        return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}

    def start(self, pairs, trials, *flags):
        self.output.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, JOB, "--preset", "tiny", "--pairs", pairs, "--trials", str(trials),
            "--output", self.output.name, *flags,
        ]  # fmt: skip
        return self.start_command(*command)

    def start_command(self, *command):
        log = self.output.parent / f"log-{len(self.processes)}.txt"
        with log.open("w") as out:
            process = subprocess.Popen(
                [*map(str, command)],
                cwd=self.output.parent,
                env=self.environment(),
                stdout=out,
                stderr=out,
                text=True,
            )
        process.log = log
        self.processes.append(process)
        return process

    def run(self, pairs, trials, *flags):
        return self.said_by(self.start(pairs, trials, *flags))

    def said_by(self, process):
        process.wait(timeout=400)
        assert process.returncode == 0, process.log.read_text()[-4000:]
        return process.log.read_text()

    def wait_for(self, process, condition, what):
        for _ in range(1200):
            if (found := condition()) is not None:
                return found
            assert process.poll() is None, f"ended before {what}:\n{process.log.read_text()[-4000:]}"
            time.sleep(0.1)
        raise AssertionError(f"no {what}:\n{process.log.read_text()[-4000:]}")

    def wait_for_line(self, process, text):
        self.wait_for(process, lambda: True if text in process.log.read_text() else None, repr(text))

    def kill(self, process):
        """Kill the driver alone, and wait until Ray has noticed; what outlives it is ended."""
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for one in still_alive(family, 10):
            one.kill()

    def kill_all(self, process):
        """Kill the driver and the whole cluster at once."""
        family = psutil.Process(process.pid).children(recursive=True)
        for one in (psutil.Process(process.pid), *family):
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait()

    def trials(self):
        """Give state, point, score and intermediate scores of every trial, by pair and number."""
        storage = JournalStorage(JournalFileBackend(str(self.output / "studies" / "journal.log")))
        return {
            study.study_name.rpartition("/")[2]: {
                t.number: (t.state.name, t.params, t.values, t.intermediate_values)
                for t in storage.get_all_trials(study._study_id, deepcopy=False)
            }
            for study in storage.get_all_studies()
        }

    def finished(self):
        """Numbers, points and scores of the scored trials of each pair."""
        complete = optuna.trial.TrialState.COMPLETE.name
        return {
            pair: {number: (t[1], t[2][0]) for number, t in trials.items() if t[0] == complete}
            for pair, trials in self.trials().items()
        }

    @property
    def client(self):
        return mlflow.MlflowClient(f"sqlite:///{self.output}/mlflow.db")

    def runs(self, **tags):
        ids = [experiment.experiment_id for experiment in self.client.search_experiments()]
        runs = [run for run in self.client.search_runs(ids) if run.data.tags.get("finescale.sweep")]
        wanted = {f"finescale.{name}": value for name, value in tags.items()}
        return [run for run in runs if wanted.items() <= run.data.tags.items()]

    def statuses(self):
        return Counter((run.data.tags["finescale.role"], run.info.status) for run in self.runs())

    def busy_worker(self, process):
        """Find a process that is inside a trial."""
        for one in psutil.Process(process.pid).children(recursive=True):
            try:
                command = one.cmdline()  # once: a process may end between two looks
                if command and command[0].startswith("ray::ImplicitFunc.train"):
                    return one
            except psutil.Error:
                continue
        return None

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                self.kill_all(process)


def still_alive(processes, seconds):
    """Give those that are still there; one that only waits for its parent to look is gone."""

    def alive(process):
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    until = time.monotonic() + seconds
    while (left := [process for process in processes if alive(process)]) and time.monotonic() < until:
        time.sleep(0.2)
    return left


@pytest.fixture(scope="module")
def sweep_in(tmp_path_factory):
    """Make sweeps in folders of their own; whatever still runs is ended with the module."""
    made = []

    def make(name):
        made.append(SweepProcess(tmp_path_factory.mktemp(name) / "out"))
        return made[-1]

    yield make
    for sweep in made:
        sweep.end()


@pytest.fixture
def finished_model(trained_like, store, tmp_path):
    """One of 4x2 with three coarse frames of context, for the shared store."""
    config = load_config([("preset", "tiny"), ("tuning.max_context", 3)], environment={})
    url, sampling = str(tmp_path / "model"), SamplingSettings(steps=2, members=3)
    save_model(url, trained_like(), sampling=sampling, data=describe_data(store, config), scores={})
    return url


@pytest.fixture
def downscale(monkeypatch, run_here, tmp_path, finished_model, store):
    """Run the job of that name in this process; give its status and the lines on stdout and stderr."""

    def run(*arguments, given=("--input", store.url, "--coarsen", "--members", "3", "--steps", "2")):
        monkeypatch.chdir(tmp_path)
        period = ("--time", "2010-08-26T00:10/2010-08-26T00:30")
        return run_here("downscale", "--model", finished_model, *given, *period, *arguments)

    return run
