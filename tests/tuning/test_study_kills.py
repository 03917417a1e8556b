"""A study's trials do not depend on what was killed, or on the order in which trials ended."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from pipeline.tuning.storage import open_storage

CONFTEST = str(Path(__file__).with_name("conftest.py"))


class KilledError(BaseException):
    """Stands for the end of the driver's process."""


class Deadly:
    """Makes a storage die just before or just after a chosen write; kills fall nowhere else."""

    def __init__(self):
        self.left = None

    def attach(self, storage):
        for name in dir(storage):
            if name.startswith(("create_new_", "_create_new_", "set_")):
                setattr(storage, name, self._watched(getattr(storage, name)))
        return storage

    def _watched(self, write):
        def watched(*args, **kwargs):
            self._count()
            got = write(*args, **kwargs)
            self._count()
            return got

        return watched

    def _count(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise KilledError


HARD = {"trials": 9, "max_failures": 99}


class Driver:
    """Plays a sweep's driver and the processes of its trials, and whatever ends them early."""

    def __init__(self, kit, url, output, at_once):
        self.kit = kit
        self.url, self.output, self.at_once = url, output, at_once
        self.deadly, self.asked, self.killed = Deadly(), {}, 0
        self.reopen()

    def reopen(self):
        storage = open_storage(self.kit.tuning(storage=self.url), self.output)
        self.study, self.running = None, {}
        self.study = self.kit.open_study(self.deadly.attach(storage), at_once=self.at_once, **HARD)
        assert self.study.running == 0

    def play(self, decisions):
        decisions = iter(decisions)
        while self.running or self.study.missing:
            try:
                self.step(next(decisions, None))
            except KilledError:
                self.reopen()
            assert self.study.running == len(self.running) <= self.at_once
        return self.study

    def step(self, decision):
        kind, which = divmod(0 if decision is None else decision, 20)
        if decision is not None and kind == 4:  # the driver dies at one of its next writes
            self.deadly.left = which
        elif kind == 3 and which < 10:
            self.reopen()
        elif kind == 3:
            self.study.suspend()
            self.running = {}
        elif kind == 2 and self.running:
            self.study.tell_killed(self.take(which).number)
        elif self.study.ready and (kind == 0 or not self.running):
            self.start()
        elif self.running:
            proposal = self.take(which)
            self.study.tell(proposal.number, self.kit.verdict(proposal))

    def take(self, which):
        numbers = sorted(self.running)
        return self.running.pop(numbers[which % len(numbers)])

    def start(self):
        states = [trial.state for trial in self.study._study.get_trials()]
        proposal = self.study.ask()
        waited = [number for number, state in enumerate(states) if state is TrialState.WAITING]
        assert proposal.number == (waited[0] if waited else len(states))
        known = states[: max(0, proposal.number - self.at_once + 1)]
        assert all(state.is_finished() for state in known)
        assert proposal == self.asked.setdefault(proposal.number, proposal)
        self.running[proposal.number] = proposal


@pytest.fixture(scope="module")
def undisturbed(kit, tmp_path_factory):
    """What one trial after the other gives, by how many might have run at once."""
    found = {}
    for at_once in (1, 2, 3):
        driver = Driver(kit, None, str(tmp_path_factory.mktemp("undisturbed")), at_once)
        found[at_once] = kit.all_of(driver.play([]))
        states = {trial[1] for trial in found[at_once]}
        assert states == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}  # else it shows little
    assert found[1] != found[2] != found[3]
    return found


DECISIONS = st.lists(st.integers(0, 99), min_size=10, max_size=60)
COUNTER = itertools.count()


@pytest.mark.parametrize(("kind", "examples"), [("journal", 15), ("database", 3)])
def test_kills_and_the_order_of_ends_change_nothing(kit, kind, examples, undisturbed, tmp_path):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.sampled_from([1, 2, 3]), DECISIONS)
    def check(at_once, decisions):
        output = tmp_path / str(next(COUNTER))
        url = f"sqlite:///{output}.db" if kind == "database" else None
        study = Driver(kit, url, str(output), at_once).play(decisions)
        assert kit.all_of(study) == undisturbed[at_once]

    check()


def test_a_kill_at_any_write_of_a_trials_life(kit, undisturbed, tmp_path):
    """One kill in each place, so that none is left to chance."""
    places = 0
    for place in range(200):
        driver = Driver(kit, None, str(tmp_path / str(place)), 2)
        kit.run(driver.study, 4)
        driver.deadly.left = place
        try:
            kit.run(driver.study, 1)
            break
        except KilledError:
            driver.reopen()
        assert [t.state for t in driver.study._study.get_trials()].count(TrialState.WAITING) <= 1
        assert kit.all_of(driver.play([])) == undisturbed[2]
        places += 1
    assert places >= 16


def test_points_do_not_depend_on_the_hash_seed(tmp_path):
    source = (
        f"import sys; sys.path.insert(0, {os.getcwd()!r})\n"
        f"import importlib.util as u; s = u.spec_from_file_location('t', {CONFTEST!r})\n"
        "t = u.module_from_spec(s); s.loader.exec_module(t)\n"
        "print([p.parameters.model_dump_json() for p in t.run(t.open_study(t.open_storage("
        "t.tuning(), sys.argv[1]), trials=8), 8)])"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", source, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert printed[0].count("beta") == 8
