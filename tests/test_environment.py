import os
import sys
from types import SimpleNamespace

import pytest

from pipeline import UserError, environment
from pipeline.config_layers import load_config

ONE = {"CPU": 1.0, "GPU": 0.0}


def config(*overrides):
    return load_config([("preset", "tiny"), *overrides], environment={})


@pytest.fixture
def ray(monkeypatch):
    """A stand-in that remembers how Ray would have been started, and what its processes would inherit."""
    calls = []

    def init(**arguments):
        calls.append((arguments, dict(os.environ)))

    fake = SimpleNamespace(
        init=init,
        is_initialized=lambda: False,
        cluster_resources=lambda: {"CPU": 2.0},
        nodes=lambda: [
            {"Alive": True, "Resources": {"CPU": 2.0}},
            {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        ],
        calls=calls,
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    monkeypatch.setattr(os, "environ", kept)
    return fake


def test_a_cluster_of_our_own_is_closed_to_others(ray):
    environment.start_ray(config(), ONE)
    ((arguments, inherited),) = ray.calls
    assert arguments["address"] == "local"
    assert inherited["RAY_AUTH_MODE"] == "token"  # Ray listens on every interface
    assert len(inherited["RAY_AUTH_TOKEN"]) >= 32
    first = inherited["RAY_AUTH_TOKEN"]
    del os.environ["RAY_AUTH_MODE"]
    environment.start_ray(config(), ONE)
    assert ray.calls[1][1]["RAY_AUTH_TOKEN"] != first


def test_what_the_user_says_about_access_holds(ray):
    os.environ["RAY_AUTH_MODE"] = "disabled"
    environment.start_ray(config(), ONE)
    assert ray.calls[0][1]["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in ray.calls[0][1]


@pytest.mark.parametrize(
    ("variables", "overrides", "address"),
    [
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, [], "auto"),
        ({"RAY_ADDRESS": "auto"}, [], "auto"),
        ({"RAY_ADDRESS": "elsewhere"}, [("ray.address", "auto")], "auto"),
    ],
)
def test_a_cluster_that_is_there_is_joined(ray, variables, overrides, address):
    os.environ.update(variables)
    environment.start_ray(config(*overrides), ONE)
    ((arguments, inherited),) = ray.calls
    assert arguments["address"] == address
    assert "num_cpus" not in arguments  # it raises inside a job
    assert "RAY_AUTH_MODE" not in inherited


@pytest.mark.parametrize(("gpus", "waits"), [(0.0, False), (0.5, True)])
def test_processes_that_no_node_holds_yet(ray, gpus, waits, capsys):
    environment.start_ray(config(("ray.address", "auto")), {"CPU": 1.0, "GPU": gpus})
    assert ("no node of the cluster has" in capsys.readouterr().out) == waits


@pytest.mark.parametrize(
    ("wanted", "processes", "setting", "parts"),
    [
        ({"CPU": 3.0}, 1, "tuning", ["tuning.cpus_per_trial", "3", "ray.cpus"]),
        ({"CPU": 1.0, "GPU": 0.5}, 1, "tuning", ["tuning.gpus_per_trial", "0.5"]),
        ({"CPU": 1.0}, 3, "train", ["train.cpus_per_worker", "1", "3 workers"]),
    ],
)
def test_processes_that_would_wait_for_ever(ray, wanted, processes, setting, parts, one_line):
    with pytest.raises(UserError) as raised:
        environment.start_ray(config(), wanted, processes=processes, setting=setting)
    one_line(raised, "this machine has", *parts)


@pytest.mark.parametrize(
    ("processes", "setting", "shown"), [(1, "tuning", True), (2, "tuning", False), (1, "train", False)]
)
def test_ray_trains_own_talk_stays_in_its_files(ray, processes, setting, shown):
    environment.start_ray(config(), ONE, processes=processes, setting=setting)
    assert ray.calls[0][0]["log_to_driver"] == shown


def test_nobody_at_the_address(ray, one_line):
    with pytest.raises(UserError) as raised:
        environment.start_ray(config(("ray.address", "127.0.0.1:1")), ONE)
    one_line(raised, "127.0.0.1:1", "cannot connect")
    assert ray.calls == []


def test_switches_leave_what_the_user_set(monkeypatch):
    monkeypatch.setattr(os, "environ", {"MLFLOW_LOGGING_LEVEL": "DEBUG"})
    environment.prepare()
    assert os.environ["MLFLOW_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] == "false"


def test_output(tmp_path, monkeypatch, one_line):
    monkeypatch.chdir(tmp_path)
    assert environment.resolve_output("runs/a") == str(tmp_path / "runs" / "a")
    assert environment.resolve_output("gs://bucket/runs") == "gs://bucket/runs"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as raised:
        environment.resolve_output("file/runs")
    one_line(raised, "file/runs", "not a folder")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert environment.resolve_output("gs://bucket/runs") == "gs://bucket/runs"
    assert environment.resolve_output(f"{tmp_path}/runs") == str(tmp_path / "runs")
    with pytest.raises(UserError):
        environment.resolve_output("runs")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
