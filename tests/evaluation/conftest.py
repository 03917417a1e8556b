import pytest
import torch

from pipeline.config import SamplingSettings
from pipeline.config_layers import load_config
from pipeline.data.coarsen import block_mean
from pipeline.evaluation.candidates import open_candidates, rivals
from pipeline.evaluation.pieces import collect, pieces_of, score_pieces
from pipeline.evaluation.sums import BlockSums, Scored, total
from pipeline.factors import FactorPair
from pipeline.model_file import describe_data, save_model

PAIR = FactorPair(4, 3)
WINDOWS = 6  # that models are scored on


@pytest.fixture
def scored_rain():
    """Make rain-like windows, half dry, with random missing pixels that hold NaN in truth and members."""

    def make(pair=PAIR, *, windows=5, members=6, cells=6, missing=0.2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        side = cells * pair.space
        shape = (windows, members + 1, pair.time, side, side)
        fields = (torch.randn(shape, generator=generator) * 1.5).exp().sub(1).clamp(min=0)
        mask = torch.rand(windows, pair.time, side, side, generator=generator) >= missing
        truth = torch.where(mask, fields[:, 0], torch.nan)
        coarse, coarse_mask = block_mean(truth, mask, pair)
        drawn = torch.where(mask.unsqueeze(1), fields[:, 1:], torch.nan)
        return Scored(drawn, truth, mask, coarse[:, 0], coarse_mask[:, 0], pair)

    return make


@pytest.fixture
def measured():
    """Sum one statistic over all windows of a batch and compute the metrics that can be had, by name."""

    def measured(scored, statistic, metrics):
        sums = BlockSums([statistic], 1)
        sums.add(scored, torch.zeros(len(scored.truth), dtype=torch.long))
        ready = [metric for metric in metrics if metric.applies(sums.sums, ensemble=True)]
        return {metric.name: metric.compute(total(sums.sums)) for metric in ready}

    return measured


@pytest.fixture(scope="module")
def models(trained_like, store, tmp_path_factory):
    """Save two models of one pair as a training does; returns what opens them with more settings."""
    config = load_config(
        [("preset", "tiny"), ("tuning.max_context", 3), ("scoring.windows", WINDOWS)], environment={}
    )
    folder, sampling = tmp_path_factory.mktemp("models"), SamplingSettings(steps=2, members=3)
    for name, crps, changes in (("one", 0.1, {}), ("other", 0.2, {"beta": 0.05, "context": 2})):
        model, data = trained_like(**changes), describe_data(store, config)
        save_model(str(folder / name), model, sampling=sampling, data=data, scores={"validation_crps": crps})
    quick = [("evaluation.scales", (1, 3)), ("scoring.resamples", 200)]
    blocks = [("scoring.block_hours", 1 / 3), ("scoring.block_patches", 1)]

    def models(*settings, names=("one", "other")):
        given = [*quick, *blocks, *settings]
        urls = [str(folder / name) for name in names]
        return open_candidates(urls, lambda known: load_config(given, defaults=known, environment={}))

    return models


@pytest.fixture
def score(models, store, tmp_path):
    """Score the models as a job does; the pieces are at `score.pieces`, what was said at `score.said`."""

    def score(*settings, names=("one", "other"), output="out"):
        device = torch.device("cpu")
        (found,) = rivals(models(*settings, names=names), store, "validation")
        score.pieces, score.said = pieces_of(found, str(tmp_path / output), device), []
        score_pieces(score.pieces, workers=None, device=device, say=score.said.append)
        (pair,) = collect(score.pieces)
        return pair

    return score
