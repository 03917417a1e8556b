import math
from types import SimpleNamespace

import pytest

from pipeline.final.observer import Scoring, StageBegun, StageMemory, TrainingObserver
from pipeline.training.loop import StepReport
from pipeline.training.memory import MemoryUse
from pipeline.training.messages import GroupStarted, Waiting, Warned, WorkersLost

MIB = 2**20


class Record:
    """What a run is given, by name: (step, value) of metrics, the last content of texts."""

    def __init__(self):
        self.values, self.texts = {}, {}

    def metrics(self, run, values, step=0):
        for name, value in values.items():
            self.values.setdefault(name, []).append((step, value))

    def text(self, run, path, content):
        self.texts[path] = content


@pytest.fixture
def watched():
    """An observer of 12 + 12 steps with what it says, records and shows."""
    seen = SimpleNamespace(record=Record(), said=[], bars=[])

    def open_bar(steps):
        seen.bars.append([steps])
        return seen.bars[-1].append

    seen.tell = TrainingObserver(seen.record, "run", 24, open_bar, seen.said.append)
    return seen


def report(step, stage="mean", validation=None, steps=12, rate=2.0):
    return StepReport(stage, step, steps, 0.25, 1e-3, 0.5, validation_loss=validation, rate=rate)


def memory(sharded, peak):
    return MemoryUse(parameters=sharded * MIB, gradients=0, optimizer=0, average=0, peak=peak * MIB)


def test_a_report_is_said_recorded_and_moves_the_bar(watched):
    watched.tell(GroupStarted(2))
    watched.tell(StageBegun("mean", 0, 12))
    watched.tell(report(6, validation=0.75))
    watched.tell(report(12, rate=4.0))
    assert watched.said == [
        "2 workers started",
        "mean 6/12: loss 0.25, validation 0.75, 2 steps/s",
        "mean 12/12: loss 0.25, 4 steps/s",
    ]
    values = watched.record.values
    assert values["workers"] == [(0, 2)]
    assert values["mean_loss"] == [(6, 0.25), (12, 0.25)]
    assert values["mean_learning_rate"] == [(6, 1e-3), (12, 1e-3)]
    assert values["mean_gradient_norm"] == [(6, 0.5), (12, 0.5)]
    assert values["mean_steps_per_second"] == [(6, 2.0), (12, 4.0)]
    assert values["mean_validation_loss"][0] == (6, 0.75)
    assert all(math.isnan(value) for _, value in values["mean_validation_loss"][1:])
    assert watched.bars == [[24, 6, 6]]


def test_the_bar_holds_what_is_left_and_never_goes_back(watched):
    watched.tell(StageBegun("mean", 12, 12))
    watched.tell(StageBegun("residual", 6, 12))
    assert watched.said == ["mean: trained already", "residual: carrying on after step 6 of 12"]
    watched.tell(report(9, "residual"))
    watched.tell(WorkersLost((0, 1), "its process died"))
    watched.tell(GroupStarted(1))
    watched.tell(StageBegun("mean", 12, 12))
    watched.tell(StageBegun("residual", 6, 12))
    watched.tell(report(9, "residual"))
    watched.tell(report(12, "residual"))
    (bar,) = watched.bars
    assert bar[0] == 6  # of 24, 18 were done before
    assert sum(bar[1:]) == 6
    assert min(bar[1:]) > 0
    assert "workers 0, 1 LOST: its process died; starting again from the last checkpoint" in watched.said
    assert "1 worker started" in watched.said


def test_the_number_of_workers_stands_where_it_changed(watched):
    watched.tell(GroupStarted(2))
    watched.tell(StageBegun("mean", 0, 12))
    watched.tell(report(6))
    watched.tell(WorkersLost((1,), "its process died"))
    watched.tell(Waiting(1))
    watched.tell(GroupStarted(1))
    watched.tell(StageBegun("mean", 6, 12))
    assert watched.record.values["workers"] == [(0, 2), (6, 1)]
    assert "waiting for room for 1 worker on the cluster" in watched.said


def test_a_wholly_trained_model_shows_no_bar(watched):
    for stage in ("mean", "residual"):
        watched.tell(StageBegun(stage, 12, 12))
    watched.tell(Scoring())
    assert watched.bars == []
    assert watched.said[-1] == "scoring on the validation and test split"


def test_memory_of_the_rank_that_holds_most(watched):
    watched.tell(StageMemory("mean", [memory(3, 50), memory(2, 70)]))
    watched.tell(StageMemory("residual", [memory(5, 80)]))
    assert watched.record.values == {
        "mean_sharded_mib": [(0, 3.0)],
        "mean_peak_mib": [(0, 70.0)],
        "residual_sharded_mib": [(0, 5.0)],
        "residual_peak_mib": [(0, 80.0)],
    }
    lines = [watched.record.texts[f"memory/{stage}.txt"].rstrip() for stage in ("mean", "residual")]
    assert lines == watched.said
    assert lines[0].startswith("memory of stage mean, largest of 2 ranks: parameters 3.0 MiB")
    assert "peak 70.0 MiB" in lines[0]
    assert lines[1].startswith("memory of stage residual, one rank")


def test_warnings_are_passed_on(watched):
    watched.tell(Warned("checkpoint step-00000006 is DAMAGED"))
    assert watched.said == ["warning: checkpoint step-00000006 is DAMAGED"]
