"""The record of finished parts, as it is written and read again."""

import time

import numpy as np
import pytest

from pipeline import UserError
from pipeline.downscaling import record as module
from pipeline.downscaling.record import MANIFEST, RECORD, Account, Record, state
from pipeline.storage import files


@pytest.fixture
def account():
    return Account("abc", {"seed": 3, "model": "rain"}, {"command": "downscale"}, (5, 3), ready=True)


@pytest.fixture
def saved(monkeypatch):
    """The writes of the record."""
    calls, write = [], Account.write
    monkeypatch.setattr(Account, "write", lambda self, *where: (calls.append(self), write(self, *where)))
    return calls


def read(url):
    return Record(url, Account.read(url, RECORD)).finished


def test_marks_come_back(account, tmp_path):
    record = Record(str(tmp_path), account)
    assert not record.finished.any()
    record.mark(1, slice(0, 2))
    record.mark(4, 2)
    record.save()
    expected = np.zeros((5, 3), bool)
    expected[1, :2] = expected[4, 2] = True
    np.testing.assert_array_equal(read(str(tmp_path)), expected)
    assert Account.read(str(tmp_path), RECORD).ready


def test_many_marks_are_few_writes_and_none_waits_for_the_next(account, tmp_path, saved, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN", 0.3)
    record = Record(str(tmp_path), account)
    for frame in range(5):
        for part in range(3):
            record.mark(frame, part)
    assert 1 <= len(saved) <= 2
    assert np.sum(read(str(tmp_path))) < 15
    deadline = time.monotonic() + 20
    while not read(str(tmp_path)).all() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert read(str(tmp_path)).all()
    assert len(saved) <= 3


def test_nothing_is_written_once_it_is_let_go(account, tmp_path, saved, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN", 0.2)
    record = Record(str(tmp_path), account)
    record.mark(0, 0)
    record.mark(0, 1)
    record.close()
    assert read(str(tmp_path)).sum() == 2
    (tmp_path / RECORD).unlink()
    record.save()
    time.sleep(0.5)
    assert state(str(tmp_path)) == "absent"


def test_whoever_has_lost_the_lease_writes_nothing(account, tmp_path):
    def lost():
        raise UserError("lost")

    record = Record(str(tmp_path), account, still_alone=lost)
    with pytest.raises(UserError, match="lost"):
        record.mark(0, 0)
    record.finished[:] = True
    with pytest.raises(UserError, match="lost"):
        record.finish()
    assert state(str(tmp_path)) == "absent"


def test_the_manifest_comes_with_the_last_part(account, tmp_path):
    url = str(tmp_path)
    record = Record(url, account)
    for frame in range(5):
        record.mark(frame, slice(None))
    assert state(url) == "incomplete"
    record.finish()
    assert state(url) == "complete"
    known = Account.read(url, MANIFEST)
    assert known == account
    assert not (tmp_path / RECORD).exists()
    assert Record(url, known, complete=True).finished.all()


@pytest.mark.parametrize("change", ['"version": 2', '"version": 1, "more": 0'])
def test_a_record_of_another_version_is_refused(account, tmp_path, change, one_line):
    account.write(str(tmp_path), RECORD)
    path = tmp_path / RECORD
    path.write_text(path.read_text().replace('"version": 1', change))
    with pytest.raises(UserError) as raised:
        Account.read(str(tmp_path), RECORD)
    one_line(raised, str(tmp_path), RECORD)


def test_differences_are_said_by_name_and_in_short(account):
    other = {"seed": 4, "model": "r" * 100, "tile": 64, "overlap": 2, "zeta": 1}
    said = account.differences(other)
    assert said.startswith(f"model rain (now {'r' * 57}...), overlap null (now 2), seed 3 (now 4)")
    assert said.endswith("and 2 more")


def test_what_lies_in_a_folder(tmp_path):
    url = str(tmp_path / "fine")
    assert state(url) == "absent"
    for name, expected in (
        ("downscaling.lock", "absent"),
        (f"{RECORD}.1234.tmp", "absent"),
        ("zarr.json", "foreign"),
        (RECORD, "incomplete"),
        (MANIFEST, "complete"),
    ):
        files.write_text(files.join(url, name), "{}")
        assert state(url) == expected
    assert state(files.join(url, "zarr.json")) == "foreign"
