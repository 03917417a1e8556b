import logging
import math

import optuna
import pytest

from pipeline import FactorPair
from pipeline.config import TuningSettings
from pipeline.factors import Conservation, ScaleParameters, Scope
from pipeline.mlflow_view.views import page_of_run
from pipeline.recipe import Recipe
from pipeline.tracking import KEY, NOTE, PARENT, SWEEP, Tracker
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.runs import end_run, run_key, run_name, settle, start_run
from pipeline.tuning.study import PairStudy

logging.getLogger("mlflow").setLevel(logging.WARNING)
PAIR = FactorPair(4, 2)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all tests here: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def reopen(uri, request, tmp_path):
    """Give a tracker as a new driver has it."""
    opened = []

    def open_():
        opened.append(Tracker(uri, request.node.name, str(tmp_path), {SWEEP: "s"}))
        opened[-1].start("s/4x2", "4x2 study")
        return opened[-1]

    yield open_
    for tracker in opened:
        tracker.close()


@pytest.fixture
def study():
    settings = TuningSettings(trials=9, at_once=4)
    storage = optuna.storages.InMemoryStorage()
    return PairStudy(storage, "s/4x2", Recipe().entry(PAIR), settings, 6, (3, 6), 0)


def outcomes(parameters):
    """One of each kind."""
    return [
        Outcome(
            state="complete",
            parameters=parameters[0],
            metrics={"crps": 0.5, "ratio": float("inf")},
            rungs={3: 0.75, 6: 0.625},
            trained_steps=24,
            model_url="/models/0",
        ),
        Outcome(state="pruned", parameters=parameters[1], rungs={3: 1.5}, trained_steps=15),
        Outcome(state="failed", parameters=parameters[2], reason="loss is nan", trained_steps=6),
    ]


def run_of(tracker, key):
    assert tracker.flush(20)
    return tracker.client.get_run(tracker.run_id(key))


def all_runs(tracker):
    assert tracker.flush(20)
    found = tracker.client.search_runs([tracker.experiment_id])
    return {run.data.tags[KEY]: run for run in found}


def check_ended(runs, trials=3):
    """All ended trials' runs say what the study says."""
    states = [runs[f"s/4x2/{number}"] for number in range(trials)]
    assert [run.info.status for run in states] == ["FINISHED", "KILLED", "FAILED"]
    assert [run.data.tags["finescale.outcome"] for run in states] == ["complete", "pruned", "failed"]
    assert states[0].data.tags["finescale.model"] == "/models/0"
    assert states[2].data.tags["finescale.reason"] == "loss is nan"
    assert states[0].data.metrics["crps"] == 0.5


def test_a_trials_run(reopen, study):
    tracker, proposal = reopen(), study.ask()
    key = start_run(tracker, study, 0, proposal.parameters)
    assert key == run_key(study, 0) == "s/4x2/0"
    run, parameters = run_of(tracker, key), proposal.parameters
    assert run.info.status == "RUNNING"
    assert run.info.run_name == run_name(PAIR, "trial 00", parameters)
    assert run.data.tags[PARENT] == tracker.run_id("s/4x2")
    assert run.data.tags.items() >= {
        "finescale.role": "trial", "finescale.pair": "4x2", "finescale.factors": "4x in space, 2x in time",
    }.items()  # fmt: skip
    page = f"[4x2 study]({page_of_run(tracker.experiment_id, tracker.run_id('s/4x2'))})"
    assert run.data.tags[NOTE].startswith(f"{parameters}: **no score yet** (trial 0 of {page}")
    assert run.data.params == {
        "pair": "4x2", "space": "4", "time": "2", "trial": "0",
        "beta": str(parameters.beta), "context": str(parameters.context),
        "power": str(parameters.conservation.power), "threshold": str(parameters.conservation.threshold),
        "scope": parameters.conservation.scope.value,
    }  # fmt: skip


