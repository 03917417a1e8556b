import json
import warnings

import optuna
import pytest
from optuna.trial import TrialState

from pipeline import FactorPair, UserError
from pipeline.prior import paper_prior
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.storage import open_storage

# What comes when


def test_the_prior_comes_first(kit, reopen):
    study = reopen()
    assert study.prior() is None
    assert study.best() is None
    first = study.ask()
    assert first.parameters == paper_prior(kit.PAIR)
    assert first.pair == kit.PAIR
    study.tell(first.number, kit.complete(first))
    second = study.ask()
    assert second.parameters.conservation.scope == "cell"
    study.tell(second.number, kit.complete(second, crps=0.5, rmse=2.0))
    assert study.prior().number == first.number == 0
    best = study.best()
    assert (best.number, best.crps, best.outcome.metrics) == (1, 0.5, {"crps": 0.5, "rmse": 2.0})
    assert (best.parameters, best.model_url) == (second.parameters, "/models/1")


def test_first_points_come_once_and_run_to_their_end(kit, reopen):
    for _ in range(3):
        study = reopen(trials=9)
    proposals = kit.run(study, 2)
    proposals += kit.run(reopen(trials=9), 4)
    assert len({proposal.parameters for proposal in proposals}) == 6
    assert [trial.first for trial in study.ended] == [True, True, False, False, False, False]
    assert proposals[0].limits == proposals[1].limits == dict.fromkeys(kit.RUNGS)
    assert study.prior().parameters == paper_prior(kit.PAIR)


def test_a_trial_waits_for_those_it_is_drawn_from(kit, reopen):
    study = reopen(trials=9, at_once=3)
    proposals = []
    for number in range(3):
        assert study.ready
        proposals.append(study.ask())
        assert proposals[-1].number == number
    assert not study.ready
    study.tell(2, kit.complete(proposals[2]))
    study.tell(1, kit.complete(proposals[1]))
    assert not study.ready  # trial 3 is drawn from trial 0
    study.tell_killed(0)
    assert study.ready
    assert study.ask() == proposals[0]
    assert not study.ready
    study.tell(0, kit.complete(proposals[0]))
    assert study.ready
    assert study.ask().number == 3


def test_accounting(kit, reopen):
    study = reopen(trials=3)
    assert (study.missing, study.running, study.done) == (3, 0, 0)
    one, two = study.ask(), study.ask()
    assert (study.missing, study.running, study.done) == (1, 2, 0)
    study.tell(one.number, kit.complete(one))
    assert (study.missing, study.running, study.done) == (1, 1, 1)
    study.tell(two.number, Outcome(state="pruned", parameters=two.parameters, rungs={3: 1.5}))
    assert (study.missing, study.running, study.done, study.pruned) == (1, 0, 2, 1)
    third = study.ask()
    study.tell(third.number, kit.failed(third))
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


def test_what_optuna_holds(kit, reopen):
    study = reopen()
    one, two = study.ask(), study.ask()
    rungs = {3: 2.0, 6: 1.5}
    study.tell(one.number, kit.complete(one).model_copy(update={"rungs": rungs}))
    study.tell(two.number, Outcome(state="pruned", parameters=two.parameters, rungs={3: 2.5}))
    three = study.ask()
    study.tell(three.number, kit.failed(three).model_copy(update={"rungs": {3: 2.25}}))
    study.ask()
    held = optuna.load_study(study_name=study.name, storage=reopen()._study._storage).trials
    assert [trial.state for trial in held] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.WAITING,
    ]
    assert [trial.intermediate_values for trial in held] == [rungs, {3: 2.5}, {3: 2.25}, {}]
    assert held[0].values == [kit.crps(one.parameters)]


def test_more_or_fewer_trials_later(kit, reopen):
    kit.run(reopen(trials=3), 3)
    assert reopen(trials=4).missing == 1
    fewer = reopen(trials=2)
    assert fewer.missing == 0
    assert not fewer.ready
    assert fewer.done == 3
    more = kit.run(reopen(trials=7), 4)
    assert [proposal.parameters for proposal in kit.run(reopen(trials=7, folder="b"), 7)[3:]] == [
        proposal.parameters for proposal in more
    ]


def test_another_seed_draws_other_points(kit, reopen):
    one, other = kit.run(reopen(trials=8), 8), kit.run(reopen(trials=8, seed=1, folder="b"), 8)
    assert one[:2] == other[:2]
    assert not {p.parameters for p in one[2:]} & {p.parameters for p in other[2:]}


def test_other_pairs_do_not_matter(kit, reopen):
    alone = kit.run(reopen(folder="alone", trials=7), 7)
    one, other = reopen(trials=7), reopen(FactorPair(1, 3), trials=7)
    together = []
    for _ in range(7):
        proposal = other.ask()
        rungs = dict.fromkeys(kit.RUNGS, 1e-6)  # so good that nothing of the first pair would go on
        other.tell(proposal.number, kit.complete(proposal, crps=1e-6).model_copy(update={"rungs": rungs}))
        together += kit.run(one, 1)
    assert together == alone
    assert other.ended[0].parameters.beta == paper_prior(FactorPair(1, 3)).beta


