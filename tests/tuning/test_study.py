import itertools
import json
import os
import subprocess
import sys
import warnings

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from pipeline import FactorPair, UserError
from pipeline.config import TuningSettings
from pipeline.prior import paper_prior
from pipeline.recipe import Recipe
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.storage import check_storage, open_storage
from pipeline.tuning.study import PairStudy

PAIR = FactorPair(4, 2)
RUNGS = (3, 6)


def tuning(**changes):
    return TuningSettings.model_validate({"trials": 5, "max_failures": 2, "startup_trials": 3, **changes})


def open_study(storage, pair=PAIR, name=None, seed=0, **changes):
    entry = Recipe().entry(pair)
    return PairStudy(storage, name or f"sweep/{pair}", entry, tuning(**changes), 6, RUNGS, seed)


@pytest.fixture
def reopen(tmp_path):
    """Open the study as a new driver would: nothing but the journal file is left of the last one."""

    def open_(pair=PAIR, folder="a", **changes):
        return open_study(open_storage(tuning(), str(tmp_path / folder)), pair, **changes)

    return open_


def crps(parameters):
    """A score that depends on the point alone."""
    return 1 + parameters.beta + 0.01 * parameters.context + 0.1 * parameters.conservation.power


def complete(proposal, **metrics):
    return Outcome(
        state="complete",
        parameters=proposal.parameters,
        metrics={"crps": crps(proposal.parameters), **metrics},
        model_url=f"/models/{proposal.number}",
    )


def failed(proposal):
    return Outcome(state="failed", parameters=proposal.parameters, reason="loss is nan")


def verdict(proposal):
    """What a trial's process would report: pruned at a limit, failed where the point says so, or scored."""
    score, rungs = crps(proposal.parameters), {}
    if round(proposal.parameters.beta * 1e6) % 5 == 0 and proposal.number > 1:
        return failed(proposal)
    for step, limit in proposal.limits.items():
        rungs[step] = score * (1 + 1 / step)
        if limit is not None and rungs[step] > limit:
            return Outcome(state="pruned", parameters=proposal.parameters, rungs=rungs)
    return complete(proposal).model_copy(update={"rungs": rungs})


def run(study, number):
    """Run so many trials one after the other."""
    proposals = []
    for _ in range(number):
        proposals.append(study.ask())
        study.tell(proposals[-1].number, verdict(proposals[-1]))
    return proposals


def all_of(study):
    """Everything that can be known of a study's trials."""
    return [
        (t.number, t.state, t.params, t.values, t.intermediate_values, t.user_attrs["outcome"])
        for t in study._study.get_trials()
    ]


# Whatever is killed


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

    def __init__(self, url, output, at_once):
        self.url, self.output, self.at_once = url, output, at_once
        self.deadly, self.asked, self.killed = Deadly(), {}, 0
        self.reopen()

    def reopen(self):
        storage = open_storage(tuning(storage=self.url), self.output)
        self.study, self.running = None, {}
        self.study = open_study(self.deadly.attach(storage), at_once=self.at_once, **HARD)
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
            self.study.tell(proposal.number, verdict(proposal))

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
def undisturbed(tmp_path_factory):
    """What one trial after the other gives, by how many might have run at once."""
    found = {}
    for at_once in (1, 2, 3):
        driver = Driver(None, str(tmp_path_factory.mktemp("undisturbed")), at_once)
        found[at_once] = all_of(driver.play([]))
        states = {trial[1] for trial in found[at_once]}
        assert states == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}  # else it shows little
    assert found[1] != found[2] != found[3]
    return found


DECISIONS = st.lists(st.integers(0, 99), min_size=10, max_size=60)
COUNTER = itertools.count()


@pytest.mark.parametrize(("kind", "examples"), [("journal", 25), ("database", 4)])
def test_kills_and_the_order_of_ends_change_nothing(kind, examples, undisturbed, tmp_path):
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
        study = Driver(url, str(output), at_once).play(decisions)
        assert all_of(study) == undisturbed[at_once]

    check()


