"""Which windows are shown, and an event at one place."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.config import SamplingSettings
from pipeline.evaluation.showcase import (
    amounts_of,
    chosen_windows,
    event,
    event_windows,
    wettest_panel,
    window_panel,
)

SAMPLING = SamplingSettings(steps=2, members=3)
CPU = torch.device("cpu")


def test_the_choice():
    amounts, scores = [0, 5, 9, 2, 3, 0, 4], [0.0, 0.3, 0.8, 0.1, 0.9, 0.0, 0.2]
    assert chosen_windows(amounts, scores) == {"wettest": 2, "worst": 4, "median": 6}
    assert chosen_windows([1, 9], [0.1, 0.9]) == {"wettest": 1, "worst": 0}  # the wettest is the worst too
    assert chosen_windows([7], [0.1]) == {"wettest": 0}
    assert chosen_windows([], []) == {}
    assert chosen_windows([9, 1, 1, 1], [math.nan, 0.1, 0.3, 0.2]) == {"wettest": 1, "worst": 2, "median": 3}
    assert chosen_windows([0, 0, 0, 0], [0.0] * 4) == {"wettest": 0, "worst": 1, "median": 2}  # all dry
    with pytest.raises(ValueError, match="2 amounts and 1 scores"):
        chosen_windows([1, 2], [0.1])


@pytest.mark.parametrize("most", [1, 2, 3, 50])
def test_event_windows_follow_one_another_within_the_time_that_was_scored(windows, most):
    scored = windows.scored
    tau, times = scored.pair.time, scored.places[:, 0]
    for index in range(len(scored)):
        found = event_windows(scored, index, most=most)
        assert (found.places[:, 1:] == scored.places[index, 1:]).all()
        assert (np.diff(found.places[:, 0]) == tau).all()
        assert times[index] in found.places[:, 0]
        assert times.min() <= found.places[:, 0].min()
        assert found.places[:, 0].max() <= times.max()
        possible = (times[index] - times.min()) // tau + (times.max() - times[index]) // tau + 1
        assert len(found) == min(most, possible)


def test_an_event_has_the_fields_of_its_windows(windows, trained_like, store):
    chosen = event_windows(windows.scored, 0, most=3)
    model, tau = trained_like(), windows.scored.pair.time
    info = dataclasses.replace(store.info, start="2010-08-26T23:50:00", cadence_seconds=300.0)
    found = event(model, chosen, SAMPLING, seed=0, device=CPU, info=info)
    batch = chosen.batch(list(range(len(chosen))))
    assert (found.truth == batch.fine.flatten(0, 1).numpy()).all()
    assert (found.mask == batch.mask.flatten(0, 1).numpy()).all()
    assert (found.coarse == batch.last[:, 0].numpy()).all()
    members = model.sample(batch, SAMPLING.model_copy(update={"members": 2}), 0)  # (N, M, tau, H, W)
    torch.testing.assert_close(torch.from_numpy(found.members), members.transpose(0, 1).flatten(1, 2))
    first = int(chosen.places[0, 0])
    start = np.datetime64("2010-08-26T23:50") + np.timedelta64(5 * first, "m")
    assert found.labels[0] == f"{str(start).replace('T', ' ')} UTC"
    assert len(set(found.labels)) == tau * len(chosen)


def test_the_wettest_window_is_drawn_and_every_time_alike(windows, trained_like):
    scored, model = windows.scored, trained_like()
    amounts = amounts_of(scored)
    batch = scored.batch(list(range(len(scored))))
    assert amounts == pytest.approx(batch.last.sum(dim=(1, 2, 3)).tolist())
    wettest = int(np.argmax(amounts))
    png = wettest_panel(model, scored, SAMPLING, seed=0, device=CPU, name="rain", units="mm/h")
    title = f"rain, factor pair 4x2: {model.spec.parameters}"

    def again(index):
        return window_panel(
            model, scored, index, SAMPLING, seed=0, device=CPU, title=title, units="mm/h"
        )  # fmt: skip

    assert png.startswith(b"\x89PNG")
    assert png == again(wettest)
    assert png != again(amounts.index(min(amounts)))
