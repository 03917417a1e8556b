"""What a study makes of scores: limits, the Pareto set, importances."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# Pruning


def reached(kit, study, number, values):
    """Run trials that reach the first rung with these values, and the end."""
    for value in values:
        proposal = study.ask()
        study.tell(proposal.number, kit.complete(proposal).model_copy(update={"rungs": {3: value}}))
    assert study.ended[-1].number == number


def test_limits_come_from_the_known_trials_only(kit, reopen):
    study = reopen(trials=20, startup_trials=2, at_once=2)
    reached(kit, study, 3, [5.0, 4.0, 3.0, 2.0])
    # Trial 4 knows 0, 1 and 2; trial 3 may still run as far as it can tell. Best 2 of (5, 4, 3, itself).
    proposal = study.ask()
    assert proposal.limits == {3: 4.0, 6: None}
    beside = study.ask()  # 5 knows 0 to 3: the best 2 of (5, 4, 3, 2, itself)
    assert beside.limits == {3: 3.0, 6: None}
    study.tell(beside.number, kit.complete(beside).model_copy(update={"rungs": {3: 0.1}}))
    study.suspend()
    assert study.ask() == proposal  # whatever has ended since


def test_nothing_is_pruned_before_enough_have_reached_the_rung(kit, reopen):
    study = reopen(trials=20, startup_trials=4, at_once=1)
    reached(kit, study, 2, [5.0, 4.0, 3.0])
    assert study.ask().limits == {3: None, 6: None}
    study.suspend()
    reached(kit, study, 3, [2.0])
    assert study.ask().limits == {3: 3.0, 6: None}  # the best 2 of (5, 4, 3, 2, itself)


def test_pruned_trials_count_and_are_not_scored(kit, reopen):
    study = reopen(trials=12, max_failures=12)
    while study.missing:
        kit.run(study, 1)
    assert study.pruned > 0
    assert study.done == 12 == study.pruned + len(study.finished)
    assert not {t.number for t in study.finished} & {
        t.number for t in study.ended if t.outcome.state == "pruned"
    }


# Several objectives


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7))
@settings(max_examples=15, deadline=None)
def test_the_pareto_set(kit, values):
    study = kit.open_study(
        optuna.storages.InMemoryStorage(), trials=7, objectives=("spectral", "crps"), startup_trials=9
    )
    kit.both(study, values)
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


def test_two_objectives_in_optuna(kit, reopen):
    study = reopen(objectives=("crps", "spectral"), trials=8)
    kit.both(study, [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.0, 3.0), (2.5, 1.5), (4.0, 4.0)])
    assert study._study.directions == [optuna.study.StudyDirection.MINIMIZE] * 2
    assert study._study.trials[1].values == [2.0, 2.0]
    assert [trial.number for trial in study.pareto()] == [0, 1, 4, 2]
    assert study.best().number == 0
    again = reopen(objectives=("crps", "spectral"), trials=8)
    assert [trial.number for trial in again.pareto()] == [0, 1, 4, 2]
    assert study.importances().keys() <= {"beta", "context", "scope", "f", "power", "threshold"}


def test_one_objective_has_one_best(kit, reopen):
    study = reopen()
    kit.run(study, 3)
    assert study.pareto()[0].number == study.best().number


# Importances


def test_importances(kit, reopen):
    study = reopen(trials=24, startup_trials=24)
    assert study.importances() == {}
    for _ in range(24):
        proposal = study.ask()
        study.tell(proposal.number, kit.complete(proposal, crps=1 + 50 * proposal.parameters.beta))
    importances = study.importances()
    assert max(importances, key=importances.get) == "beta"
    assert sum(importances.values()) == pytest.approx(1)
    assert reopen(trials=24).importances() == importances


def test_equal_scores_tell_nothing(kit, reopen):
    study = reopen()
    for _ in range(5):
        proposal = study.ask()
        study.tell(proposal.number, kit.complete(proposal, crps=1.0))
    assert study.importances() == {}