def test_the_search_learns(kit, reopen):
    """TPE on 30 points of a smooth function comes nearer to its minimum than the points it starts with."""
    study = reopen(trials=30, startup_trials=8)
    crps_of = [kit.crps(proposal.parameters) for proposal in kit.run(study, 30)]
    assert sum(crps_of[-10:]) / 10 < sum(crps_of[:10]) / 10
    assert study.best().crps == min(trial.crps for trial in study.finished)


# Deaths and failures


def test_a_killed_trial_keeps_its_number_and_comes_first(kit, reopen):
    study = reopen(trials=9)
    kit.run(study, 2)
    lost, other = study.ask(), study.ask()
    assert lost.parameters != other.parameters
    assert study.tell_killed(lost.number) is None
    assert (study.failures, study.running) == (0, 1)
    assert study.ask() == lost
    assert study.tell_killed(other.number) is None
    assert study.tell_killed(lost.number) is None
    assert [study.ask(), study.ask()] == [lost, other]


def test_a_trial_that_always_dies_becomes_a_failure(kit, reopen):
    for _ in range(2):
        study = reopen(max_failures=2)
        first = study.ask()
        assert first.number == 0
        assert study.tell_killed(0) is None
    study = reopen(max_failures=2)
    study.ask()
    outcome = study.tell_killed(0)
    assert outcome.state == "failed"
    assert outcome.parameters == paper_prior(kit.PAIR)
    assert outcome.reason == "its process died 3 times"
    assert study.outcome(0) == outcome
    assert (study.failures, study.prior()) == (1, None)
    assert study.ask().number == 1


def test_a_driver_that_dies_again_and_again_is_not_the_points_fault(kit, reopen):
    for _ in range(5):
        assert reopen(max_failures=0).ask().parameters == paper_prior(kit.PAIR)
    assert reopen(max_failures=0).failures == 0


def test_a_failed_point_does_not_come_again(kit, reopen):
    study = reopen()
    diverged = study.ask()
    study.tell(0, kit.failed(diverged))
    assert (study.missing, study.failures) == (5, 1)
    assert diverged.parameters not in [proposal.parameters for proposal in kit.run(reopen(), 5)]
    assert reopen().ended[0].outcome.reason == "loss is nan"


def test_exhausted(kit, reopen):
    study = reopen(max_failures=1)
    kit.run(study, 1)
    for expected in (False, True):
        proposal = study.ask()
        study.tell(proposal.number, kit.failed(proposal))
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
def test_a_complete_trial_without_a_finite_objective_has_failed(kit, reopen, value):
    study = reopen(objectives=("crps", "spectral"))
    proposal = study.ask()
    metrics = {} if value is None else {"log_spectral_distance": value}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.tell(0, kit.complete(proposal, **metrics))
    assert (study.failures, study.done) == (1, 0)
    assert study.outcome(0).state == "failed"
    assert study.outcome(0).reason == f"log_spectral_distance is {value}"


def test_metrics_that_are_not_finite_survive(kit, reopen):
    study = reopen()
    proposal = study.ask()
    study.tell(0, kit.complete(proposal, spread_skill_ratio=float("inf"), odd=float("nan")))
    metrics = reopen().finished[0].outcome.metrics
    assert metrics["spread_skill_ratio"] == float("inf")
    assert metrics["odd"] != metrics["odd"]


# Storage


def test_a_database_serves_as_well(kit, tmp_path):
    chosen = kit.tuning(storage=f"sqlite:///{tmp_path}/studies.db")
    kit.run(kit.open_study(open_storage(chosen, "gs://bucket/runs")), 1)
    assert kit.open_study(open_storage(chosen, "gs://bucket/runs")).prior() is not None


def test_storage_mistakes(kit, one_line):
    with pytest.raises(UserError) as raised:
        open_storage(kit.tuning(storage="nonsense://user:secret@host/x"), "/tmp")
    one_line(raised, "tuning.storage")
    assert "secret" not in str(raised.value)


def test_optuna_is_quiet(kit, reopen, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = reopen(trials=9, max_failures=9)
        kit.run(study, 6)
        study.ask()
        study.tell_killed(6)
        study = reopen(trials=9, max_failures=9)
        proposal = study.ask()
        outcome = kit.complete(proposal).model_copy(update={"rungs": {3: 2.0, 6: 1.5}})
        study._study._storage.set_trial_intermediate_value(study._all()[6]._trial_id, 3, 2.0)  # then a kill
        study.tell(6, outcome)
        assert study._all()[6].intermediate_values == {3: 2.0, 6: 1.5}
        two = reopen(name="two", objectives=("crps", "spectral"))
        kit.both(two, [(1.0, 2.0)] * 5)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert capfd.readouterr() == ("", "")


def test_what_is_stored_is_json(kit, reopen):
    study = reopen()
    kit.run(study, 3)
    for trial in study._study.get_trials():
        json.dumps([trial.params, trial.user_attrs])
