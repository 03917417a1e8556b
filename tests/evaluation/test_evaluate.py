import pytest
import torch

from pipeline.config import SamplingSettings
from pipeline.evaluation.baselines import bicubic, nearest
from pipeline.evaluation.evaluate import batches, evaluate

SAMPLING = SamplingSettings(steps=2, members=3)


@pytest.fixture(scope="module")
def score(trained_like, windows):
    model = trained_like()

    def score(batch=4, seed=0):
        return evaluate(model, windows.scored, SAMPLING, batch=batch, seed=seed, device=torch.device("cpu"))

    return score


def test_scores_do_not_depend_on_the_batch_size(score, windows):
    whole = score(batch=100).as_metrics()
    for size in (1, 4):
        assert len(windows.scored) % 4  # the last batch is smaller than the others
        assert score(batch=size).as_metrics() == pytest.approx(whole, rel=1e-4, abs=1e-6)
    assert score(seed=1).as_metrics()["crps"] != pytest.approx(whole["crps"], rel=1e-4)


def test_each_field_is_scored_under_its_own_name(score, windows, pair, trained_like):
    batch, found = windows.scored.batch(range(len(windows.scored))), score()
    fields = {
        "mean": trained_like().predict_mean(batch),
        "nearest": nearest(batch.coarse, pair, batch.coarse_mask),
        "bicubic": bicubic(batch.coarse, pair, batch.coarse_mask),
    }
    for name, field in fields.items():
        error = (field - batch.fine)[batch.mask].double()
        assert getattr(found, name).mae == pytest.approx(float(error.abs().mean()), rel=1e-5)
        assert found.as_metrics()[f"{name}_rmse"] == pytest.approx(
            float(error.square().mean().sqrt()), rel=1e-5
        )
    members = trained_like().sample(batch, SAMPLING, seed=0)
    error = (members.mean(dim=1) - batch.fine)[batch.mask].double()
    assert found.ensemble.rmse == pytest.approx(float(error.square().mean().sqrt()), rel=1e-4)
    assert found.crps_skill == pytest.approx(1 - found.ensemble.crps / found.bicubic.mae)


def test_statistics_are_those_of_the_ensemble_in_the_order_of_the_windows(score, windows, trained_like):
    found = score(batch=4)
    weight = [int(windows.scored.batch([i]).mask.sum()) for i in range(len(windows.scored))]
    assert found.statistics.weight.tolist() == weight
    assert found.statistics.members == SAMPLING.members
    assert found.statistics.mean("crps") == found.ensemble.crps
    batch = windows.scored.batch([3])
    error = (trained_like().sample(batch, SAMPLING, seed=0).mean(dim=1) - batch.fine)[batch.mask].double()
    assert found.statistics.squared_error[3].item() == pytest.approx(float(error.square().sum()), rel=1e-4)


def test_batches_give_every_window_once_and_in_order(windows):
    positions = torch.cat([batch.position for batch in batches(windows.scored, 4)])
    assert positions.tolist() == windows.scored.places.tolist()
