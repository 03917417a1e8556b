"""The paired block bootstrap of any metric, against the one of the CRPS, SciPy's and data that are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from pipeline.config import EvaluationSettings
from pipeline.evaluation.bootstrap import crps_difference, expanded_tail
from pipeline.evaluation.intervals import draws, intervals, paired_intervals
from pipeline.evaluation.metrics import metrics_for
from pipeline.evaluation.statistics import Statistics

METRICS = {metric.name: metric for metric in metrics_for(EvaluationSettings())}
CRPS = METRICS["fair_crps"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sums(crps, weight=None):
    crps = torch.as_tensor(np.asarray(crps), dtype=torch.float64)
    weight = torch.ones_like(crps) if weight is None else torch.as_tensor(weight, dtype=torch.float64)
    return {"pixel.crps": crps, "pixel.weight": weight, "windows": torch.ones_like(crps)}


def test_the_interval_of_a_mean_is_scipys():
    crps = np.random.default_rng(0).gamma(2, size=40)
    value, low, high = intervals(sums(crps), CRPS, resamples=20_000, generator=generator(), level=0.9)
    tail = expanded_tail(0.05, 40)
    expected = scipy.stats.bootstrap(
        (crps,), np.mean, n_resamples=20_000, confidence_level=1 - 2 * tail, method="percentile", rng=1
    ).confidence_interval
    assert value.item() == pytest.approx(crps.mean())
    assert (low.item(), high.item()) == pytest.approx((expected.low, expected.high), rel=0.02)


def test_skill_is_that_of_the_pairs_that_training_compares():
    rng = np.random.default_rng(1)
    reference = rng.gamma(2, size=30)
    tuned = reference * rng.uniform(0.6, 0.9, size=30)
    zero, weight = torch.zeros(30, dtype=torch.float64), torch.ones(30, dtype=torch.float64)

    def statistics(crps):
        return Statistics(weight, zero, zero, zero, torch.from_numpy(crps), zero, members=4)

    expected = crps_difference(
        statistics(reference), statistics(tuned), torch.arange(30), resamples=500, generator=generator()
    )
    found = paired_intervals(
        sums(tuned), sums(reference), CRPS, kind="skill", resamples=500, generator=generator()
    )
    # reference / tuned - 1 there, 1 - tuned / reference here; the draws are the same.
    for ours, theirs in zip(found, (expected.value, expected.low, expected.high), strict=True):
        assert ours.item() == pytest.approx(1 - 1 / (1 + theirs), rel=1e-9)


def test_pairs_are_compared_on_the_same_draws():
    weather = np.random.default_rng(2).gamma(1, size=30)
    for kind, value in (("difference", -0.25), ("skill", None)):
        found = paired_intervals(
            sums(weather), sums(weather + 0.25), CRPS, kind=kind, resamples=300, generator=generator()
        )
        if value is not None:  # whatever the weather, one is better by as much
            assert [end.item() for end in found] == pytest.approx([value] * 3)
    same = paired_intervals(
        sums(weather), sums(weather), CRPS, kind="skill", resamples=300, generator=generator()
    )
    assert [end.item() for end in same] == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "skill"),
    [("bias", -1.0, 2.0, 0.5), ("frequency_bias", 1.1, 0.5, 0.8), ("fss", 0.9, 0.6, 0.75)],
)
def test_skill_refers_to_what_a_perfect_field_has(name, ours, theirs, skill):
    def rows(value):
        if name == "bias":
            return {"pixel.error": torch.full((6,), value), "pixel.weight": torch.ones(6)}
        if name == "fss":
            shape = {"neighbourhood.difference": 1 - value, "neighbourhood.reference": 1.0}
            return {key: torch.full((6, 1, 1), part) for key, part in shape.items()}
        return {
            "exceedance.forecast": torch.full((6, 1, 1), value),
            "exceedance.observed": torch.ones(6, 1, 1),
        }

    given = [
        {key: values.double() for key, values in rows(v).items()} | {"windows": torch.ones(6).double()}
        for v in (ours, theirs)
    ]
    found = paired_intervals(*given, METRICS[name], kind="skill", resamples=100, generator=generator())
    for end in found:
        assert end.flatten().tolist() == pytest.approx([skill], rel=1e-6)


def test_rows_without_windows_do_not_count_and_few_blocks_give_no_interval():
    crps = np.random.default_rng(3).gamma(2, size=8)
    rows = sums(crps)
    padded = {key: torch.cat([values, torch.zeros(5, dtype=torch.float64)]) for key, values in rows.items()}
    one = intervals(rows, CRPS, resamples=200, generator=generator())
    other = intervals(padded, CRPS, resamples=200, generator=generator())
    assert one == other
    assert one.low < one.value < one.high
    few = intervals(sums(crps[:4]), CRPS, resamples=200, generator=generator())
    assert few.value.item() == pytest.approx(crps[:4].mean())
    assert few.low.isnan()
    assert few.high.isnan()
    pair = paired_intervals(
        sums(crps[:4]), sums(crps[4:]), CRPS, kind="skill", resamples=200, generator=generator()
    )
    assert math.isnan(pair.low.item())


def test_fields_of_other_windows_are_not_compared():
    one, other = sums(np.ones(6)), sums(np.ones(6))
    other["windows"] = other["windows"] * 2
    with pytest.raises(ValueError, match="same windows"):
        paired_intervals(one, other, CRPS, kind="skill", resamples=100, generator=generator())


def test_draws_are_with_replacement_and_a_seeds():
    counts = draws(7, 1000, generator())
    assert (counts.sum(dim=1) == 7).all()
    assert counts.max() > 2
    torch.testing.assert_close(counts.mean(dim=0), torch.ones(7, dtype=torch.float64), rtol=0.1, atol=0)
    assert torch.equal(counts, draws(7, 1000, generator()))


def test_which_metrics_noise_can_only_add_to():
    assert {name for name, metric in METRICS.items() if metric.inflated} == {
        "rank_deviation",
        "brier_reliability",
        "brier_resolution",
        "log_spectral_distance",
        "temporal_log_spectral_distance",
    }


def test_the_interval_of_a_rank_deviation_holds_the_value_and_mostly_the_truth():
    torch.manual_seed(0)
    p = torch.linspace(-0.3, 0.3, 9, dtype=torch.float64).softmax(0)  # frequencies of ranks in all weather
    metric, weather = METRICS["rank_deviation"], torch.distributions.Dirichlet(20 * p)
    truth, plain = metric.compute({"ranks.counts": p}), replace(metric, inflated=False)
    inside = [0, 0]
    for seed in range(150):
        rows = {"ranks.counts": weather.sample((10,)), "windows": torch.ones(10, dtype=torch.float64)}
        for i, one in enumerate((plain, metric)):
            value, low, high = intervals(rows, one, resamples=200, generator=generator(seed))
            inside[i] += bool(low <= truth <= high)
            assert one is plain or 0 <= low <= value <= high
    percentile, reflected = inside  # of 90 %
    assert percentile < 0.6 * 150
    assert reflected > 0.8 * 150


def test_a_distance_that_is_endless_keeps_its_ends():
    power = torch.tensor([[1.0], [2.0], [3.0], [1.0], [2.0]], dtype=torch.float64)
    rows = {"spectra.truth": power, "spectra.field": 0 * power, "windows": torch.ones(5).double()}
    value, low, high = intervals(rows, METRICS["log_spectral_distance"], resamples=100, generator=generator())
    assert not low.isnan()
    assert low <= value <= high
