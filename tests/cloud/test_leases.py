"""One holder at a time, on object stores."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import UserError
from pipeline.storage import files
from pipeline.storage.conditional import ABSENT, conditional_object
from pipeline.storage.holder import Holder
from pipeline.storage.locks import LeaseTerms

QUICK = LeaseTerms(renewed_every=0.1, expires_after=1.0)


@pytest.fixture(params=["gs", "memory"])
def url(request, folder):
    return f"{folder}/sweep.lock" if request.param == "gs" else f"memory://{folder[5:]}/sweep.lock"


def elsewhere(url, seconds_ago=0.0):
    """Leave the lease of another machine, last renewed so long ago."""
    other = replace(
        Holder.this_process(), host="far", machine="", since=0.0, renewed=time.time() - seconds_ago
    )
    files.write_text(url, other.to_json())


def test_a_second_holder_is_told_who_has_it(url, one_line):
    with files.leased(url, "sweep: taken") as lease:
        lease.check()
        with pytest.raises(UserError) as raised, files.leased(url, "sweep: taken"):
            pass
        one_line(raised, "sweep: taken", "process", "since")
    assert not files.exists(url)
    with files.leased(url, "sweep: taken"):
        pass


def test_it_is_taken_once_it_is_given_back(url):
    elsewhere(url)
    with pytest.raises(UserError, match="on far, since 1970-01-01"), files.leased(url, "taken", patience=0.5):
        pass
    files.remove(url)
    with files.leased(url, "taken", patience=0.5):
        pass


def test_it_is_kept_by_renewing(url):
    with files.leased(url, "taken", terms=QUICK) as lease:
        time.sleep(1.5)  # longer than it lasts
        lease.check()
        with pytest.raises(UserError, match="taken"), files.leased(url, "taken", terms=QUICK):
            pass


def test_one_that_is_not_renewed_is_taken_over(url):
    elsewhere(url, seconds_ago=9.0)
    time.sleep(2.1)  # in whole seconds, Google's clock tells when it was written, not what it says
    with files.leased(url, "taken", terms=QUICK) as lease:
        lease.check()


def test_a_holder_that_has_lost_it_is_told_and_leaves_the_new_one_alone(url, one_line):
    heard = []
    with files.leased(url, "taken", terms=QUICK, on_loss=heard.append) as lease:
        elsewhere(url)
        time.sleep(0.4)
        with pytest.raises(UserError) as raised:
            lease.check()
        one_line(raised, url, "lost", "on far")
        assert heard == [str(raised.value)]
    assert json.loads(files.read_text(url))["host"] == "far"


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_at_once(folder):
    url = f"{folder}/sweep.lock"
    holder = (
        "import sys, time; from pipeline.storage.files import leased\n"
        "with leased(sys.argv[1], 'taken'): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, url], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(UserError, match=f"process {process.pid} on"), files.leased(url, "taken"):
                pass
        finally:
            process.kill()
    with files.leased(url, "taken"):
        pass


def test_of_two_that_write_one_fails(folder):
    one, other = conditional_object(f"{folder}/object"), conditional_object(f"{folder}/object")
    first = one.write(b"1", ABSENT)
    with pytest.raises(FileExistsError):
        other.write(b"2", ABSENT)
    second = other.write(b"2", first)
    with pytest.raises(FileExistsError):
        one.write(b"3", first)
    with pytest.raises(FileExistsError):
        one.delete(first)
    assert one.read().content == b"2"
    other.delete(second)
    assert one.read() is None


def test_a_holder_that_cannot_renew_it_stops_before_others_may_take_it(monkeypatch, one_line):
    url = "memory://unreachable/sweep.lock"
    with files.leased(url, "taken", terms=QUICK) as lease:
        with monkeypatch.context() as broken:
            broken.setattr(MemoryFileSystem, "cat_file", fail)
            time.sleep(1.0)
            with pytest.raises(UserError) as raised:
                lease.check()
        one_line(raised, url, "could not renew", "network")
        time.sleep(0.3)
        lease.check()  # nobody has taken it meanwhile


def fail(*_, **__):
    raise OSError("no way there")


def test_a_driver_whose_sweep_another_has_taken_ends_as_if_killed(folder):
    url = f"{folder}/sweep.lock"
    driver = (
        "import sys, time; from pipeline.records import recording; from pipeline.storage import locks\n"
        "locks.LeaseTerms.__init__.__defaults__ = (0.1, 1.0)\n"
        "try:\n"
        "    with recording._alone(sys.argv[1], 's', '--name'): print('held', flush=True); time.sleep(600)\n"
        "finally: print('tidied up')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", driver, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            elsewhere(url)
            said, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said) == (2, "")
    assert error.startswith(f"error: {url}: this process has lost its lease to process")
