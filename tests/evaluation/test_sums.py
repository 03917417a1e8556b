"""Sums per block: streamed, merged, saved, and what masks and mistakes do to them."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import UserError
from pipeline.config import EvaluationSettings
from pipeline.evaluation.measures.pixel import Pixel
from pipeline.evaluation.metrics import default_statistics, metrics_for
from pipeline.evaluation.parts import Part, merged
from pipeline.evaluation.sums import BlockSums, Scored, total
from pipeline.factors import FactorPair

SETTINGS = EvaluationSettings(thresholds=(0.1, 5.0), scales=(1, 5), return_windows=(2,))
PAIR = FactorPair(4, 3)


def part(scored, where):
    names = ("members", "truth", "mask", "coarse", "coarse_mask")
    return dataclasses.replace(scored, **{name: getattr(scored, name)[where] for name in names})


def summed(scored, block, parts, blocks=3, statistics=None):
    sums = BlockSums(statistics or default_statistics(SETTINGS, scored.pair), blocks)
    for indices in parts:
        sums.add(part(scored, indices), block[indices])
    return sums


def together(shards):
    rows = torch.arange(3)
    sums, _ = merged((Part(rows, {"ensemble": shard}, None) for shard in shards), 3)
    return sums["ensemble"]


def same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, values in one.items():
        torch.testing.assert_close(
            values, other[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


@pytest.fixture
def computed():
    def computed(sums, ensemble=True):
        ready = (metric for metric in metrics_for(SETTINGS) if metric.applies(sums, ensemble=ensemble))
        return {metric.name: (metric, metric.compute(sums)) for metric in ready}

    return computed


@given(order=st.permutations(range(5)), cut=st.integers(0, 5), second=st.integers(0, 5))
@settings(max_examples=8, deadline=None)
def test_any_order_chunks_and_merge_give_the_sums_of_one_pass(rain_once, order, cut, second):
    block = torch.tensor([0, 2, 2, 0, 2])  # no window in block 1
    whole = summed(rain_once, block, [list(range(5))])
    cuts = sorted([0, cut, second, 5])
    shards = [summed(rain_once, block, [list(order[a:b])] if b > a else []) for a, b in pairwise(cuts)]
    sums = together(reversed(shards))
    same(sums, whole.sums, rtol=1e-12, atol=1e-12)
    assert sums["windows"].tolist() == [2, 0, 3]
    assert all(values.dtype == torch.float64 for values in whole.sums.values())


@pytest.fixture(scope="module")
def rain_once():
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(5, 4, 3, 8, 8, generator=generator).exp().sub(0.7).clamp(min=0)
    mask = torch.rand(5, 3, 8, 8, generator=generator) < 0.8
    coarse = torch.rand(5, 2, 2, generator=generator)
    return Scored(fields[:, 1:], fields[:, 0], mask, coarse, coarse > 0.1, PAIR)


def test_bytes_bring_everything_back(scored_rain):
    scored, block = scored_rain(cells=2), torch.tensor([0, 1, 1, 2, 0])
    whole = summed(scored, block, [[0, 1, 2, 3, 4]])
    read = [BlockSums.from_bytes(summed(scored, block, [some]).to_bytes()) for some in ([0, 1], [2, 3], [4])]
    same(together(read), whole.sums, rtol=1e-12, atol=1e-12)
    data = whole.to_bytes()
    assert data == BlockSums.from_bytes(data).to_bytes()
    for damaged in (data[:-3], b"", b"nothing of the kind", data[:100]):
        with pytest.raises(UserError, match="damaged"):
            BlockSums.from_bytes(damaged)
    others = BlockSums([Pixel("other")], 3)
    with pytest.raises(ValueError, match="cannot put sums of"):
        together([BlockSums.from_bytes(data), others])


def test_memory_does_not_grow_with_the_windows(scored_rain):
    scored, block = scored_rain(cells=2, windows=4), torch.tensor([0, 1, 2, 2])
    few = summed(scored, block, [[0, 1, 2, 3]])
    many = summed(scored, block, [[0, 1, 2, 3]] * 5)
    assert len(few.to_bytes()) == len(many.to_bytes())
    assert {name: values.shape for name, values in few.sums.items()} == {
        name: values.shape for name, values in many.sums.items()
    }
    same(many.sums, {name: 5 * values for name, values in few.sums.items()}, rtol=1e-12, atol=1e-12)


def test_whatever_lies_under_the_masks_changes_nothing(scored_rain):
    scored = scored_rain(missing=0.5, cells=3)
    assert not scored.coarse_mask.all()
    block, everything = torch.zeros(5, dtype=torch.long), [[0, 1, 2, 3, 4]]
    clean = summed(scored, block, everything)
    dirty = dataclasses.replace(
        scored,
        members=torch.where(scored.mask.unsqueeze(1), scored.members, torch.inf),
        truth=torch.where(scored.mask, scored.truth, 7.0),
        coarse=torch.where(scored.coarse_mask, scored.coarse, torch.nan),
    )
    same(summed(dirty, block, everything).sums, clean.sums, rtol=0, atol=0)
    assert all(values.isfinite().all() for values in clean.sums.values())


@pytest.mark.parametrize("pair", [FactorPair(4, 1), FactorPair(1, 3), FactorPair(2, 2)])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("wet", [True, False])
def test_every_metric_has_a_value_of_the_shape_that_it_names(scored_rain, computed, pair, members, wet):
    scored = scored_rain(pair, members=members, cells=8 // pair.space)
    if not wet:
        scored = dataclasses.replace(
            scored, members=scored.members * 0, truth=scored.truth * 0, coarse=scored.coarse * 0
        )
    sums = total(summed(scored, torch.zeros(5, dtype=torch.long), [[0, 1, 2, 3, 4]], blocks=1).sums)
    found = computed(sums, ensemble=members > 1)
    assert ("rank_histogram" in found) == (members > 1)
    assert ("change_error" in found) == (pair.time > 1)
    for name, (metric, value) in found.items():
        assert value.ndim == len(metric.dimensions), name
        for dimension, size in zip(metric.dimensions, value.shape, strict=True):
            assert len(metric.coordinate(dimension, size)) == size, name
        if name not in ("reliability_forecast", "reliability_observed"):  # of empty bins
            assert value.isfinite().all(), name
        if not wet and metric.perfect is not None:
            assert (value == metric.perfect).all(), name


@pytest.mark.parametrize("pair", [FactorPair(4, 1), FactorPair(2, 3)])
def test_an_ensemble_that_is_the_truth_has_every_perfect_value(scored_rain, computed, pair):
    scored = scored_rain(pair)
    # Of 4 copies the mean is exact, and so are spread and error 0.
    scored = dataclasses.replace(scored, members=scored.truth.unsqueeze(1).repeat(1, 4, 1, 1, 1))
    sums = total(summed(scored, torch.zeros(5, dtype=torch.long), [[0, 1, 2, 3, 4]], blocks=1).sums)
    for name, (metric, value) in computed(sums).items():
        if metric.perfect is not None:
            assert (value - metric.perfect).abs().max() < 1e-6, name


def test_leading_dimensions_go_through_every_metric(scored_rain, computed):
    rows = summed(scored_rain(cells=2), torch.tensor([0, 1, 0, 1, 1]), [[0, 1, 2, 3, 4]], blocks=2).sums
    stacked = computed({name: torch.stack([values, 2 * values]) for name, values in rows.items()})
    for index in (0, 1):
        alone = computed({name: values[index] for name, values in rows.items()})
        for name, (_, value) in alone.items():
            for copy in (0, 1):  # twice the sums are the same means
                torch.testing.assert_close(stacked[name][1][copy, index], value, equal_nan=True, msg=name)


def test_a_bad_value_at_a_valid_pixel_is_not_hidden(scored_rain, computed):
    scored, block = scored_rain(cells=2), torch.tensor([0, 1, 1, 1, 1])
    scored.members[0, 0][scored.mask[0]] = torch.nan
    sums = summed(scored, block, [[0, 1, 2, 3, 4]], blocks=2).sums
    assert all(values[0].isnan().all() for name, values in sums.items() if name != "windows")
    assert all(values[1].isfinite().all() for values in sums.values())
    assert all(value.isnan().all() for name, (_, value) in computed(total(sums)).items())


def test_thresholds_are_in_the_units_of_the_field(scored_rain, computed):
    scored = scored_rain(cells=3, missing=0.1)
    found = []
    for factor, units in ((1, "mm/h"), (1 / 3600, "kg m-2 s-1")):
        scaled = dataclasses.replace(
            scored,
            members=scored.members * factor,
            truth=scored.truth * factor,
            coarse=scored.coarse * factor,
        )
        statistics = default_statistics(SETTINGS, PAIR, units)
        sums = summed(scaled, torch.zeros(5, dtype=torch.long), [[0, 1, 2, 3, 4]], 1, statistics).sums
        metrics = {metric.name: metric for metric in metrics_for(SETTINGS, units)}
        names = ("brier", "fss", "wet_fraction", "ssim", "quantile_error")
        found.append({name: metrics[name].compute(total(sums)) for name in names})
    found[1]["quantile_error"] *= 3600
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("units", ["K", "mm"])
def test_thresholds_in_mm_per_hour_are_refused_for_other_fields(units):
    with pytest.raises(UserError, match=f"the field is in {units}.*threshold_units=field"):
        default_statistics(SETTINGS, PAIR, units)
    own = SETTINGS.model_copy(update={"threshold_units": "field"})
    assert len(default_statistics(own, PAIR, units)) > 10


def test_what_does_not_belong_together_is_refused(scored_rain):
    scored, block = scored_rain(cells=2), torch.tensor([0, 1, 2, 2, 2])
    sums = summed(scored, block, [[0, 1]], statistics=[Pixel()])
    with pytest.raises(ValueError, match="same name"):
        BlockSums([Pixel(), Pixel()], 3)
    with pytest.raises(ValueError, match="blocks"):
        sums.add(scored, block + 1)
    with pytest.raises(ValueError, match="blocks"):
        sums.add(scored, block[:3])
    with pytest.raises(ValueError, match="pair 2x3"):
        dataclasses.replace(scored, pair=FactorPair(2, 3))
    with pytest.raises(ValueError, match="bool"):
        dataclasses.replace(scored, mask=scored.mask.float())
    ensemble = summed(scored, block, [[0]])
    with pytest.raises(ValueError, match="changed its shape"):
        ensemble.add(dataclasses.replace(scored, members=scored.members[:, :3]), block)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"thresholds": "5,1"}, "increase"),
        ({"scales": (1, 4)}, "odd"),
        ({"quantiles": (0.5, 1.0)}, "less than 1"),
        ({"return_windows": ()}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**setting)
    assert EvaluationSettings(thresholds="0.5, 2").thresholds == (0.5, 2.0)


def test_every_metric_says_what_it_is():
    metrics = metrics_for(SETTINGS)
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert metric.formula, metric.name
        assert "doi:10." in metric.source, metric.name
        assert (metric.better == "none") <= (metric.perfect is None), metric.name
        one = metric.better in ("one", "higher")
        assert metric.perfect is None or metric.perfect == (1.0 if one else 0.0), metric.name
        if metric.perfect is None:
            assert math.isnan(metric.distance(torch.tensor(1.0)).item())
