import csv
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import torch

from pipeline.config import SamplingSettings, ScoringSettings
from pipeline.config_layers import load_config
from pipeline.evaluation.bootstrap import crps_interval
from pipeline.evaluation.evaluate import evaluate
from pipeline.model_file import describe_data, load_model, save_model
from pipeline.store.field_store import write_store
from pipeline.tracking import NOTE

JOB = Path(__file__).resolve().parents[2] / "jobs" / "evaluate.py"
SAMPLING = SamplingSettings(steps=2, members=3)

# What the job has imported, said after everything else.
RUN = f"""
import runpy, sys
try:
    runpy.run_path({str(JOB)!r}, run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
print([name for name in ("ray", "mlflow", "optuna", "torch") if name in sys.modules])
"""


FILES = ("report.html", "scores.csv", "scores.json", "scores.parquet")


@pytest.fixture
def saved(trained_like, store, tmp_path):
    """Make models as a training leaves them: the card says on which windows it was scored, and how."""

    def saved(where="model", **changes):
        counts = [("scoring.windows", 5), ("scoring.test_windows", ScoringSettings().test_windows)]
        config = load_config([("preset", "tiny"), ("tuning.max_context", 3), *counts], environment={})
        url, data = str(tmp_path / where), describe_data(store, config)
        scores = {"validation_crps": 1.0}
        save_model(url, trained_like(**changes), sampling=SAMPLING, data=data, scores=scores)
        return url

    return saved


@pytest.fixture
def model(saved):
    return saved()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One for all tests here: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def runs_of(database, **tags):
    """Give an evaluation's own run, and those of the models in it by label."""
    client = mlflow.MlflowClient(database)
    there = [one.experiment_id for one in client.search_experiments()]
    own, of_models = [], {}
    for run in client.search_runs(there):
        found = run.data.tags
        if {f"finescale.{name}": value for name, value in tags.items()}.items() <= found.items():
            if found["finescale.role"] == "evaluation":
                own.append(run)
            else:
                of_models[found["finescale.model_label"]] = run
    return client, own, of_models


