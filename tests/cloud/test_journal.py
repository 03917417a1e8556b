"""A sweep's memory on an object store: nothing lost, nothing out of order, whoever writes."""

import subprocess
import sys

import optuna
import pytest
from optuna.storages import JournalStorage

from pipeline import UserError
from pipeline.config import TuningSettings
from pipeline.storage import files
from pipeline.tuning import journal
from pipeline.tuning.journal import ObjectJournal
from pipeline.tuning.storage import open_storage


def records(url):
    return list(ObjectJournal(url).read_logs(0))


def test_what_was_appended_is_read_in_order(folder):
    one = ObjectJournal(folder)
    one.append_logs([{"n": 0}, {"n": 1}])
    one.append_logs([{"n": 2}])
    assert list(one.read_logs(1)) == [{"n": 1}, {"n": 2}]
    assert records(folder) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_two_writers_lose_nothing_and_agree(folder):
    one, other = ObjectJournal(folder), ObjectJournal(folder)
    for n in range(3):
        one.append_logs([{"one": n}])
        other.append_logs([{"other": n}, {"other": n}])
    assert list(one.read_logs(0)) == list(other.read_logs(0)) == records(folder)
    assert len(records(folder)) == 9


def test_a_write_whose_answer_was_lost_counts_once(folder):
    one = ObjectJournal(folder)
    url = files.join(folder, "segment-00000001.jsonl")
    files.write_bytes(url, b'{"n":0}\n')  # gcsfs tries again, and is told that it is there
    one.append_logs([{"n": 0}])
    assert records(folder) == [{"n": 0}]


def test_a_summary_saves_reading_and_changes_nothing(folder, monkeypatch):
    monkeypatch.setattr(journal, "_SUMMARY_EVERY", 3)
    one = ObjectJournal(folder)
    for n in range(4):
        one.append_logs([{"n": n}])
    ObjectJournal(folder)  # makes it
    assert [name for name in files.list_folder(folder) if "summary" in name] == ["summary-00000004.jsonl"]
    one.append_logs([{"n": 4}])  # as one that knows nothing of it
    files.write_bytes(files.join(folder, "segment-00000002.jsonl"), b"not read any more")
    assert [record["n"] for record in records(folder)] == [0, 1, 2, 3, 4]


def test_a_hole_is_named_not_skipped(folder, one_line):
    one = ObjectJournal(folder)
    for n in range(3):
        one.append_logs([{"n": n}])
    files.remove(files.join(folder, "segment-00000002.jsonl"))
    with pytest.raises(UserError) as raised:
        ObjectJournal(folder)
    one_line(raised, "segment-00000002", "missing")


def test_a_killed_study_is_found_again(folder):
    killed = (
        "import os, sys, optuna; from pipeline.config import TuningSettings; "
        "from pipeline.tuning.storage import open_storage\n"
        "study = optuna.create_study(storage=open_storage(TuningSettings(), sys.argv[1]), study_name='s')\n"
        "for value in (0.5, 0.25):\n"
        "    trial = study.ask(); trial.suggest_float('x', 0, 1); study.tell(trial, value)\n"
        "study.ask(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", killed, folder], capture_output=True, text=True, timeout=100)
    assert done.returncode == -9, done.stderr
    storage = open_storage(TuningSettings(), folder)
    study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    assert [(trial.state.name, trial.value) for trial in study.trials] == [
        ("COMPLETE", 0.5), ("COMPLETE", 0.25), ("RUNNING", None),
    ]  # fmt: skip
    assert JournalStorage(ObjectJournal(f"{folder}/studies")).get_n_trials(study._study_id) == 3
