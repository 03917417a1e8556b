import logging
import pickle
import zlib

import pytest
import torch

from pipeline.models.families import build_model
from pipeline.training.checkpoint import StageCheckpoint

CPU = torch.device("cpu")
OPENED = []


@pytest.fixture
def parts(make_spec):
    def make(seed=0):
        model = build_model(make_spec(), seed=seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        sum(parameter.square().sum() for parameter in model.parameters()).backward()
        optimizer.step()
        return model, optimizer, {name: p.detach() + 1 for name, p in model.named_parameters()}

    return make


@pytest.fixture(params=["local", "memory"])
def checkpoint(request, tmp_path):
    folder = str(tmp_path) if request.param == "local" else f"memory:/{tmp_path}"
    return StageCheckpoint(f"{folder}/deep/stage.ckpt")


def test_round_trip(parts, checkpoint):
    model, optimizer, average = parts()
    checkpoint.save(7, model, optimizer, average)
    other, other_optimizer, other_average = parts(seed=1)
    assert checkpoint.restore(other, other_optimizer, other_average, CPU) == 7
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    for name, tensor in average.items():
        assert torch.equal(other_average[name], tensor)
    moments = (o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, other_optimizer))
    assert torch.equal(*moments)


def test_none_there(parts, checkpoint):
    assert checkpoint.restore(*parts(), CPU) == 0
    checkpoint.remove()  # nothing happens


def test_remove(parts, checkpoint):
    checkpoint.save(7, *parts())
    checkpoint.remove()
    assert checkpoint.restore(*parts(), CPU) == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "short"])
def test_damage_is_found_and_nothing_is_loaded(parts, tmp_path, caplog, damage):
    file = tmp_path / "stage.ckpt"
    checkpoint = StageCheckpoint(str(file))
    checkpoint.save(7, *parts())
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    changed = {"flip": bytes(content), "cut": content[: len(content) // 2], "empty": b"", "short": b"abc"}[
        damage
    ]
    file.write_bytes(changed)
    model, optimizer, average = parts(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        assert checkpoint.restore(model, optimizer, average, CPU) == 0
    assert "damaged" in caplog.text
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Trap:
    def __reduce__(self):
        return OPENED.append, ("a pickle from storage was run",)


def test_no_pickle_from_storage_is_run(parts, tmp_path):
    file = tmp_path / "stage.ckpt"
    trap = tmp_path / "trap"
    torch.save({"step": 1, "model": Trap()}, trap)
    content = trap.read_bytes()
    file.write_bytes(zlib.crc32(content).to_bytes(4, "big") + content)
    with pytest.raises(pickle.UnpicklingError):
        StageCheckpoint(str(file)).restore(*parts(), CPU)
    assert OPENED == []
