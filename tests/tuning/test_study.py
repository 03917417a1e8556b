import importlib
import sys

import optuna
import pytest

from pipeline import FactorPair, UserError
from pipeline.config import TuningSettings
from pipeline.prior import paper_prior
from pipeline.tuning.study import (
    PairStudy,
    check_storage,
    first_points,
    load_search_space,
    open_storage,
)

PAIR = FactorPair(4, 2)
POINTS = len(first_points("search_spaces.scale_adaptive", PAIR, 6))


@pytest.fixture
def reopen(tmp_path):
    """Open the study as a new driver would: nothing but the journal file is left of the last one."""

    def open_(pair=PAIR, name=None, seed=0, folder="a", **settings):
        settings = TuningSettings.model_validate({"trials": 5, "max_failures": 2, **settings})
        storage = open_storage(settings, str(tmp_path / folder))
        return PairStudy(storage, name or f"sweep/{pair}", pair, settings, max_context=6, seed=seed)

    return open_


def scored(proposal):
    """A score that depends on the point alone."""
    parameters = proposal.parameters
    return {"crps": 1 + parameters.beta + 0.01 * parameters.context + 0.1 * parameters.conservation.power}


def tell(study, proposal):
    study.tell(proposal.number, scored(proposal), f"/models/{proposal.number}")


def test_the_prior_comes_first(reopen):
    study = reopen()
    assert study.prior() is None
    assert study.best() is None
    first = study.ask()
    assert first.parameters == paper_prior(PAIR)
    assert first.pair == PAIR
    tell(study, first)
    second = study.ask()
    assert second.parameters.conservation.scope == "cell"
    study.tell(second.number, {"crps": 0.5, "rmse": 2.0}, "/models/second")
    assert study.prior().number == first.number
    best = study.best()
    assert (best.number, best.crps, best.metrics) == (second.number, 0.5, {"crps": 0.5, "rmse": 2.0})
    assert (best.parameters, best.model_url) == (second.parameters, "/models/second")


def test_accounting(reopen):
    study = reopen(trials=2)
    assert (study.wanted, study.running, study.done) == (2, 0, False)
    one, two = study.ask(), study.ask()
    assert (study.wanted, study.running, study.done) == (0, 2, False)
    tell(study, one)
    assert (study.wanted, study.running, study.done) == (0, 1, False)
    tell(study, two)
    assert (study.wanted, study.running, study.done) == (0, 0, True)
    assert [trial.number for trial in study.finished] == [one.number, two.number]


def test_more_or_fewer_trials_later(reopen):
    study = reopen(trials=3)
    for _ in range(3):
        tell(study, study.ask())
    assert reopen(trials=4).wanted == 1
    fewer = reopen(trials=2)
    assert fewer.done
    assert len(fewer.finished) == 3


def test_a_killed_point_comes_back_before_any_new_one(reopen):
    study = reopen()
    for _ in range(POINTS):
        tell(study, study.ask())
    lost, other = study.ask(), study.ask()
    assert lost.parameters != other.parameters
    study.tell_killed(lost.number)
    assert study.failures == 0
    again = study.ask()
    assert again.parameters == lost.parameters
    assert again.number > other.number
    assert study.ask().parameters not in (lost.parameters, other.parameters)


def test_a_point_that_always_dies_becomes_one_failure(reopen):
    study = reopen(max_failures=2)
    numbers = []
    for _ in range(3):  # once, and two more times
        proposal = study.ask()
        assert proposal.parameters == paper_prior(PAIR) or proposal.number == 1
        if proposal.number == 1:  # the other first point
            tell(study, proposal)
            proposal = study.ask()
        numbers.append(proposal.number)
        assert proposal.parameters == paper_prior(PAIR)
        study.tell_killed(proposal.number)
    assert study.failures == 1
    assert len(set(numbers)) == 3
    assert study.ask().parameters != paper_prior(PAIR)
    assert study.prior() is None


def test_a_diverged_point_does_not_come_back(reopen):
    study = reopen()
    diverged = study.ask()
    study.tell_failure(diverged.number, "loss is nan")
    assert study.failures == 1
    assert (study.wanted, study.running) == (5, 0)
    study = reopen()
    assert study.failures == 1
    for _ in range(4):
        proposal = study.ask()
        assert proposal.parameters != diverged.parameters
        tell(study, proposal)


