from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import ScoringSettings
from pipeline.evaluation.blocks import Blocks

SCORING = ScoringSettings(block_hours=12, block_patches=2)


def blocks(rule, *, days, hours=6, patch=24):
    """Blocks of one window every so many hours, at two places far apart."""
    times = np.datetime64("2020-02-27T00:00", "ns") + np.arange(days * 24) * np.timedelta64(1, "h")
    places = np.array([[t, 0, x] for t in range(0, days * 24, hours) for x in (0, 480)])
    return Blocks.of(SimpleNamespace(places=places, patch=patch), times, SCORING, rule)


@pytest.mark.parametrize(("days", "rule"), [(1, "box"), (5, "box"), (6, "day"), (30, "day")])
def test_long_splits_are_cut_by_day_and_short_ones_into_boxes(days, rule):
    found = blocks("auto", days=days)
    assert found.rule == rule
    assert found.rows.tolist() == blocks(rule, days=days).rows.tolist()


def test_a_day_is_one_block_wherever_its_windows_are():
    found = blocks("day", days=3)
    assert found.rows.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert found.count == 3
    assert found.described(SCORING) == "calendar days"


def test_a_box_has_windows_near_each_other():
    found = blocks("box", days=1)
    assert found.rows.reshape(-1, 2).tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert found.count == 4
    assert found.described(SCORING) == "boxes of 12 h and 2 x 2 patches"


def test_a_box_is_as_long_whatever_the_cadence():
    scoring = ScoringSettings()
    assert [scoring.block_frames(60.0 * minutes) for minutes in (5, 15, 60, 180)] == [12, 4, 1, 1]
    for minutes in (5, 15):  # two hours of frames
        times = np.datetime64("2020-01-01", "ns") + np.arange(0, 120, minutes) * np.timedelta64(1, "m")
        places = np.array([[t, 0, 0] for t in range(len(times))])
        found = Blocks.of(SimpleNamespace(places=places, patch=24), times, scoring, "box")
        assert found.rows.tolist() == [0] * (60 // minutes) + [1] * (60 // minutes)


def test_few_days_far_apart_are_no_long_split():
    times = np.array(["2020-01-01T00", "2020-01-01T06", "2020-03-01T00", "2020-03-01T06"], "datetime64[ns]")
    places = np.array([[t, 0, 0] for t in range(4)])
    assert Blocks.of(SimpleNamespace(places=places, patch=24), times, SCORING, "auto").rule == "box"
