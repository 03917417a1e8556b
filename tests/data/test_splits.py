import pytest

from pipeline import FactorPair, UserError
from pipeline.config import SplitSettings
from pipeline.data.splits import Segment, longest_context, split_time


@pytest.mark.parametrize("frames", [8, 10, 64, 1001])
@pytest.mark.parametrize("shares", [(0.6, 0.2, 0.2), (0.34, 0.33, 0.33), (0.8, 0.1, 0.1)])
def test_splits_tile_the_time_axis_in_order(frames, shares):
    train, validation, test = shares
    segments = split_time(frames, SplitSettings(train=train, validation=validation, test=test))
    assert list(segments) == ["train", "validation", "test"]
    covered = [t for segment in segments.values() for t in range(segment.start, segment.stop)]
    assert covered == list(range(frames))
    for segment, share in zip(segments.values(), shares, strict=True):
        assert abs(len(segment) - share * frames) <= 1


def test_an_empty_split(one_line):
    with pytest.raises(UserError) as raised:
        split_time(8, SplitSettings(train=0.98, validation=0.01, test=0.01))
    one_line(raised, "8 frames", "validation", "data.split")


def segments_of(*lengths):
    names = ("train", "validation", "test")
    return {name: Segment(0, length) for name, length in zip(names, lengths, strict=True)}


@pytest.mark.parametrize("tau", [1, 2, 3, 6])
@pytest.mark.parametrize("shortest", range(6, 40))
def test_longest_context(tau, shortest):
    L = longest_context(segments_of(100, shortest, shortest + 3), FactorPair(2, tau), wanted=10_000)
    past = (L - 1) * tau
    assert past <= shortest / 2  # at most half of the split is only looked back at
    assert past + tau > shortest / 2  # and no L above it would do
    assert past + tau <= shortest  # at least one target fits


def test_longest_context_gives_no_more_than_wanted():
    assert longest_context(segments_of(100, 100, 100), FactorPair(2, 3), wanted=4) == 4


def test_a_split_shorter_than_a_coarse_frame(one_line):
    with pytest.raises(UserError) as raised:
        longest_context(segments_of(30, 5, 10), FactorPair(10, 6), wanted=3)
    one_line(raised, "10x6", "5 fine frames")