def test_exhausted(reopen):
    study = reopen(max_failures=1)
    tell(study, study.ask())
    study.tell_failure(study.ask().number, "loss is nan")
    assert not study.exhausted
    study.tell_failure(study.ask().number, "loss is nan")
    assert study.exhausted
    assert study.done
    assert study.wanted == 0
    assert study.best() is not None
    assert reopen(max_failures=1).exhausted
    assert reopen(max_failures=2).wanted == 4  # a user who allows more goes on


def test_a_new_driver_repeats_what_was_running_once(reopen):
    study = reopen()
    done = study.ask()
    tell(study, done)
    lost = [study.ask(), study.ask()]
    known = {done.parameters.model_dump_json()}

    study = reopen()
    assert (study.running, study.failures, study.wanted) == (0, 0, 4)
    assert [trial.number for trial in study.finished] == [done.number]
    study = reopen()  # a driver that died before it asked for anything
    again = [study.ask(), study.ask()]
    assert [p.parameters for p in again] == [p.parameters for p in lost]
    for proposal in again:
        tell(study, proposal)
        known.add(proposal.parameters.model_dump_json())
    for _ in range(2):
        proposal = study.ask()
        assert proposal.parameters.model_dump_json() not in known
        known.add(proposal.parameters.model_dump_json())
        tell(study, proposal)
    assert reopen().done
    assert len(reopen().finished) == 5


def test_first_points_are_enqueued_once(reopen):
    for _ in range(3):
        study = reopen()
    first = [study.ask().parameters for _ in range(POINTS + 2)]
    assert len({p.model_dump_json() for p in first}) == POINTS + 2


def test_a_driver_killed_between_the_first_points_loses_none(reopen, monkeypatch):
    enqueue, done = optuna.Study.enqueue_trial, []

    def enqueue_one(self, *args, **kwargs):
        if done:
            raise KeyboardInterrupt
        done.append(enqueue(self, *args, **kwargs))

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", enqueue_one)
        with pytest.raises(KeyboardInterrupt):
            reopen()
    study = reopen()
    points = [study.ask().parameters for _ in range(POINTS)]
    assert points[0] == paper_prior(PAIR)
    assert points[1].conservation.scope == "cell"
    assert points[1].conservation.power == 1


def test_a_driver_that_dies_again_and_again_is_not_the_points_fault(reopen):
    for _ in range(4):
        assert reopen(max_failures=0).ask().parameters.context == paper_prior(PAIR).context
    study = reopen(max_failures=0)
    assert study.failures == 0
    asked = [study.ask().parameters for _ in range(POINTS)]
    assert paper_prior(PAIR) in asked


def test_a_driver_that_died_while_asking_keeps_the_first_point(reopen):
    study = reopen()
    study._study.ask()  # a trial of no values yet, as before `suggest` has run
    study = reopen()
    assert paper_prior(PAIR) in [study.ask().parameters for _ in range(POINTS)]


def test_the_same_seed_asks_the_same_points(reopen):
    def run(folder, seed, interrupted_at=None):
        asked = []
        study = reopen(folder=folder, seed=seed, trials=9)
        for number in range(9):
            if number == interrupted_at:
                study = reopen(folder=folder, seed=seed, trials=9)
            asked.append(study.ask())
            tell(study, asked[-1])
        return [proposal.parameters for proposal in asked]

    assert run("a", 0) == run("b", 0)
    assert run("a2", 0) == run("c", 0, interrupted_at=6)
    assert run("a3", 0)[POINTS:] != run("d", 1)[POINTS:]


def test_two_pairs_share_a_storage_without_merging(reopen):
    one, other = reopen(), reopen(FactorPair(1, 3))
    tell(one, one.ask())
    tell(one, one.ask())
    assert other.finished == []
    assert other.ask().parameters == paper_prior(FactorPair(1, 3)).model_copy(
        update={"context": min(6, paper_prior(FactorPair(1, 3)).context)}
    )
    assert (len(one.finished), one.running, other.running) == (2, 0, 1)