def test_a_kill_at_any_write_of_a_trials_life(undisturbed, tmp_path):
    """One kill in each place, so that none is left to chance."""
    places = 0
    for place in range(200):
        driver = Driver(None, str(tmp_path / str(place)), 2)
        run(driver.study, 4)
        driver.deadly.left = place
        try:
            run(driver.study, 1)
            break
        except KilledError:
            driver.reopen()
        assert [t.state for t in driver.study._study.get_trials()].count(TrialState.WAITING) <= 1
        assert all_of(driver.play([])) == undisturbed[2]
        places += 1
    assert places >= 16


def test_points_do_not_depend_on_the_hash_seed(tmp_path):
    source = (
        f"import sys; sys.path.insert(0, {os.getcwd()!r})\n"
        f"import importlib.util as u; s = u.spec_from_file_location('t', {__file__!r})\n"
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


# What comes when


def test_the_prior_comes_first(reopen):
    study = reopen()
    assert study.prior() is None
    assert study.best() is None
    first = study.ask()
    assert first.parameters == paper_prior(PAIR)
    assert first.pair == PAIR
    study.tell(first.number, complete(first))
    second = study.ask()
    assert second.parameters.conservation.scope == "cell"
    study.tell(second.number, complete(second, crps=0.5, rmse=2.0))
    assert study.prior().number == first.number == 0
    best = study.best()
    assert (best.number, best.crps, best.outcome.metrics) == (1, 0.5, {"crps": 0.5, "rmse": 2.0})
    assert (best.parameters, best.model_url) == (second.parameters, "/models/1")


def test_first_points_come_once_and_run_to_their_end(reopen):
    for _ in range(3):
        study = reopen(trials=9)
    proposals = run(study, 2)
    proposals += run(reopen(trials=9), 4)
    assert len({proposal.parameters for proposal in proposals}) == 6
    assert [trial.first for trial in study.ended] == [True, True, False, False, False, False]
    assert proposals[0].limits == proposals[1].limits == dict.fromkeys(RUNGS)
    assert study.prior().parameters == paper_prior(PAIR)


def test_a_trial_waits_for_those_it_is_drawn_from(reopen):
    study = reopen(trials=9, at_once=3)
    proposals = []
    for number in range(3):
        assert study.ready
        proposals.append(study.ask())
        assert proposals[-1].number == number
    assert not study.ready
    study.tell(2, complete(proposals[2]))
    study.tell(1, complete(proposals[1]))
    assert not study.ready  # trial 3 is drawn from trial 0
    study.tell_killed(0)
    assert study.ready
    assert study.ask() == proposals[0]
    assert not study.ready
    study.tell(0, complete(proposals[0]))
    assert study.ready
    assert study.ask().number == 3


def test_accounting(reopen):
    study = reopen(trials=3)
    assert (study.missing, study.running, study.done) == (3, 0, 0)
    one, two = study.ask(), study.ask()
    assert (study.missing, study.running, study.done) == (1, 2, 0)
    study.tell(one.number, complete(one))
    assert (study.missing, study.running, study.done) == (1, 1, 1)
    study.tell(two.number, Outcome(state="pruned", parameters=two.parameters, rungs={3: 1.5}))
    assert (study.missing, study.running, study.done, study.pruned) == (1, 0, 2, 1)
    third = study.ask()
    study.tell(third.number, failed(third))
    assert (study.missing, study.done, study.failures) == (1, 2, 1)  # another takes its place
    assert [trial.number for trial in study.finished] == [0]
    assert [(trial.number, trial.outcome.state) for trial in study.ended] == [
        (0, "complete"),
        (1, "pruned"),
        (2, "failed"),
    ]
    assert [study.outcome(number).state for number in range(3)] == ["complete", "pruned", "failed"]
    fourth = study.ask()
    assert study.outcome(fourth.number) is None
    assert reopen(trials=3).outcome(fourth.number) is None


def test_what_optuna_holds(reopen):
    study = reopen()
    one, two = study.ask(), study.ask()
    rungs = {3: 2.0, 6: 1.5}
    study.tell(one.number, complete(one).model_copy(update={"rungs": rungs}))
    study.tell(two.number, Outcome(state="pruned", parameters=two.parameters, rungs={3: 2.5}))
    three = study.ask()
    study.tell(three.number, failed(three).model_copy(update={"rungs": {3: 2.25}}))
    study.ask()
    held = optuna.load_study(study_name=study.name, storage=reopen()._study._storage).trials
    assert [trial.state for trial in held] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.WAITING,
    ]
    assert [trial.intermediate_values for trial in held] == [rungs, {3: 2.5}, {3: 2.25}, {}]
    assert held[0].values == [crps(one.parameters)]


