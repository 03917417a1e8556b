import itertools

import pytest

from pipeline import Conservation, FactorPair, ScaleParameters, Scope, paper_prior
from pipeline.prior import BETA_RANGE

SPACES = (1, 2, 3, 4, 5, 8, 10, 16, 20, 25, 40)
TIMES = (1, 2, 3, 4, 6, 8, 12, 24)
GRID = [FactorPair(s, t) for s, t in itertools.product(SPACES, TIMES) if (s, t) != (1, 1)]


@pytest.mark.parametrize(
    ("pair", "context", "beta", "power", "threshold"),
    [
        ("10x1", 10, 0.010, 0.5, 0.01),
        ("1x3", 4, 0.015, 0.5, 0.01),
        ("10x3", 5, 0.020, 1.0, 0.02),
        ("25x6", 3, 0.035, 1.0, 0.04),
    ],
)
def test_published_settings_come_back_exactly(pair, context, beta, power, threshold):
    assert paper_prior(FactorPair.parse(pair)) == ScaleParameters(
        beta=beta,
        context=context,
        conservation=Conservation(power=power, threshold=threshold, scope=Scope.TILE),
    )


def test_beta_grows_with_both_factors():
    for finer, coarser in itertools.product(GRID, GRID):
        if finer != coarser and finer.space >= coarser.space and finer.time >= coarser.time:
            assert paper_prior(finer).beta > paper_prior(coarser).beta, (coarser, finer)


@pytest.mark.parametrize("pair", GRID, ids=str)
def test_horizon_stays_in_the_published_range(pair):
    horizon = paper_prior(pair).context * pair.time
    # L is whole, so L * tau may miss the range by half a coarse frame
    assert 10 - pair.time / 2 <= horizon <= 18 + pair.time / 2


def test_taper_follows_the_underdetermination():
    by_pixels = sorted(GRID, key=lambda pair: pair.pixels_per_cell)
    conservations = [paper_prior(pair).conservation for pair in by_pixels]
    powers, thresholds = [f.power for f in conservations], [f.threshold for f in conservations]
    assert powers == sorted(powers)
    assert thresholds == sorted(thresholds)
    assert (powers[0], powers[-1]) == (0.5, 1.0)
    assert (thresholds[0], thresholds[-1]) == (0.01, 0.04)
    assert 0.5 < paper_prior(FactorPair(4, 12)).conservation.power < 1  # between 100 and 300: in between


@pytest.mark.parametrize("pair", [FactorPair(1, 2), FactorPair(2, 1), FactorPair(10**6, 10**4)], ids=str)
def test_beta_stays_within_its_range(pair):
    assert BETA_RANGE[0] <= paper_prior(pair).beta <= BETA_RANGE[1]
