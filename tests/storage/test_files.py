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