def test_more_or_fewer_trials_later(reopen):
    run(reopen(trials=3), 3)
    assert reopen(trials=4).missing == 1
    fewer = reopen(trials=2)
    assert fewer.missing == 0
    assert not fewer.ready
    assert fewer.done == 3
    more = run(reopen(trials=7), 4)
    assert [proposal.parameters for proposal in run(reopen(trials=7, folder="b"), 7)[3:]] == [
        proposal.parameters for proposal in more
    ]


def test_another_seed_draws_other_points(reopen):
    one, other = run(reopen(trials=8), 8), run(reopen(trials=8, seed=1, folder="b"), 8)
    assert one[:2] == other[:2]
    assert not {p.parameters for p in one[2:]} & {p.parameters for p in other[2:]}


def test_other_pairs_do_not_matter(reopen):
    alone = run(reopen(folder="alone", trials=7), 7)
    one, other = reopen(trials=7), reopen(FactorPair(1, 3), trials=7)
    together = []
    for _ in range(7):
        proposal = other.ask()
        rungs = dict.fromkeys(RUNGS, 1e-6)  # so good that nothing of the first pair would go on
        other.tell(proposal.number, complete(proposal, crps=1e-6).model_copy(update={"rungs": rungs}))
        together += run(one, 1)
    assert together == alone
    assert other.ended[0].parameters.beta == paper_prior(FactorPair(1, 3)).beta


def test_the_search_learns(reopen):
    """TPE on 30 points of a smooth function comes nearer to its minimum than the points it starts with."""
    study = reopen(trials=30, startup_trials=8)
    crps_of = [crps(proposal.parameters) for proposal in run(study, 30)]
    assert sum(crps_of[-10:]) / 10 < sum(crps_of[:10]) / 10
    assert study.best().crps == min(trial.crps for trial in study.finished)


# Deaths and failures


def test_a_killed_trial_keeps_its_number_and_comes_first(reopen):
    study = reopen(trials=9)
    run(study, 2)
    lost, other = study.ask(), study.ask()
    assert lost.parameters != other.parameters
    assert study.tell_killed(lost.number) is None
    assert (study.failures, study.running) == (0, 1)
    assert study.ask() == lost
    assert study.tell_killed(other.number) is None
    assert study.tell_killed(lost.number) is None
    assert [study.ask(), study.ask()] == [lost, other]


def test_a_trial_that_always_dies_becomes_a_failure(reopen):
    for _ in range(2):
        study = reopen(max_failures=2)
        first = study.ask()
        assert first.number == 0
        assert study.tell_killed(0) is None
    study = reopen(max_failures=2)
    study.ask()
    outcome = study.tell_killed(0)
    assert outcome.state == "failed"
    assert outcome.parameters == paper_prior(PAIR)
    assert outcome.reason == "its process died 3 times"
    assert study.outcome(0) == outcome
    assert (study.failures, study.prior()) == (1, None)
    assert study.ask().number == 1


def test_a_driver_that_dies_again_and_again_is_not_the_points_fault(reopen):
    for _ in range(5):
        assert reopen(max_failures=0).ask().parameters == paper_prior(PAIR)
    assert reopen(max_failures=0).failures == 0


