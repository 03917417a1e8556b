"""Trainings on a live local Ray cluster: any number of workers, some killed, checkpoints damaged."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("trainings.py")
STEPS = [("mean", step) for step in range(1, 7)] + [("residual", step) for step in range(1, 10)]
EVERY = 3  # steps between checkpoints
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def play(output, *scenarios, seconds=590):
    """Run scenarios one after another on one cluster of their own."""
    dropped = ("RAY_", "MLFLOW_", "FINESCALE_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie in it
    try:
        done = subprocess.run(
            [sys.executable, SCRIPT, output, *scenarios], capture_output=True, text=True, timeout=seconds,
            env=kept | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": folder},
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    output = tmp_path_factory.mktemp("trainings") / "out"
    return play(output, "in_this_process", "two_workers", "killed")


@pytest.fixture(scope="module")
def played_on(tmp_path_factory):
    output = tmp_path_factory.mktemp("more") / "out"
    return play(
        output,
        "in_this_process",
        "one_worker",
        "two_workers",
        "four_workers",
        "resized",
        "given_up",
        "refused",
        "damaged",
        seconds=1190,
    )


def told(training, kind):
    return [message[1:] for message in training["told"] if message[0] == kind]


def steps(training):
    return [(stage, step) for stage, step, *_ in told(training, "step")]


def curve(*trainings):
    """Loss, gradient norm and validation loss by step; of a step that was repeated, the last."""
    every = (message for training in trainings for message in told(training, "step"))
    return {(stage, step): values for stage, step, *values in every}


def check_same_curve(got, wanted):
    assert sorted(got) == sorted(wanted) == STEPS
    for step, values in wanted.items():
        assert [value is None for value in got[step]] == [value is None for value in values], step
        numbers = [[value for value in one if value is not None] for one in (got[step], values)]
        assert numbers[0] == pytest.approx(numbers[1], rel=2e-5), step


def check_same_training(got, wanted):
    assert got["error"] is None
    check_same_curve(curve(got), curve(wanted))
    check_same_crps(got, wanted)


def check_same_crps(got, wanted):
    crps = [training["given"]["metrics"]["crps"] for training in (got, wanted)]
    assert crps[0] == pytest.approx(crps[1], rel=1e-5)


def check_same_ensemble(got, wanted):
    """Of one model and seed, every score of every window: members that differ would change them all."""
    windows, scores = got["given"]["ensemble"]
    wanted_windows, wanted_scores = wanted["given"]["ensemble"]
    assert windows == pytest.approx(wanted_windows, rel=1e-6)
    for name in set(scores) - {"bias"} - {name for name in scores if name.startswith("conservation")}:
        assert scores[name] == pytest.approx(wanted_scores[name], rel=1e-5), name


def test_two_workers_train_what_one_process_does(played):
    check_same_training(played["two_workers"], played["in_this_process"])
    assert told(played["two_workers"], "started") == [[2]]
    assert steps(played["two_workers"]) == STEPS  # each reported once, though there are two


def test_two_workers_draw_the_ensemble_of_one_process(played):
    check_same_ensemble(played["two_workers"], played["in_this_process"])


def test_a_killed_worker_costs_no_more_than_an_interval(played):
    killed, calm = played["killed"], played["two_workers"]
    assert killed["error"] is None
    assert told(killed, "started") == [[2], [2]]
    ((ranks, reason),) = told(killed, "lost")
    assert 1 in ranks
    assert "died" in reason
    taken = steps(killed)
    assert sorted(set(taken)) == STEPS
    again = [step for step in STEPS if taken.count(step) > 1]
    assert again == [("residual", 7), ("residual", 8)]
    assert len(again) <= EVERY
    assert told(killed, "begun")[2:] == [["mean", 6], ["residual", 6]]
    # To the bit: what was repeated gave the same losses, too.
    assert killed["weights"] == calm["weights"] is not None
    wanted = curve(calm)
    assert all(values == wanted[stage, step] for stage, step, *values in told(killed, "step"))


def test_everything_is_free_afterwards(played):
    free, everything = played["resources"]
    assert free == everything
    assert everything["CPU"] == 4


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestMore:
    @pytest.mark.parametrize("count", ["one_worker", "four_workers"])
    def test_any_number_of_workers_trains_the_same(self, count, played_on):
        check_same_training(played_on[count], played_on["in_this_process"])
        check_same_ensemble(played_on[count], played_on["in_this_process"])

    def test_a_single_worker_does_the_very_same(self, played_on):
        assert played_on["one_worker"]["weights"] == played_on["in_this_process"]["weights"] is not None

    def test_two_workers_then_one_then_four(self, played_on):
        two, one, four = attempts = played_on["resized"]
        assert [attempt["error"] and attempt["error"][0] for attempt in attempts] == [
            "GaveUpError",
            "GaveUpError",
            None,
        ]
        assert [told(attempt, "started") for attempt in attempts] == [[[2]], [[1]], [[4]]]
        assert told(one, "begun") == [["mean", 3], ["residual", 0]]
        assert told(four, "begun") == [["mean", 6], ["residual", 3]]
        assert steps(two) == STEPS[:5]
        assert steps(one) == STEPS[3:11]
        assert steps(four) == STEPS[9:]
        check_same_curve(curve(*attempts), curve(played_on["in_this_process"]))
        check_same_crps(four, played_on["in_this_process"])

    def test_a_mistake_of_the_user_is_said_once_and_not_tried_again(self, played_on):
        refused = played_on["refused"]
        assert refused["error"] == ["UserError", "worker: a mistake of the user's"]
        assert told(refused, "started") == [[2]]
        assert told(refused, "lost") == []

    def test_gives_up_after_so_many_failures(self, played_on):
        given_up = played_on["given_up"]
        kind, message = given_up["error"]
        assert kind == "GaveUpError"
        assert "\n" not in message
        assert "the same command carries on" in message
        assert told(given_up, "started") == [[2], [2]]  # max_failures = 1
        assert steps(given_up) == [*STEPS[:14], ("residual", 7), ("residual", 8)]

    def test_the_newest_checkpoint_is_damaged(self, played_on):
        damaged = played_on["damaged"]
        assert damaged["checkpoints"] == ["step-00000003", "step-00000006"]
        newest = damaged["newest"]
        assert newest["error"] is None
        assert told(newest, "started") == [[2]]
        ((text,),) = told(newest, "warned")
        assert "step-00000006 is DAMAGED" in text
        assert told(newest, "begun") == [["mean", 6], ["residual", 3]]
        assert steps(newest) == STEPS[9:]
        assert newest["weights"] == played_on["two_workers"]["weights"] is not None

    def test_all_checkpoints_are_damaged(self, played_on):
        every = played_on["damaged"]["every"]
        kind, message = every["error"]
        assert kind == "UserError"
        assert "none is intact" in message
        assert told(every, "started") == [[2]]
        assert steps(every) == []
        assert all("DAMAGED" in text for (text,) in told(every, "warned"))

    def test_everything_is_free_afterwards(self, played_on):
        free, everything = played_on["resources"]
        assert free == everything