@pytest.fixture
def job(monkeypatch, run_here, tmp_path, database):
    """Run the job in this process; give its status and the lines on stdout and stderr."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)  # MLflow may have set it to that of another test

    def job(*arguments):
        monkeypatch.chdir(tmp_path)
        return run_here("evaluate", *arguments)

    return job


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def started(*arguments, cwd, log):
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("FINESCALE_", "RAY_"))}
    shell.pop("MLFLOW_TRACKING_URI", None)
    shell["OMP_NUM_THREADS"] = "1"  # as this process computes
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    with log.open("w") as out:
        return subprocess.Popen(command, cwd=cwd, env=shell, stdout=out, stderr=subprocess.STDOUT, text=True)


def finished(process, log):
    assert process.wait(timeout=200) == 0, log.read_text()[-4000:]
    return log.read_text().splitlines()


def scores_of(folder):
    return json.loads((Path(folder) / "scores.json").read_text())


def without_rounding(content):
    """Leave out how exactly an amount is kept: a matter of rounding alone, and of the number of threads."""
    return {name: value for name, value in content.items() if not name.startswith("conservation")}


def test_the_score_of_the_training_comes_out_again(model, store, data, job, tmp_path):
    log = tmp_path / "log.txt"
    flags = ("--model", model, "--store", store.url)
    *_, loaded = finished(started(*flags, "--dry-run", cwd=tmp_path, log=log), log)
    assert loaded == "['torch']"
    *said, loaded = finished(started(*flags, cwd=tmp_path, log=log), log)
    assert loaded == "['mlflow', 'torch']"
    assert "note" not in log.read_text()
    folder = Path(model) / "evaluation" / f"test-{store.info.fingerprint[:8]}"
    # Where sweeps and trainings are, though nothing was said of MLflow; after the scores have been shown.
    (report,) = [i for i, line in enumerate(said) if line == f"report: {folder / 'report.html'}"]
    (link,) = [i for i, line in enumerate(said) if line.startswith("its run, in MLflow: ")]
    assert report < link
    _, (run,), of_models = runs_of(f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert run.info.run_id in said[link]
    assert of_models["model"].data.tags["mlflow.parentRunId"] == run.info.run_id
    assert set(files(folder)) >= {*FILES, "figures/skill-intervals.png", "figures/event-4x2.gif"}
    content = scores_of(folder)

    windows = data.scored_windows("test", 3, ScoringSettings(), seed=0)
    trained = load_model(model)
    wanted = evaluate(trained, windows, SAMPLING, batch=4, seed=0, device=torch.device("cpu"))
    scores, expected = (without_rounding(found) for found in (content["scores"], wanted.as_metrics()))
    assert scores == pytest.approx(expected, rel=1e-6)
    interval = crps_interval(wanted, windows, ScoringSettings(), seed=0, cadence_seconds=300.0)
    assert math.isnan(interval.low)
    assert content["crps_interval"] == {"low": None, "high": None, "level": 0.9, "blocks": interval.blocks}
    assert (content["split"], content["windows"], content["seed"]) == ("test", len(windows), 0)
    assert content["sampling"] == SAMPLING.model_dump()
    assert content["data"]["fingerprint"] == store.info.fingerprint
    assert content["model"]["sha256"] == json.loads((Path(model) / "model.json").read_text())["sha256"]
    assert content["model"]["pair"] == "4x2"
    assert any(line.startswith("ensemble") and f"{wanted.ensemble.crps:.4f}" in line for line in said)
    page = (folder / "report.html").read_text()
    assert page.count("<img ") == len(files(folder / "figures"))
    assert f"{wanted.ensemble.crps:.4f}" in page

    before = {name: (folder / name).read_bytes() for name in (*FILES, "figures/event-4x2.gif")}
    status, said, _ = job(*flags)
    assert status == 0
    assert "2 of 2 chunks of windows have been scored before" in said
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_several_models_and_everything_else_can_be_chosen(saved, store, job, database, tmp_path):
    first, second = saved("runs/4x2/a"), saved("runs/4x2/b", beta=0.05, context=2)
    chosen = (
        "--split",
        "validation",
        "--windows",
        3,
        "--members",
        4,
        "--seed",
        1,
        "--set",
        "sampling.steps=3",
    )
    output = tmp_path / "out"
    flags = ("--model", first, second, "--store", store.url, *chosen, "--output", output)
    status, said, _ = job(*flags, "--dry-run")
    assert status == 0
    assert said[-1] == f"nothing is scored yet in {output}"
    assert not output.exists()
    status, said, _ = job(*flags)
    assert status == 0
    assert not (Path(first) / "evaluation").exists()
    content = scores_of(output)["models"]
    assert content.keys() == {"a", "b"}
    for one in content.values():
        assert (one["split"], one["windows"], one["seed"]) == ("validation", 3, 1)
        assert one["scores"]["members"] == one["sampling"]["members"] == 4
    assert content["a"]["scores"]["crps"] != content["b"]["scores"]["crps"]
    assert content["a"]["scores"]["bicubic_mae"] == content["b"]["scores"]["bicubic_mae"]
    assert sum("validation split, 3 windows x 4 members" in line for line in said) == 2
    page = (output / "report.html").read_text()
    assert "2 models, 1 factor pair" in page
    rows = list(csv.DictReader((output / "scores.csv").read_text().splitlines()))
    (over,) = [row for row in rows if (row["model"], row["reference"]) == ("a", "b")]
    assert float(over["value"]) == pytest.approx(
        1 - content["a"]["scores"]["crps"] / content["b"]["scores"]["crps"]
    )

    status, said, _ = job(*flags, "--dry-run")
    assert status == 0
    assert said[-3:] == [
        f"  {name}: 1 of 1 chunks of windows are there" for name in ("references of 4x2", "a", "b")
    ]
    assert_recorded(database, output, store, content)

    # Another evaluation in the same folder is another run, without the figures of this one.
    (output / "figures" / "mine.png").write_bytes(b"")
    status, *_ = job("--model", first, "--store", store.url, *chosen, "--output", output)
    assert status == 0
    client, own, _ = runs_of(database, pairs="4x2", models="a")
    (alone,) = own
    now = {path.name for path in (output / "figures").iterdir()} - {"mine.png"}
    recorded = {Path(file.path).name for file in client.list_artifacts(alone.info.run_id, "figures")}
    assert now == recorded
    assert (output / "report.html").read_text().count("<img ") == len(now)


def assert_recorded(database, output, store, content):
    """Check that MLflow has a run of each model, inside that of the evaluation."""
    client, (run,), of_models = runs_of(database, data_fingerprint=store.info.fingerprint, split="validation")
    assert run.info.status == "FINISHED"
    assert not [name for name in run.data.metrics if not name.startswith("system/")]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {*FILES, "figures"}
    assert of_models.keys() == {"a", "b"}
    for label, one in of_models.items():
        scores = content[label]["scores"]
        assert one.info.status == "FINISHED"
        assert one.data.tags["mlflow.parentRunId"] == run.info.run_id
        assert one.data.tags["finescale.pair"] == one.data.params["pair"] == "4x2"
        assert one.data.tags["finescale.sha256"] == content[label]["model"]["sha256"]
        assert one.data.tags["finescale.model"].endswith(f"4x2/{label}")
        assert one.data.metrics["beta"] == content[label]["model"]["parameters"]["beta"]
        assert one.data.metrics["validation_crps"] == scores["crps"]
        assert one.data.metrics["validation_spread_skill_ratio"] == scores["spread_skill_ratio"]
        assert f"/runs/{one.info.run_id}?" in run.data.tags[NOTE]
    skill = 1 - content["a"]["scores"]["crps"] / content["a"]["scores"]["bicubic_mae"]
    assert of_models["a"].data.metrics["validation_crps_skill"] == pytest.approx(skill)


def test_a_killed_job_carries_on(model, store, job, tmp_path):
    flags = ("--model", model, "--store", store.url, "--set", "scoring.batch=2")
    log, output = tmp_path / "log.txt", tmp_path / "out"
    process = started(*flags, "--output", output, cwd=tmp_path, log=log)
    for _ in range(2000):
        if there := {path: path.stat().st_mtime_ns for path in output.rglob("*.part")}:
            break
        assert process.poll() is None, log.read_text()[-4000:]
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (output / "scores.json").exists()
    status, said, _ = job(*flags, "--output", output)
    assert status == 0
    assert any("of 2 chunks of windows have been scored before" in line for line in said)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert scores_of(output)["scores"]["crps"] > 0


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_of_a_cluster_find_the_same_scores(saved, store, job, tmp_path):
    models = [saved("a"), saved("b", beta=0.05)]
    flags = ("--model", *models, "--store", store.url, "--split", "validation")
    log = tmp_path / "log.txt"
    workers = ("--workers", 2, "--set", "ray.cpus=2", "--output", tmp_path / "workers")
    said = finished(started(*flags, *workers, cwd=tmp_path, log=log), log)
    assert "'ray'" in said[-1]
    assert job(*flags, "--output", tmp_path / "alone")[0] == 0
    alone, workers = (scores_of(tmp_path / name)["models"] for name in ("alone", "workers"))
    for label in ("a", "b"):
        found, wanted = (without_rounding(of[label].pop("scores")) for of in (workers, alone))
        assert found == pytest.approx(wanted, rel=1e-6)
        assert workers[label].pop("crps_interval") == pytest.approx(alone[label].pop("crps_interval"))
    assert workers == alone
    assert {path.name for path in (tmp_path / "workers").rglob("*.part")} == {"0000000-0000005.part"}


def test_the_embedded_rain_is_other_data(model, job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = ("--preset", "tiny", "--set", "data.synthetic.seed=3")
    status, said, _ = job("--model", model, *size, "--dry-run")
    assert status == 0
    assert "synthetic rain" in said[-1]
    assert not (tmp_path / "runs").exists()
    # The model wants orography, which the embedded rain has not.
    status, _, complaint = job("--model", model, *size)
    assert status == 2
    assert "orography" in complaint[-1]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(model, store, job):
    before = files(model)
    status, said, _ = job("--model", model, "--store", store.url, "--dry-run")
    assert status == 0
    assert "patch: 24" in "\n".join(said)  # the card's; the preset has 48
    assert "at most 96 windows of the test split of rain, 3 members each" in said[-2]
    assert files(model) == before


@pytest.mark.parametrize(
    "case",
    ["folder", "weights", "statics", "split", "pair", "windows", "members", "workers", "thresholds", "gpu",
     "twice", "others"],
)  # fmt: skip
def test_mistakes_are_one_line_and_write_nothing(case, model, saved, store, rain, job, tmp_path):
    arguments, parts = {"--model": model, "--store": store.url}, []
    if case == "folder":
        arguments["--model"], parts = tmp_path / "nowhere", ["nowhere", "model.json"]
    if case == "weights":
        (Path(model) / "model.safetensors").write_bytes(b"x" * 100)
        parts = ["model.safetensors is damaged"]
    if case == "statics":
        bare = write_store(
            str(tmp_path / "bare.zarr"), rain, times=store.times, y=store.y, x=store.x, name="bare"
        )
        arguments["--store"], parts = bare.url, ["bare", "orography"]
    if case == "split":
        arguments["--set"], parts = "data.split={train: 0.4, validation: 0.4}", ["0.4/0.4/0.2"]
    if case == "pair":
        arguments["--patch"], parts = 26, ["4x2", "--patch 24 or 28"]
    if case == "windows":
        arguments["--windows"], parts = "many", ["scoring.test_windows = 'many'"]
    if case == "members":
        arguments["--members"], parts = 1, ["sampling.members = '1'", "command line"]
    if case == "workers":
        arguments["--workers"], parts = 0, ["--workers 0", "from 1 on"]
    if case == "thresholds":
        arguments["--set"], parts = "evaluation.thresholds=5,1", ["evaluation", "must increase"]
    if case == "gpu":
        arguments |= {"--workers": 1, "--device": "cuda"}
        parts = ["--device cuda", "tuning.gpus_per_trial=0.5"]
    if case == "twice":
        arguments |= {"--model ": model}
        parts = ["--model", "twice"]
    if case == "others":
        card = Path(model) / "model.json"
        other = Path(saved("other"))
        known = json.loads(card.read_text())
        known["data"]["settings"]["min_wet"] = 0.3
        (other / "model.json").write_text(json.dumps(known))
        arguments |= {"--model ": other}
        parts = ["model and other of pair 4x2", "data.min_wet is 0.1 and 0.3"]
    before = files(model)
    status, _, complaint = job(
        *(part.strip() if isinstance(part, str) else part for flag in arguments.items() for part in flag)
    )
    assert status == 2
    assert len(complaint) == 1
    assert complaint[0].startswith("error: ")
    assert all(part in complaint[0] for part in parts), complaint[0]
    assert files(model) == before


def test_a_model_in_a_place_that_cannot_be_written_to(model, store, job, tmp_path):
    shutil.copy(JOB, tmp_path / "file")
    output = tmp_path / "file" / "out"
    status, _, complaint = job("--model", model, "--store", store.url, "--output", output)
    assert (status, len(complaint)) == (2, 1)
    assert "--output" in complaint[0]


@pytest.mark.parametrize(("output", "part"), [("/proc/nope", "/proc/nope"), ("", "--output ''")])
def test_a_folder_that_cannot_be_is_found_out_before_scoring(output, part, model, store, job):
    before = files(model)
    status, said, complaint = job("--model", model, "--store", store.url, "--output", output)
    assert (status, len(complaint)) == (2, 1)
    assert "--output" in complaint[0]
    assert part in complaint[0]
    assert not any("CRPS" in line for line in said)
    assert files(model) == before


def test_a_server_that_is_not_there_is_found_out_before_scoring(model, store, job, tmp_path):
    output = tmp_path / "out"
    status, _, complaint = job(
        "--model", model, "--store", store.url, "--output", output, "--tracking-uri", "http://127.0.0.1:1"
    )
    assert (status, len(complaint)) == (2, 1)
    assert "not reachable" in complaint[0]
    assert not output.exists()