def test_a_failed_point_does_not_come_again(reopen):
    study = reopen()
    diverged = study.ask()
    study.tell(0, failed(diverged))
    assert (study.missing, study.failures) == (5, 1)
    assert diverged.parameters not in [proposal.parameters for proposal in run(reopen(), 5)]
    assert reopen().ended[0].outcome.reason == "loss is nan"


def test_exhausted(reopen):
    study = reopen(max_failures=1)
    run(study, 1)
    for expected in (False, True):
        proposal = study.ask()
        study.tell(proposal.number, failed(proposal))
        assert study.exhausted is expected
    assert (study.missing, study.ready) == (0, False)
    assert study.best() is not None
    assert reopen(max_failures=1).exhausted
    assert reopen(max_failures=2).missing == 4  # a user who allows more goes on


def test_suspended_trials_wait(reopen):
    study = reopen()
    asked = [study.ask(), study.ask()]
    study.suspend()
    assert study.running == 0
    states = [trial.state for trial in study._study.get_trials()]
    assert states == [TrialState.WAITING, TrialState.WAITING]
    study = reopen()
    assert [study.ask(), study.ask()] == asked


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_complete_trial_without_a_finite_objective_has_failed(reopen, value):
    study = reopen(objectives=("crps", "spectral"))
    proposal = study.ask()
    metrics = {} if value is None else {"log_spectral_distance": value}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.tell(0, complete(proposal, **metrics))
    assert (study.failures, study.done) == (1, 0)
    assert study.outcome(0).state == "failed"
    assert study.outcome(0).reason == f"log_spectral_distance is {value}"


def test_metrics_that_are_not_finite_survive(reopen):
    study = reopen()
    proposal = study.ask()
    study.tell(0, complete(proposal, spread_skill_ratio=float("inf"), odd=float("nan")))
    metrics = reopen().finished[0].outcome.metrics
    assert metrics["spread_skill_ratio"] == float("inf")
    assert metrics["odd"] != metrics["odd"]


# Pruning


def reached(study, number, values):
    """Run trials that reach the first rung with these values, and the end."""
    for value in values:
        proposal = study.ask()
        study.tell(proposal.number, complete(proposal).model_copy(update={"rungs": {3: value}}))
    assert study.ended[-1].number == number


def test_limits_come_from_the_known_trials_only(reopen):
    study = reopen(trials=20, startup_trials=2, at_once=2)
    reached(study, 3, [5.0, 4.0, 3.0, 2.0])
    # Trial 4 knows 0, 1 and 2; trial 3 may still run as far as it can tell. Best 2 of (5, 4, 3, itself).
    proposal = study.ask()
    assert proposal.limits == {3: 4.0, 6: None}
    beside = study.ask()  # 5 knows 0 to 3: the best 2 of (5, 4, 3, 2, itself)
    assert beside.limits == {3: 3.0, 6: None}
    study.tell(beside.number, complete(beside).model_copy(update={"rungs": {3: 0.1}}))
    study.suspend()
    assert study.ask() == proposal  # whatever has ended since


def test_nothing_is_pruned_before_enough_have_reached_the_rung(reopen):
    study = reopen(trials=20, startup_trials=4, at_once=1)
    reached(study, 2, [5.0, 4.0, 3.0])
    assert study.ask().limits == {3: None, 6: None}
    study.suspend()
    reached(study, 3, [2.0])
    assert study.ask().limits == {3: 3.0, 6: None}  # the best 2 of (5, 4, 3, 2, itself)


def test_pruned_trials_count_and_are_not_scored(reopen):
    study = reopen(trials=12, max_failures=12)
    while study.missing:
        run(study, 1)
    assert study.pruned > 0
    assert study.done == 12 == study.pruned + len(study.finished)
    assert not {t.number for t in study.finished} & {
        t.number for t in study.ended if t.outcome.state == "pruned"
    }


# Several objectives


def both(study, values):
    for value in values:
        proposal = study.ask()
        assert proposal.limits == {}
        study.tell(proposal.number, complete(proposal, crps=value[0], log_spectral_distance=value[1]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7))