def test_a_database_serves_as_well(tmp_path):
    settings = TuningSettings(storage=f"sqlite:///{tmp_path}/studies.db")
    check_storage(settings, "gs://bucket/runs")
    study = PairStudy(open_storage(settings, "gs://bucket/runs"), "s", PAIR, settings, 6, 0)
    tell(study, study.ask())
    study = PairStudy(open_storage(settings, "gs://bucket/runs"), "s", PAIR, settings, 6, 0)
    assert study.prior() is not None


def test_storage_mistakes(one_line):
    with pytest.raises(UserError) as raised:
        open_storage(TuningSettings(), "gs://bucket/runs")
    one_line(raised, "gs://bucket/runs", "tuning.storage")
    with pytest.raises(UserError) as raised:
        open_storage(TuningSettings(storage="nonsense://user:secret@host/x"), "/tmp")
    one_line(raised, "tuning.storage")
    assert "secret" not in str(raised.value)


@pytest.fixture
def space(tmp_path, monkeypatch):
    """Write a search space of one's own and give its module name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source):
        (tmp_path / "my_space.py").write_text(source)
        sys.modules.pop("my_space", None)
        importlib.invalidate_caches()
        return "my_space"

    yield write
    sys.modules.pop("my_space", None)


GOOD = """
from pipeline import ScaleParameters
def first_trials(pair, max_context):
    return [{"beta": 0.01}]
def suggest(trial, pair, max_context):
    return ScaleParameters(beta=trial.suggest_float("beta", 0.005, 0.05), context=1)
"""


def test_a_space_of_ones_own(space, reopen):
    study = reopen(search_space=space(GOOD))
    tell(study, study.ask())
    assert study.prior().parameters.beta == 0.01
    tell(study, study.ask())
    assert study.prior().number == 0


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import nothing_of_that_name", ["cannot be imported", "nothing_of_that_name"]),
        ("def suggest(:", ["cannot be imported", "SyntaxError"]),
        ("1 / 0", ["cannot be imported", "ZeroDivisionError"]),
        ("def suggest(): pass", ["no function first_trials()"]),
        ("first_trials = suggest = 3", ["no function first_trials()"]),
        (GOOD.replace('[{"beta": 0.01}]', "[]"), ["first_trials()", "no point", "4x2"]),
        (
            GOOD.replace("return [", "raise KeyError('x')\n    return ["),
            ["first_trials() failed", "KeyError"],
        ),
        (GOOD.replace('{"beta": 0.01}', '{"beta": 0.5}'), ["0.5", "out of the range"]),
        (GOOD.replace('{"beta": 0.01}', '{"power": 0.5}'), ["first point", "beta"]),
        (GOOD.replace("context=1", "context=0"), ["first point", "ValidationError"]),
        (GOOD.replace("context=1", "context=max_context + 1"), ["L up to 6"]),
        (GOOD.replace("return Scale", "return 1 or Scale"), ["must give ScaleParameters"]),
    ],
)
def test_mistakes_in_a_space(source, parts, space, one_line):
    module = space(source)
    with pytest.raises(UserError) as raised:
        first_points(module, PAIR, 6)
    one_line(raised, "tuning.search_space 'my_space'", *parts)


@pytest.mark.parametrize("module", ["no_such_space", "", ".relative", "pipeline"])
def test_no_space(module, one_line):
    with pytest.raises(UserError) as raised:
        load_search_space(module)
    one_line(raised, f"tuning.search_space {module!r}")


def test_a_space_that_fails_later_leaves_nothing_running(space, reopen, one_line):
    source = GOOD.replace("context=1", "context=1 if trial.number == 0 else 1 / 0")
    study = reopen(search_space=space(source))
    tell(study, study.ask())
    with pytest.raises(UserError) as raised:
        study.ask()
    one_line(raised, "my_space", "4x2", "ZeroDivisionError")
    assert study.running == 0
    assert [trial.number for trial in study.finished] == [0]


def test_optuna_is_quiet(reopen, capfd):
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    study = reopen()
    tell(study, study.ask())
    study.tell_failure(study.ask().number, "loss is nan")
    study.tell_killed(study.ask().number)
    assert capfd.readouterr() == ("", "")
