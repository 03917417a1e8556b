import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline import environment
from pipeline.cli import run_job
from pipeline.config import SamplingSettings, ScoringSettings
from pipeline.config_layers import load_config
from pipeline.data.store import write_store
from pipeline.evaluation.evaluate import evaluate
from pipeline.model_file import describe_data, load_model, save_model

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


@pytest.fixture
def model(trained_like, store, tmp_path):
    """A model as a training leaves it: its card says on which windows it was scored, and how."""
    config = load_config([("preset", "tiny"), ("tuning.max_context", 3)], environment={})
    data = describe_data(store, config)
    url = str(tmp_path / "model")
    save_model(url, trained_like(), sampling=SAMPLING, data=data, scores={"validation_windows": 5})
    return url


@pytest.fixture
def job(monkeypatch, capsys):
    """Run the job in this process; give its status and the lines on stdout and stderr."""

    def job(*arguments):
        monkeypatch.setattr(sys, "argv", [str(JOB), *map(str, arguments)])
        monkeypatch.setattr(environment, "prepare", lambda: None)  # it would last beyond this test
        with pytest.raises(SystemExit) as ended:
            run_job(runpy.run_path(str(JOB))["main"])
        said = capsys.readouterr()
        return ended.value.code, said.out.splitlines(), said.err.splitlines()

    return job


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_the_score_of_the_training_comes_out_again(model, store, data, job):
    shell = {name: value for name, value in os.environ.items() if not name.startswith("FINESCALE_")}
    shell["OMP_NUM_THREADS"] = "1"  # as this process computes
    done = subprocess.run(
        [sys.executable, "-c", RUN, "--model", model, "--store", store.url],
        capture_output=True, text=True, timeout=200, cwd=Path(model).parent, env=shell,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, picture, loaded = done.stdout.splitlines()
    assert loaded == "['torch']"
    assert "note" not in done.stdout
    folder = Path(model) / "evaluation" / f"test-{store.info.fingerprint[:8]}"
    assert picture == f"picture: {folder / 'panel.png'}"
    assert files(folder) == ["panel.png", "scores.json"]
    content = json.loads((folder / "scores.json").read_text())

    windows = data.scored_windows("test", 3, ScoringSettings(), seed=0)
    trained = load_model(model)
    wanted = evaluate(trained, windows, SAMPLING, batch=4, seed=0, device=torch.device("cpu"))
    # The job may compute in more threads; how exactly an amount is kept is a matter of rounding alone.
    scores, expected = (
        {name: value for name, value in found.items() if not name.startswith("conservation")}
        for found in (content["scores"], wanted.as_metrics())
    )
    assert scores == pytest.approx(expected, rel=1e-6)
    assert (content["split"], content["windows"], content["seed"]) == ("test", len(windows), 0)
    assert content["sampling"] == SAMPLING.model_dump()
    assert content["data"]["fingerprint"] == store.info.fingerprint
    assert content["model"]["sha256"] == json.loads((Path(model) / "model.json").read_text())["sha256"]
    assert content["model"]["pair"] == "4x2"
    assert any(line.startswith("ensemble") and f"{wanted.ensemble.crps:.4f}" in line for line in said)

    before = (folder / "scores.json").read_text()
    assert job("--model", model, "--store", store.url)[0] == 0
    assert (folder / "scores.json").read_text() == before


def test_split_windows_members_and_output_can_be_chosen(model, store, job, tmp_path):
    chosen = ("--split", "validation", "--windows", "2", "--members", "4", "--seed", "1")
    status, said, _ = job("--model", model, "--store", store.url, *chosen, "--output", tmp_path / "out")
    assert status == 0
    assert files(tmp_path / "out") == ["panel.png", "scores.json"]
    assert not (Path(model) / "evaluation").exists()
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (content["split"], content["windows"], content["seed"]) == ("validation", 2, 1)
    assert content["scores"]["members"] == content["sampling"]["members"] == 4
    assert any("validation split, 2 windows x 4 members" in line for line in said)


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
    assert "at most 64 windows of the test split of rain, 3 members each" in said[-1]
    assert files(model) == before


@pytest.mark.parametrize("case", ["folder", "weights", "statics", "split", "pair", "windows", "members"])
def test_mistakes_are_one_line_and_write_nothing(case, model, store, rain, job, tmp_path):
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
    before = files(model)
    status, _, complaint = job(*(part for flag in arguments.items() for part in flag))
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
