import json
import logging
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from pipeline import UserError
from pipeline.storage import files
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.checkpoint_files import MANIFEST, digest_of

OPENED = []
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weights/a": (3, 4), "average/a": (3, 4), "buffers/scale": (), "exp_avg/long.name.b": (7,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def save_at_once(kept, step):
    kept.save(step, tensors(step))
    kept.wait()


def steps(folder):
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


@pytest.fixture(params=["local", "memory"])
def url(request, tmp_path):
    return f"{tmp_path}/deep/mean" if request.param == "local" else f"memory:/{tmp_path}/mean"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_round_trip(url, asynchronous):
    kept = Checkpoints(url, asynchronous=asynchronous)
    assert kept.restore(tensors()) == 0  # none there
    kept.save(7, tensors(1), loss=0.5)
    kept.wait()
    found = tensors(2)
    places = {name: tensor.data_ptr() for name, tensor in found.items()}
    assert Checkpoints(url).restore(found) == 7
    assert same(found, tensors(1))
    assert {name: tensor.data_ptr() for name, tensor in found.items()} == places  # into what was given


def test_remove(url):
    kept = Checkpoints(url)
    kept.remove()  # nothing happens
    kept.save(7, tensors())
    kept.remove()
    assert files.list_folder(url) == []
    assert Checkpoints(url).restore(tensors()) == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_newest_few_and_the_best_are_kept(url, asynchronous):
    kept = Checkpoints(url, keep=2, keep_best=True, asynchronous=asynchronous)
    for step, loss in enumerate([0.9, 0.3, None, 0.5, float("nan"), 0.3, 0.8, 0.7], start=1):
        kept.save(step, tensors(step), loss)
    kept.wait()
    assert kept._steps() == [6, 7, 8]  # of two equal ones the later
    found = tensors()
    assert kept.restore_best(found) == 6
    assert same(found, tensors(6))


def test_the_best_is_dropped_if_it_is_not_wanted(tmp_path):
    kept = Checkpoints(str(tmp_path), keep=3, keep_best=False)
    for step in range(1, 6):
        kept.save(step, tensors(), loss=float(step))
    assert steps(tmp_path) == [3, 4, 5]


def test_without_a_loss_there_is_no_best(tmp_path):
    kept = Checkpoints(str(tmp_path))
    kept.save(1, tensors(1))
    found = tensors()
    assert kept.restore_best(found) == 0
    assert same(found, tensors())


def test_a_damaged_best_gives_way_to_the_next_best(tmp_path, caplog):
    kept = Checkpoints(str(tmp_path), keep=3)
    for step, loss in ((1, 0.1), (2, 0.2), (3, 0.3)):
        kept.save(step, tensors(step), loss)
    flip(weights_of(tmp_path, 1))
    found = tensors()
    assert kept.restore_best(found) == 2
    assert same(found, tensors(2))
    assert "DAMAGED" in caplog.text


def test_a_damaged_newest_is_neither_the_newest_nor_the_best_any_more(tmp_path, caplog):
    kept = Checkpoints(str(tmp_path), keep=2)
    for step, loss in ((2, 0.5), (4, 0.1)):
        kept.save(step, tensors(step), loss)
    flip(weights_of(tmp_path, 4))
    assert kept.restore(tensors()) == 2
    assert (tmp_path / "step-00000004" / "damaged.json").exists()  # for whoever wants to look
    kept.save(3, tensors(3), 0.6)
    assert kept._steps() == [2, 3, 4]
    caplog.clear()
    found = tensors()
    assert kept.restore_best(found) == 2
    assert same(found, tensors(2))
    assert "DAMAGED" not in caplog.text


def test_a_manifest_that_leads_elsewhere_is_damaged(tmp_path):
    kept = Checkpoints(str(tmp_path))
    for step in (2, 4):
        kept.save(step, tensors(step))
    path = tmp_path / "step-00000004" / MANIFEST
    notes = json.loads(path.read_text())
    path.write_text(json.dumps(notes | {"files": {"../" + name: f for name, f in notes["files"].items()}}))
    assert kept.restore(tensors()) == 2


# Damage


