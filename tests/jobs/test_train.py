"""The training of a final model as its user runs it: mistakes, then one stopped, killed and carried on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline import Conservation, FactorPair, ScaleParameters
from pipeline.recipe import Origin, Recipe, RecipeEntry

JOBS = Path(__file__).resolve().parents[2] / "jobs"
JOB = JOBS / "train.py"


def still_alive(processes, seconds):
    """Give those that have not ended; one that only waits for its parent to look has."""
    _, left = psutil.wait_procs(processes, timeout=seconds)
    return [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def job(monkeypatch, run_here, tmp_path):
    """Run the job in this process, in an empty folder; give its status and the lines on stdout and stderr."""

    def job(*arguments):
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
            monkeypatch.delenv(name, raising=False)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        return run_here("train", "--preset", "tiny", *arguments)

    return job


def recipe_with(context, folder):
    parameters = ScaleParameters(beta=0.03, context=context, conservation=Conservation(power=0.8))
    entry = RecipeEntry(pair=FactorPair(4, 2), parameters=parameters, origin=Origin.TUNED)
    Recipe(entries=(entry,)).save(str(folder / "recipe.yaml"))
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["train.pair", "--pair 4x2"]),
        (["--pair", "4by2"], ["4by2"]),
        (["--pair", "4x2", "--workers", "5"], ["training.batch", "4 windows", "5 workers"]),
        (
            [
                "--pair",
                "4x2",
                "--workers",
                "4",
                "--sharding",
                "hsdp",
                "--set",
                "training.parallel.shard_size=3",
            ],
            ["shard_size", "4 ranks", "copies of 3"],
        ),
        (["--pair", "4x2", "--recipe", "RECIPE"], ["4x2", "L = 9", "leave room for 4", "--recipe"]),
        (["--pair", "4x2", "--recipe", "nothing.yaml"], ["nothing.yaml", "no such file"]),
        (["--pair", "4x2", "--store", "nothing.zarr"], ["nothing.zarr"]),
        (["--pair", "4x2", "--min-workers", "3", "--workers", "2"], ["min_workers (3)", "workers (2)"]),
        (["--pair", "4x2", "--tracking-uri", "http://127.0.0.1:1"], ["http://127.0.0.1:1", "not reachable"]),
        (["--pair", "4x2", "--output", f"{JOB}/runs"], ["train.py is not a folder"]),
        (["--pair", "4x2", "--sharding", "zero3"], ["sharding", "ddp"]),
        (["--pair", "4x2", "--wrokers", "2"], ["--wrokers", "--help"]),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(arguments, parts, job, tmp_path):
    recipe = recipe_with(9, tmp_path)
    status, _, complaint = job(*[recipe if one == "RECIPE" else one for one in arguments])
    assert status == 2
    assert len(complaint) == 1
    assert complaint[0].startswith("error: ")
    for part in parts:
        assert part in complaint[0]
    assert list(Path.cwd().iterdir()) == []


def test_a_dry_run_says_what_would_be_done_and_does_nothing(job):
    status, said, complaint = job("--pair", "4x2", "--workers", "4", "--min-workers", "2", "--dry-run")
    assert (status, complaint) == (0, [])
    assert "batch 4 on 2 to 4 workers with 1 CPU each" in "\n".join(said)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.cluster
def test_more_workers_than_fit_are_refused_before_anything_is_written(sweep_in):
    sweep = sweep_in("crowded")
    process = start(sweep, "--workers", "3", "--set", "ray.cpus=2")
    assert process.wait(timeout=200) == 2
    complaints = [line for line in process.log.read_text().splitlines() if line.startswith("error: ")]
    assert len(complaints) == 1
    for part in ("train.cpus_per_worker", "3 workers", "has 2", "ray.cpus"):
        assert part in complaints[0]
    assert "Traceback" not in process.log.read_text()
    assert not sweep.output.exists()


def start(sweep, *flags):
    sweep.output.parent.mkdir(parents=True, exist_ok=True)
    command = ["--preset", "tiny", "--pair", "4x2", "--output", sweep.output.name]
    return sweep.start_command(sys.executable, JOB, *command, *flags)


@pytest.fixture(scope="module")
def training(sweep_in):
    return sweep_in("training")


LONGER = ("--set", "training.residual_steps=60")  # time enough to be killed in


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestTraining:
    """One training, in the order of its life."""

    def run_of(self, training):
        (run,) = training.runs()
        assert run.data.tags["finescale.role"] == "training"
        return run

    def card(self, training):
        (path,) = training.output.glob("models/*/4x2/final/model.json")
        return json.loads(path.read_text())

    def test_asked_to_end(self, training):
        process = start(training, *LONGER, "--workers", "2")
        training.wait_for_line(process, "mean 12/12")  # so that a checkpoint of step 6 is there
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=100) == 130, process.log.read_text()[-4000:]
        last = process.log.read_text().splitlines()[-1]
        assert last.startswith("interrupted; the same command carries on")
        assert self.run_of(training).info.status == "KILLED"
        assert still_alive(family, 20) == []

    def test_everything_is_killed(self, training):
        process = start(training, *LONGER, "--workers", "2")
        training.wait_for_line(process, "residual 12/60")
        training.kill_all(process)
        said = process.log.read_text()
        assert "2 workers started" in said
        assert "mean: carrying on after step 6 of 12" in said or "mean: trained already" in said
        assert not list(training.output.glob("models/*/4x2/final/model.json"))

    def test_carries_on_with_one_worker(self, training):
        said = training.said_by(start(training, *LONGER, "--workers", "1"))
        assert "1 worker started" in said
        assert "mean: trained already" in said
        (line,) = [line for line in said.splitlines() if "carrying on after step" in line]
        step = int(line.partition("after step ")[2].split()[0])
        assert line.startswith("residual: ")
        assert 6 <= step < 60
        reports = [line for line in said.splitlines() if line.startswith("residual ")]
        assert reports[0].startswith(f"residual {step + 6}/60: loss ")
        assert reports[-1].startswith("residual 60/60: loss ")

    def test_what_mlflow_has(self, training):
        run = self.run_of(training)
        assert run.info.status == "FINISHED"
        for stage, steps in (("mean", 12), ("residual", 60)):
            for name in ("loss", "validation_loss", "learning_rate", "gradient_norm"):
                history = training.client.get_metric_history(run.info.run_id, f"{stage}_{name}")
                assert sorted({point.step for point in history}) == list(range(6, steps + 1, 6)), name
                repeated = len(history) - len({(point.step, point.value) for point in history})
                assert repeated <= 3  # by the kills
        workers = training.client.get_metric_history(run.info.run_id, "workers")
        assert {point.value for point in workers} == {1.0, 2.0}
        names = {artifact.path for artifact in training.client.list_artifacts(run.info.run_id)}
        assert names >= {"config.yaml", "memory", "figures"}
        files = {artifact.path for artifact in training.client.list_artifacts(run.info.run_id, "memory")}
        assert files >= {
            "memory/estimate.txt",
            "memory/residual.txt",
        }  # the mean: if no kill came before
        (version,) = training.client.search_model_versions("name = 'finescale-synthetic-4x2'")
        assert version.run_id == run.info.run_id
        assert run.data.metrics["test_crps"] == self.card(training)["scores"]["test_crps"]
        assert run.data.params["context"] == "4"
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.name == "synthetic"
        assert f"Test CRPS **{run.data.metrics['test_crps']:.4f}**" in run.data.tags["mlflow.note.content"]
        assert list((training.output / "unfinished").glob("*")) == []

    def test_the_same_command_again_trains_nothing(self, training):
        before = self.card(training), self.run_of(training).data.metrics
        said = training.said_by(start(training, *LONGER, "--workers", "1"))
        assert "trained and scored before: test CRPS" in said
        assert "worker started" not in said
        after = self.card(training), self.run_of(training).data.metrics
        assert after[0]["sha256"] == before[0]["sha256"]
        assert after[0]["scores"] == before[0]["scores"]
        assert {name: value for name, value in after[1].items() if "crps" in name} == {
            name: value for name, value in before[1].items() if "crps" in name
        }
        assert self.run_of(training).info.status == "FINISHED"
        assert len(training.client.search_model_versions("name = 'finescale-synthetic-4x2'")) == 1

    def test_the_model_is_scored_the_same_by_itself(self, training):
        (model,) = training.output.glob("models/*/4x2/final")
        (store,) = training.output.glob("stores/*.zarr")
        done = subprocess.run(
            [sys.executable, JOBS / "evaluate.py", "--model", model, "--store", store],
            capture_output=True, text=True, timeout=200, cwd=training.output.parent,
            env=training.environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (scores,) = model.glob("evaluation/*/scores.json")
        found = json.loads(scores.read_text())["scores"]["crps"]
        assert found == pytest.approx(self.card(training)["scores"]["test_crps"], rel=1e-6)
