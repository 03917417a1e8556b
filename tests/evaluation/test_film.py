"""The film of an event."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.figures import Event, animation

WINDOWS, TAU, SIDE, CELLS = 2, 2, 24, 6
FRAMES = WINDOWS * TAU


def make_event(wet=1.0, holes=False):
    rng = np.random.default_rng(0)
    fine = wet * rng.gamma(0.6, 2.0, (5, FRAMES, SIDE, SIDE)).astype("f4")
    mask = np.ones((FRAMES, SIDE, SIDE), bool)
    coarse_mask = np.ones((WINDOWS, CELLS, CELLS), bool)
    if holes:
        mask[:, :8, :8] = coarse_mask[:, :2, :2] = False
        fine[0][~mask] = np.nan
    coarse = wet * rng.gamma(2.0, 1.0, (WINDOWS, CELLS, CELLS)).astype("f4")
    labels = [f"06:{5 * i:02d}" for i in range(FRAMES)]
    return Event(coarse, coarse_mask, fine[0], fine[1], fine[2:], mask, labels)


def first_window(frames=TAU, members=2, **how):
    event = make_event(**how)
    return dataclasses.replace(
        event, coarse=event.coarse[:1], coarse_mask=event.coarse_mask[:1], truth=event.truth[:frames],
        bicubic=event.bicubic[:frames], members=event.members[:members, :frames], mask=event.mask[:frames],
        labels=event.labels[:frames],
    )  # fmt: skip


def pictures(film):
    with Image.open(io.BytesIO(film)) as opened:
        assert opened.format == "GIF"
        assert opened.info["loop"] == 0
        frames = []
        for i in range(opened.n_frames):
            opened.seek(i)
            frames.append(np.asarray(opened.convert("RGB")).astype(int))
    return frames


def colours(frame, column):
    """Pixels of one of the five images of a frame."""
    height, width = frame.shape[:2]
    start = round(width * (0.12 + column * 1.85) / (0.12 + 5 * 1.85 + 0.95))
    size = round(width * 1.75 / (0.12 + 5 * 1.85 + 0.95))
    top = round(height * 0.68 / (0.68 + 1.75 + 0.12))
    return frame[top + 3 : top + size - 3, start + 3 : start + size - 3]


@pytest.fixture(scope="module")
def film():
    return animation(make_event(), "knmi, 4x2", "mm/h")


def test_every_frame_is_there_and_moves_while_the_coarse_one_stands(film):
    frames = pictures(film)
    assert len(frames) == FRAMES
    coarse, truth = ([colours(frame, column) for frame in frames] for column in (0, 1))
    assert (coarse[0] == coarse[1]).all()  # one coarse frame for two fine ones
    assert (coarse[1] != coarse[2]).any()
    for one, other in itertools.pairwise(truth):
        assert (one != other).any()
    assert all((frame < 128).mean() > 0.05 for frame in frames)


def test_the_same_event_gives_the_same_bytes(film):
    assert animation(make_event(), "knmi, 4x2", "mm/h") == film


def test_missing_is_grey_and_dry_is_white():
    event = make_event(holes=True)
    dry = dataclasses.replace(event, bicubic=np.zeros_like(event.bicubic))
    frame = pictures(animation(dry, "A", "mm/h"))[0]
    grey = np.array([184] * 3)  # 0.72
    for column in range(5):
        corner = colours(frame, column)[5:30, 5:30].reshape(-1, 3)
        assert abs(np.median(corner, axis=0) - grey).max() <= 6
    assert np.median(colours(frame, 2)[80:], axis=(0, 1)).min() == 255
    assert (frame[-1, -1] == 255).all()  # as is the page around it


def test_all_dry_one_frame_and_one_member():
    assert len(pictures(animation(first_window(wet=0.0), "A", "mm/h"))) == TAU
    assert len(pictures(animation(first_window(frames=1, members=1), "A", "mm/h"))) == 1


def test_it_is_made_smaller_until_it_fits_and_at_last_shorter(film):
    most = len(film) * 2 // 3
    small = animation(make_event(), "knmi, 4x2", "mm/h", most_bytes=most)
    assert len(small) <= most
    frames = pictures(small)
    assert len(frames) == FRAMES
    assert frames[0].shape[1] < pictures(film)[0].shape[1]
    assert len(pictures(animation(first_window(), "knmi, 4x2", "mm/h", most_bytes=1))) == 1


def test_what_does_not_fit_together_is_refused():
    event = make_event()
    with pytest.raises(ValueError, match="4 frames, 2 coarse ones and 3 labels"):
        dataclasses.replace(event, labels=event.labels[:3])