def weights_of(folder, step):
    (path,) = (folder / f"step-{step:08d}").glob("*.safetensors")
    return path


def flip(path, at=-10):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "flipped": lambda folder: flip(weights_of(folder, 4)),
    "flipped header": lambda folder: flip(weights_of(folder, 4), at=12),
    "cut": lambda folder: cut(weights_of(folder, 4)),
    "empty": lambda folder: weights_of(folder, 4).write_bytes(b""),
    "missing": lambda folder: weights_of(folder, 4).unlink(),
    "another step's": lambda folder: shutil.copy(weights_of(folder, 2), weights_of(folder, 4)),
    "manifest cut": lambda folder: cut(folder / "step-00000004" / MANIFEST),
    "manifest empty": lambda folder: (folder / "step-00000004" / MANIFEST).write_text(""),
    "manifest a list": lambda folder: (folder / "step-00000004" / MANIFEST).write_text("[]"),
    "manifest not text": lambda folder: (folder / "step-00000004" / MANIFEST).write_bytes(b"\xff{}"),
    "manifest without digests": lambda folder: rewrite(folder, '"sha256"', '"sha257"'),
    "manifest with odd entries": lambda folder: rewrite(folder, '"files": {', '"files": {"x": 3,'),
}


def rewrite(folder, old, new):
    path = folder / "step-00000004" / MANIFEST
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


@pytest.fixture
def kept(tmp_path):
    kept = Checkpoints(str(tmp_path), keep=2)
    for step in (2, 4):
        kept.save(step, tensors(step))
    return kept


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damage_is_said_and_the_one_before_is_used(kept, tmp_path, caplog, damage):
    DAMAGES[damage](tmp_path)
    found = tensors()
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(str(tmp_path)).restore(found) == 2
    assert same(found, tensors(2))
    assert "step-00000004 is DAMAGED" in caplog.text
    kept.save(4, tensors(4))  # training comes by again
    assert Checkpoints(str(tmp_path)).restore(found) == 4
    assert same(found, tensors(4))
    assert steps(tmp_path) == [2, 4]


def test_damage_in_every_byte_of_a_manifest_is_survived(kept, tmp_path):
    path = tmp_path / "step-00000004" / MANIFEST
    content = path.read_bytes()
    for at in range(0, len(content), 3):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        found = tensors()
        step = Checkpoints(str(tmp_path)).restore(found)
        assert step in (2, 4), at
        assert same(found, tensors(step)), at


def test_if_all_are_damaged_the_user_decides(kept, tmp_path, one_line):
    for step in (2, 4):
        flip(weights_of(tmp_path, step))
    found = tensors()
    with pytest.raises(UserError) as raised:
        kept.restore(found)
    one_line(raised, str(tmp_path), "none is intact", "remove the folder")
    assert same(found, tensors())  # and nothing is loaded


def test_a_folder_without_a_manifest_does_not_count(kept, tmp_path):
    (tmp_path / "step-00000004" / MANIFEST).unlink()
    found = tensors()
    assert kept.restore(found) == 2
    (tmp_path / "step-00000002" / MANIFEST).unlink()
    assert kept.restore(found) == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_kill_between_files_and_manifest_leaves_the_one_before(kept, tmp_path, monkeypatch, asynchronous):
    kept.asynchronous = asynchronous

    def killed(url, content):
        raise ConnectionError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_text", killed)
        with pytest.raises(ConnectionError, match="killed"):
            save_at_once(kept, 6)
    assert weights_of(tmp_path, 6).exists()
    found = tensors()
    after = Checkpoints(str(tmp_path))
    assert after.restore(found) == 4
    after.save(6, tensors(7))  # over what was left
    assert after.restore(found) == 6
    assert same(found, tensors(7))


def test_what_a_kill_left_of_more_ranks_is_not_read(kept, tmp_path):
    folder = tmp_path / "step-00000006"
    folder.mkdir()
    shutil.copy(weights_of(tmp_path, 2), folder / "shard-00004-model-00001-of-00001.safetensors")
    kept.save(6, tensors(6))
    assert weights_of(tmp_path, 6).name.startswith("shard-00001")  # the only one
    found = tensors()
    assert kept.restore(found) == 6
    assert same(found, tensors(6))