@settings(max_examples=15, deadline=None)
def test_the_pareto_set(values):
    study = open_study(
        optuna.storages.InMemoryStorage(), trials=7, objectives=("spectral", "crps"), startup_trials=9
    )
    both(study, values)
    best = [
        number
        for number, one in enumerate(values)
        if not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in values)
    ]
    pareto = study.pareto()
    assert sorted(trial.number for trial in pareto) == best
    spectral = [trial.outcome.metrics["log_spectral_distance"] for trial in pareto]
    assert spectral == sorted(spectral)
    assert study.best().outcome.metrics["log_spectral_distance"] == min(one[1] for one in values)


def test_two_objectives_in_optuna(reopen):
    study = reopen(objectives=("crps", "spectral"), trials=8)
    both(study, [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.0, 3.0), (2.5, 1.5), (4.0, 4.0)])
    assert study._study.directions == [optuna.study.StudyDirection.MINIMIZE] * 2
    assert study._study.trials[1].values == [2.0, 2.0]
    assert [trial.number for trial in study.pareto()] == [0, 1, 4, 2]
    assert study.best().number == 0
    again = reopen(objectives=("crps", "spectral"), trials=8)
    assert [trial.number for trial in again.pareto()] == [0, 1, 4, 2]
    assert study.importances().keys() <= {"beta", "context", "scope", "f", "power", "threshold"}


def test_one_objective_has_one_best(reopen):
    study = reopen()
    run(study, 3)
    assert study.pareto()[0].number == study.best().number


# Importances


def test_importances(reopen):
    study = reopen(trials=24, startup_trials=24)
    assert study.importances() == {}
    for _ in range(24):
        proposal = study.ask()
        study.tell(proposal.number, complete(proposal, crps=1 + 50 * proposal.parameters.beta))
    importances = study.importances()
    assert max(importances, key=importances.get) == "beta"
    assert sum(importances.values()) == pytest.approx(1)
    assert reopen(trials=24).importances() == importances


def test_equal_scores_tell_nothing(reopen):
    study = reopen()
    for _ in range(5):
        proposal = study.ask()
        study.tell(proposal.number, complete(proposal, crps=1.0))
    assert study.importances() == {}


# Storage


def test_a_database_serves_as_well(tmp_path):
    chosen = tuning(storage=f"sqlite:///{tmp_path}/studies.db")
    check_storage(chosen, "gs://bucket/runs")
    run(open_study(open_storage(chosen, "gs://bucket/runs")), 1)
    assert open_study(open_storage(chosen, "gs://bucket/runs")).prior() is not None


def test_storage_mistakes(one_line):
    for open_or_check in (open_storage, check_storage):
        with pytest.raises(UserError) as raised:
            open_or_check(tuning(), "gs://bucket/runs")
        one_line(raised, "gs://bucket/runs", "tuning.storage")
    with pytest.raises(UserError) as raised:
        open_storage(tuning(storage="nonsense://user:secret@host/x"), "/tmp")
    one_line(raised, "tuning.storage")
    assert "secret" not in str(raised.value)


def test_optuna_is_quiet(reopen, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = reopen(trials=9, max_failures=9)
        run(study, 6)
        study.ask()
        study.tell_killed(6)
        study = reopen(trials=9, max_failures=9)
        proposal = study.ask()
        outcome = complete(proposal).model_copy(update={"rungs": {3: 2.0, 6: 1.5}})
        study._study._storage.set_trial_intermediate_value(study._all()[6]._trial_id, 3, 2.0)  # then a kill
        study.tell(6, outcome)
        assert study._all()[6].intermediate_values == {3: 2.0, 6: 1.5}
        two = reopen(name="two", objectives=("crps", "spectral"))
        both(two, [(1.0, 2.0)] * 5)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert capfd.readouterr() == ("", "")


def test_what_is_stored_is_json(reopen):
    study = reopen()
    run(study, 3)
    for trial in study._study.get_trials():
        json.dumps([trial.params, trial.user_attrs])
