"""What the benchmarks claim, at their smallest; their timings are not asserted."""

import re
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).resolve().parents[2] / "jobs" / "benchmark.py"


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_sharing_stages_saves_two_fifths_and_finds_the_same_best_trial(sweep_in):
    sweep = sweep_in("benchmark")
    argv = ["stage-cache", "--preset", "tiny", "--pairs", "4x2", "--trials", "16", "--output", "out"]
    said = sweep.said_by(sweep.start_command(sys.executable, JOB, *argv))
    (line,) = (line for line in said.splitlines() if line.startswith("stage-cache:"))
    assert float(re.search(r"without: ([0-9.]+) of them", line)[1]) <= 0.6
    assert "the same best trial" in line


@pytest.mark.parametrize("measure", ["stage-cache", "trial-overhead"])
def test_it_measures_one_pair(measure, sweep_in):
    sweep = sweep_in("mistake")
    sweep.output.parent.mkdir(exist_ok=True)
    process = sweep.start_command(sys.executable, JOB, measure, "--preset", "tiny", "--pairs", "4x2,2x2")
    assert process.wait(timeout=60) == 2
    assert (
        process.log.read_text().splitlines()[-1].startswith("error: tuning.pairs: give one pair to measure")
    )
