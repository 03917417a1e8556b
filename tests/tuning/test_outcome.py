import json
import math

import pytest

from pipeline import Conservation, ScaleParameters
from pipeline.tuning.outcome import Outcome

PARAMETERS = ScaleParameters(beta=0.02, context=3, conservation=Conservation(power=0.5, threshold=0.1))


def outcome(**changes):
    return Outcome(
        **{
            "state": "complete",
            "parameters": PARAMETERS,
            "metrics": {"crps": 0.1 + 0.2},
            "rungs": {6: 0.5, 12: 0.25},
            "trained_steps": 24,
            "model_url": "/models/0",
            **changes,
        }
    )


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return f"{tmp_path}/m" if request.param == "local" else f"memory:/{tmp_path}/m"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"metrics": {"crps": 1e-300, "ratio": math.inf, "low": -math.inf}},
        {"state": "pruned", "metrics": {}, "model_url": None},
        {"state": "failed", "metrics": {}, "rungs": {}, "reason": "loss is nan: å\n2", "model_url": None},
    ],
)
def test_round_trip(folder, changes):
    outcome(**changes).save(folder)
    assert Outcome.load(folder, PARAMETERS) == outcome(**changes)
    assert all(type(step) is int for step in Outcome.load(folder, PARAMETERS).rungs)


def test_what_is_no_number_survives(folder):
    outcome(metrics={"crps": math.nan, "rmse": 1.0}).save(folder)
    metrics = Outcome.load(folder, PARAMETERS).metrics
    assert math.isnan(metrics["crps"])
    assert metrics["rmse"] == 1.0


def test_infinite_metrics_pass_through_a_study_and_ray():
    odd = outcome(metrics={"crps": 1.0, "ratio": math.inf})
    assert Outcome.model_validate(json.loads(json.dumps(odd.model_dump(mode="json")))) == odd
    assert Outcome.model_validate_json(odd.model_dump_json()) == odd


def test_that_of_another_point_is_not_taken(folder):
    outcome().save(folder)
    for change in ({"beta": 0.03}, {"context": 2}, {"conservation": Conservation()}):
        assert Outcome.load(folder, PARAMETERS.model_copy(update=change)) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"state": "complete"}', b'{"state": "lost"}', b"\xff\xfe", b"cut"],
)
def test_a_damaged_one_is_not_taken(tmp_path, content):
    assert Outcome.load(str(tmp_path / "none"), PARAMETERS) is None
    outcome().save(str(tmp_path))
    file = tmp_path / "outcome.json"
    file.write_bytes(file.read_bytes()[:60] if content == b"cut" else content)
    assert Outcome.load(str(tmp_path), PARAMETERS) is None
    outcome().save(str(tmp_path))
    assert Outcome.load(str(tmp_path), PARAMETERS) == outcome()