# In the background


def test_a_background_save_keeps_what_the_tensors_were_and_waits_for_the_one_before(tmp_path, monkeypatch):
    kept, changing = Checkpoints(str(tmp_path), asynchronous=True), tensors(1)
    go, plain, order = threading.Event(), files.write_text, []

    def slow(url, content):
        assert go.wait(30)
        plain(url, content)
        order.append(json.loads(content)["step"])

    monkeypatch.setattr(files, "write_text", slow)
    kept.save(1, changing)
    for tensor in changing.values():  # training goes on
        tensor.fill_(0)
    assert steps(tmp_path) == [1]
    assert Checkpoints(str(tmp_path)).restore(tensors()) == 0  # its manifest is held back
    with ThreadPoolExecutor(1) as training:
        second = training.submit(kept.save, 2, tensors(2))
        assert not second.done()
        go.set()
        second.result(30)
        assert order[:1] == [1]
    kept.wait()
    assert order == [1, 2]
    found = tensors()
    shutil.rmtree(tmp_path / "step-00000002")
    assert kept.restore(found) == 1
    assert same(found, tensors(1))


def test_background_files_are_the_same(tmp_path):
    written = []
    for asynchronous in (False, True):
        kept = Checkpoints(str(tmp_path / str(asynchronous)), asynchronous=asynchronous)
        kept.save(3, tensors(3), loss=0.25)
        kept.wait()
        path = weights_of(tmp_path / str(asynchronous), 3)
        with safe_open(path, framework="pt") as file:  # its metadata has no order
            written.append((path.name, file.metadata(), path.stat().st_size))
        notes = json.loads((path.parent / MANIFEST).read_text())
        del notes["files"][path.name]["sha256"]
        written[-1] += (notes,)
    assert written[0] == written[1]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_cannot_be_written_is_an_ordinary_error(tmp_path, monkeypatch, asynchronous):
    kept = Checkpoints(str(tmp_path), asynchronous=asynchronous)
    save_at_once(kept, 1)

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(HuggingFaceStorageWriter, "write_data", full)
        with pytest.raises(OSError, match="no space left on device"):
            save_at_once(kept, 2)
    found = tensors()
    assert kept.restore(found) == 1
    assert same(found, tensors(1))


def test_a_checkpoint_of_another_model_is_an_ordinary_error(kept):
    with pytest.raises((OSError, RuntimeError, ValueError)):
        kept.restore({**tensors(), "weights/new": torch.zeros(2)})


# What is in a checkpoint


def test_a_checkpoint_is_safetensors_and_json_that_any_tool_reads(tmp_path):
    Checkpoints(str(tmp_path)).save(3, tensors(3), loss=0.25)
    folder = tmp_path / "step-00000003"
    names = sorted(path.name for path in folder.rglob("*"))
    assert [name.rpartition(".")[2] for name in names] == ["json", "safetensors"]
    notes = json.loads((folder / MANIFEST).read_text())
    assert (notes["format"], notes["step"], notes["loss"], notes["ranks"]) == (1, 3, 0.25, 1)
    assert list(notes["files"]) == [weights_of(tmp_path, 3).name]
    assert same(load_file(weights_of(tmp_path, 3)), tensors(3))


class Trap:
    def __reduce__(self):
        return OPENED.append, ("a pickle from storage was run",)


def test_no_pickle_from_storage_is_run(kept, tmp_path):
    folder = tmp_path / "step-00000004"
    for name in (".metadata", "__0_0.distcp"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    found = tensors()
    assert kept.restore(found) == 4
    # ... also if what is there says that it is right
    torch.save({"weights/a": Trap()}, weights_of(tmp_path, 4))
    notes = json.loads((folder / MANIFEST).read_text())
    name = next(iter(notes["files"]))
    notes["files"][name]["sha256"] = digest_of(os.fspath(folder / name))
    (folder / MANIFEST).write_text(json.dumps(notes))
    with pytest.raises(OSError, match="header"):
        kept.restore(found)
    assert OPENED == []
