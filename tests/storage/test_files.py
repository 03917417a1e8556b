"""Whole files and locks."""

import subprocess
import sys

import pytest

from pipeline import UserError
from pipeline.storage import files


def test_a_lock_keeps_others_out_until_its_process_ends(tmp_path):
    path = str(tmp_path / "locks" / "sweep.lock")
    holder = (
        "import sys, time; from pipeline.storage.files import locked\n"
        "with locked(sys.argv[1], 'taken'): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, path], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            for hold in (files.locked, files.leased):
                with (
                    pytest.raises(UserError, match=f"taken .held by process {process.pid} "),
                    hold(path, "taken"),
                ):
                    pass
        finally:
            process.kill()
    with files.leased(path, "taken") as lease:
        lease.check()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    url = str(tmp_path / "file.txt")
    files.write_text(url, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_text(url, "new")
    assert files.read_text(url) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_unfinished_files_are_removed_wherever_they_lie_and_nothing_else(tmp_path):
    kept = ["zarr.json", "c/0/1", "c/partial", "notes.tmp.txt"]
    for name in (*kept, ".0a1b.partial", "manifest.json.1f2e.tmp", "c/0/.7d.partial"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    files.remove_unfinished(str(tmp_path))
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == sorted(kept)
    files.remove_unfinished(str(tmp_path / "nowhere"))
    files.write_bytes("memory://unfinished/a.tmp", b"whole: somebody has put it there")
    files.remove_unfinished("memory://unfinished")
    assert files.list_folder("memory://unfinished") == ["a.tmp"]


@pytest.mark.parametrize(
    "url",
    [
        "rain.nc",
        "/a/rain.nc",
        "gs://b/rain.nc",
        "https://h/a/rain.nc?key=x/y#z",
        "gs://b/rain.nc/",
        "http://h/rain.nc/",
    ],
)
def test_last_name(url):
    assert files.last_name(url) == "rain.nc"


def test_a_name_may_have_a_question_mark_where_it_is_no_web_address():
    assert files.last_name("/a/rain?.nc") == "rain?.nc"


def test_why_a_place_cannot_be_written_to_is_known_without_writing(tmp_path):
    assert files.why_unwritable(str(tmp_path / "deep" / "new")) is None
    assert files.why_unwritable("memory://bucket/new") is None  # nobody knows before
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    place, error = files.why_unwritable(str(tmp_path / "file" / "new"))
    assert (place, type(error)) == (str(tmp_path / "file"), NotADirectoryError)