def test_a_run_that_only_serves_to_compare(reopen, study):
    tracker, parameters = reopen(), study.ask().parameters
    key = start_run(tracker, study, "rival-1", parameters, role="rival")
    run = run_of(tracker, key)
    assert (key, run.data.tags["finescale.role"]) == ("s/4x2/rival-1", "rival")
    assert run.info.run_name == run_name(PAIR, "rival", parameters)
    assert "compared with the tuned values" in run.data.tags[NOTE]


@pytest.mark.parametrize(
    ("conservation", "text"),
    [
        (Conservation(scope=Scope.CELL), "x/cell"),
        (Conservation(power=0.7, threshold=0.016), "x^0.7-0.016/tile"),
        (Conservation(scope=Scope.NONE), "none"),
    ],
)
def test_names_of_runs(conservation, text):
    parameters = ScaleParameters(beta=0.01394, context=5, conservation=conservation)
    assert run_name(PAIR, "trial 07", parameters) == f"4x2 trial 07 · beta 0.0139 L 5 {text}"


def test_ends(reopen, study):
    tracker = reopen()
    asked = [study.ask() for _ in range(3)]
    for number, outcome in enumerate(outcomes([proposal.parameters for proposal in asked])):
        start_run(tracker, study, number, outcome.parameters)
        end_run(tracker, study, number, outcome)
    runs = all_runs(tracker)
    check_ended(runs)
    beta = [math.log10(proposal.parameters.beta) for proposal in asked]
    # A chart shows no infinity, and has no logarithmic axis.
    assert runs["s/4x2/0"].data.metrics == {"crps": 0.5, "trained_steps": 24, "log10_beta": beta[0]}
    assert runs["s/4x2/1"].data.metrics == {"trained_steps": 15, "log10_beta": beta[1]}
    said = [runs[f"s/4x2/{number}"].data.tags[NOTE] for number in range(3)]
    assert "**CRPS 0.5 on validation windows**" in said[0]
    assert "**pruned after step 3, CRPS 1.5 there**" in said[1]
    assert "**failed: loss is nan**" in said[2]


@pytest.mark.parametrize("recorded", [0, 1, 3])
def test_a_driver_died_between_the_study_and_the_runs(reopen, study, recorded):
    """However many runs had been ended, and whether they had been begun: they are made to agree."""
    tracker = reopen()
    asked = [study.ask() for _ in range(4)]
    told = outcomes([proposal.parameters for proposal in asked])
    for number, proposal in enumerate(asked):
        if recorded or number % 2:
            start_run(tracker, study, number, proposal.parameters)
    for number, outcome in enumerate(told):
        study.tell(number, outcome)
        if number < recorded:
            end_run(tracker, study, number, outcome)
    tracker.close(20)

    study.suspend()
    tracker = reopen()
    settle(tracker, study)
    runs = all_runs(tracker)
    check_ended(runs)
    assert runs["s/4x2/3"].info.status == "KILLED"  # it waits; its run goes on when it does
    assert "finescale.outcome" not in runs["s/4x2/3"].data.tags
    assert len(runs) == 5  # of the study and its trials: none twice
    if recorded == 0:
        history = tracker.client.get_metric_history(runs["s/4x2/0"].info.run_id, "rung_crps")
        assert [(metric.step, metric.value) for metric in history] == [(3, 0.75), (6, 0.625)]


def test_settling_twice_records_nothing_anew(reopen, study):
    tracker = reopen()
    asked = [study.ask() for _ in range(3)]
    for number, outcome in enumerate(outcomes([proposal.parameters for proposal in asked])):
        study.tell(number, outcome)
    settle(tracker, study)
    before = {key: (run.data.metrics, run.info.end_time) for key, run in all_runs(tracker).items()}
    settle(tracker, study)
    after = {key: (run.data.metrics, run.info.end_time) for key, run in all_runs(tracker).items()}
    assert before == after
    ids = [run.info.run_id for run in all_runs(tracker).values()]
    crps = [len(tracker.client.get_metric_history(run_id, "crps")) for run_id in ids]
    assert sum(crps) == 1
