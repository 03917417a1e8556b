"""The studies' storage survives what a power cut leaves of it."""

import pytest

from pipeline import UserError
from pipeline.tuning.storage import open_storage


def test_half_a_last_line_is_dropped(kit, tmp_path):
    study = kit.open_study(open_storage(kit.tuning(), str(tmp_path)))
    kit.run(study, 2)
    journal = tmp_path / "studies" / "journal.log"
    whole = journal.read_bytes()
    *_, last = whole.splitlines()
    expected = kit.all_of(kit.open_study(open_storage(kit.tuning(), str(tmp_path))))
    for cut in (1, len(last) // 2, len(last)):
        journal.write_bytes(whole[:-cut])
        study = kit.open_study(open_storage(kit.tuning(), str(tmp_path)))
        while len(study.ended) < 2:  # the trial whose end was cut off is taken up again
            kit.run(study, 1)
        assert kit.all_of(study) == expected


def test_no_journal_yet(kit, tmp_path):
    open_storage(kit.tuning(), str(tmp_path))
    assert (tmp_path / "studies").is_dir()


def test_a_database_that_cannot_be_opened(kit, one_line):
    with pytest.raises(UserError) as raised:
        open_storage(kit.tuning(storage="postgresql://me:secret@127.0.0.1:1/x"), "/nowhere")
    one_line(raised, "tuning.storage")
    assert "secret" not in str(raised.value)
