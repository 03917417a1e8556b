"""Measures that look at how pixels lie together, against independent libraries and sums written out."""

import dataclasses

import numpy as np
import pytest
import scores.spatial
import skimage.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.conservation import conserve
from pipeline.data.coarsen import spread
from pipeline.evaluation.measures import conservation, neighbourhood, spectra, structure, temporal
from pipeline.evaluation.measures.neighbourhood import box_sum, running_sum
from pipeline.evaluation.sums import Scored
from pipeline.factors import Conservation, FactorPair, Scope

ORACLES = "pysteps needs a C compiler: pip install -e '.[oracles]'"

SCALES, THRESHOLDS = (1, 3, 9, 33), (0.1, 1.0, 5.0)
FSS = neighbourhood.Neighbourhood(THRESHOLDS, SCALES)


def fss(measured, scored):
    return measured(scored, FSS, neighbourhood.metrics(THRESHOLDS, SCALES))["fss"]


def test_fss_of_one_field_agrees_with_pysteps(scored_rain, measured):
    pysteps = pytest.importorskip("pysteps.verification.spatialscores", reason=ORACLES)
    scored = scored_rain(FactorPair(4, 1), windows=1, members=1, missing=0.2)
    found = fss(measured, scored)
    field, truth = scored.members[0, 0, 0].numpy(), scored.truth[0, 0].numpy()  # NaN: no event
    for i, threshold in enumerate(THRESHOLDS):
        for j, scale in enumerate(SCALES):
            expected = pysteps.fss(field, truth, threshold, scale)
            assert found[i, j].item() == pytest.approx(expected, rel=1e-5)


def test_fss_of_several_fields_agrees_with_the_scores_library(scored_rain, measured):
    # It pads by half a box on one side more than on the other; inside, and without padding, all agree: so
    # fields are dry around the middle.
    scored = scored_rain(FactorPair(4, 1), windows=4, members=1, missing=0)
    inside = torch.zeros_like(scored.mask)
    inside[..., 8:-8, 8:-8] = True
    dry = dataclasses.replace(scored, members=scored.members * inside, truth=scored.truth * inside)
    sums = FSS.sums(dry)
    found = 1 - sums["difference"] / sums["reference"]
    for window in range(4):
        for j, scale in ((1, 3), (2, 9)):
            expected = scores.spatial.fss_2d_single_field(
                dry.members[window, 0, 0].numpy(), dry.truth[window, 0].numpy(),
                event_threshold=1.0, window_size=(scale, scale), threshold_operator=np.greater_equal,
            )  # fmt: skip
            assert found[window, 1, j].item() == pytest.approx(expected, rel=1e-5)


def test_fss_of_an_ensemble_is_that_of_its_probabilities(scored_rain, measured):
    scored = scored_rain(windows=2, missing=0.3)
    found = fss(measured, scored)
    events = (scored.members >= 1.0).double().mean(dim=1), (scored.truth >= 1.0).double()
    for j, scale in enumerate(SCALES):
        kernel = torch.full((1, 1, scale, scale), 1 / scale**2, dtype=torch.float64)
        p, o = (
            torch.nn.functional.conv2d(e.flatten(0, 1).unsqueeze(1), kernel, padding=scale // 2)
            for e in events
        )
        expected = 1 - (p - o).square().sum() / (p.square() + o.square()).sum()
        assert found[1, j].item() == pytest.approx(expected.item(), rel=1e-5)


def test_fss_has_no_event_where_a_pixel_is_missing(scored_rain):
    scored = scored_rain()
    found = neighbourhood.Neighbourhood((0.0,), (1,)).sums(scored)  # all that is valid is an event
    assert found["difference"].abs().max() == 0
    torch.testing.assert_close(found["reference"].flatten(), 2 * scored.weight)


def test_fss_counts_exactly_however_large_the_frame_is():
    # 1600 x 1600 pixels with the event in all of 7 members: more than single precision counts one by one.
    truth = torch.ones(1, 1, 1600, 1600)
    mask = torch.ones_like(truth, dtype=torch.bool)
    members = truth.unsqueeze(1).expand(-1, 7, -1, -1, -1)
    scored = Scored(members, truth, mask, truth[:, 0, ::16, ::16], mask[:, 0, ::16, ::16], FactorPair(16, 1))
    found = neighbourhood.Neighbourhood((0.5,), (3,)).sums(scored)["reference"]
    along = torch.ones(1600, dtype=torch.float64)
    along[[0, -1]] = 2 / 3
    assert found.item() == pytest.approx(2 * along.square().sum().item() ** 2, rel=1e-12)


def test_fss_is_perfect_for_the_truth_and_for_no_event_and_zero_where_all_is_missed(scored_rain, measured):
    scored = scored_rain(members=1)
    same = dataclasses.replace(scored, members=scored.truth.unsqueeze(1))
    assert (fss(measured, same) == 1).all()
    dry = dataclasses.replace(same, members=same.members * 0, truth=same.truth * 0)
    assert (fss(measured, dry) == 1).all()
    missed = dataclasses.replace(same, members=same.members * 0)
    assert fss(measured, missed).abs().max() < 1e-12


@given(side=st.integers(0, 6), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_box_sums_are_convolutions(side, height, width, seed):
    side = 2 * side + 1
    values = torch.randint(0, 9, (2, height, width), generator=torch.Generator().manual_seed(seed)).double()
    kernel = torch.ones(1, 1, side, side, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(values.unsqueeze(1), kernel, padding=side // 2).squeeze(1)
    assert torch.equal(box_sum(running_sum(values), side), expected)


def test_spectra_are_those_of_pysteps(scored_rain, measured):
    spectral = pytest.importorskip("pysteps.utils.spectral", reason=ORACLES)
    scored = scored_rain(FactorPair(4, 2), windows=2, members=2, missing=0.2)
    found = measured(scored, spectra.Spectra(), spectra.metrics())
    side = scored.truth.shape[-1]
    hann = np.outer(*[torch.hann_window(side, dtype=torch.float64).numpy()] * 2)
    frequency = np.fft.fftfreq(side, 1 / side)
    ring = np.hypot(frequency[:, None], frequency).round()
    modes = np.array([(ring == k).sum() for k in range(1, side // 2 + 1)])

    def power(field):
        field = np.nan_to_num(field.double().numpy())
        tapered = (field - np.average(field, weights=hann)) * hann / np.sqrt((hann**2).mean())
        mean, _ = spectral.rapsd(tapered, fft_method=np.fft, return_freq=True)
        # Its rings hold means, with another norm; the first is wavenumber 0, the last one short of ours.
        return mean[1:] * modes[:-1] / side**2

    truth = np.mean([sum(power(frame) for frame in window) for window in scored.truth], axis=0)
    members = np.mean([sum(power(f) for f in member) for w in scored.members for member in w], axis=0)
    np.testing.assert_allclose(found["spectrum_truth"][:-1], truth, rtol=1e-5)
    np.testing.assert_allclose(found["spectrum"][:-1], members, rtol=1e-5)
    distance = np.sqrt(np.mean((10 * np.log10((found["spectrum_truth"] / found["spectrum"]).numpy())) ** 2))
    assert found["log_spectral_distance"].item() == pytest.approx(distance, rel=1e-5)


@pytest.mark.parametrize("side", [24, 3])
def test_ssim_of_whole_frames_is_that_of_skimage(scored_rain, measured, side):
    scored = scored_rain(FactorPair(1, 2), windows=2, members=3, missing=0, cells=side)
    found = measured(scored, structure.Structure(10.0), structure.metrics())["ssim"]
    expected = [
        skimage.metrics.structural_similarity(
            scored.truth[b, t].double().numpy(), scored.members[b, m, t].double().numpy(),
            data_range=10.0, win_size=min(7, side),
        )
        for b in range(2) for m in range(3) for t in range(2)
    ]  # fmt: skip
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_ssim_looks_at_the_valid_pixels_of_boxes_that_are_half_valid(scored_rain, measured):
    scored = scored_rain(FactorPair(4, 1), windows=1, members=1, cells=4, missing=0.45)
    x, y, mask = scored.members[0, 0, 0], scored.truth[0, 0], scored.mask[0, 0].numpy()
    expected = []
    for i in range(mask.shape[0] - 6):
        for j in range(mask.shape[1] - 6):
            box = np.s_[i : i + 7, j : j + 7]
            if mask[box].sum() < 24.5:
                continue
            a, b = (field[box].double().numpy()[mask[box]] for field in (x, y))
            (aa, ab), (_, bb) = np.cov(a, b)
            c1, c2 = 0.1**2, 0.3**2
            above = (2 * a.mean() * b.mean() + c1) * (2 * ab + c2)
            expected.append(above / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (aa + bb + c2)))
    assert 0 < len(expected) < 100
    found = measured(scored, structure.Structure(10.0), structure.metrics())["ssim"]
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_ssim_is_one_for_the_truth_and_for_dry_frames(scored_rain, measured):
    scored = scored_rain(members=1)
    for factor in (1, 0):
        truth = scored.truth * factor
        same = dataclasses.replace(scored, members=truth.unsqueeze(1), truth=truth)
        found = measured(same, structure.Structure(10.0), structure.metrics())["ssim"]
        assert found.item() == pytest.approx(1, abs=1e-9)


def test_changes_are_compared_where_both_frames_are_valid(scored_rain, measured):
    scored = scored_rain(missing=0.3)
    found = measured(scored, temporal.Change(), temporal.metrics())
    dx, dy = np.diff(scored.members.double().numpy(), axis=2), np.diff(scored.truth.double().numpy(), axis=1)
    error = np.nanmean(np.abs(dx - dy[:, None]))
    assert found["change_error"].item() == pytest.approx(error, rel=1e-5)
    there = ~np.isnan(dy)
    ratio = np.abs(dx).mean(axis=1)[there].sum() / np.abs(dy)[there].sum()
    assert found["change_ratio"].item() == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("frames", [2, 3, 6])
def test_power_in_time_sums_to_the_variance_and_coherence_to_a_correlation(scored_rain, measured, frames):
    scored = scored_rain(FactorPair(2, frames), members=2, missing=0.05)
    found = measured(scored, temporal.Temporal(), temporal.metrics())
    whole = scored.mask.all(dim=1)
    truth = scored.truth.double().movedim(1, -1)[whole].numpy()  # (pixels, frames)
    members = scored.members.double().movedim(2, -1).movedim(1, 0)[:, whole].numpy()
    variance = truth.var(axis=-1).sum() / len(scored.truth)
    assert found["temporal_spectrum_truth"].sum().item() == pytest.approx(variance, rel=1e-5)
    variance = members.var(axis=-1).sum(axis=-1).mean() / len(scored.truth)
    assert found["temporal_spectrum"].sum().item() == pytest.approx(variance, rel=1e-5)
    x, y = (np.fft.rfft(field, axis=-1)[..., 1:] for field in (members, truth))
    cross = np.abs((x * y.conj()).mean(axis=0).sum(axis=0)) ** 2
    power = (np.abs(x) ** 2).mean(axis=0).sum(axis=0) * (np.abs(y) ** 2).sum(axis=0)
    np.testing.assert_allclose(found["temporal_coherence"], cross / power, rtol=1e-5)


def test_in_time_the_truth_is_perfect_a_frozen_field_is_not_and_dry_ones_are(scored_rain, measured):
    scored = scored_rain(missing=0.05)
    frozen = scored.truth[:, :1].nan_to_num().expand_as(scored.truth)
    for field, coherent, ratio in ((scored.truth, 1, 1), (frozen, 0, 0)):
        one = dataclasses.replace(scored, members=field.unsqueeze(1))
        found = measured(one, temporal.Temporal(), temporal.metrics())
        assert found["temporal_coherence"].item() == pytest.approx(coherent)
        assert measured(one, temporal.Change(), temporal.metrics())["change_ratio"].item() == ratio
    assert found["temporal_log_spectral_distance"].item() == pytest.approx(60)  # the floor
    dry = dataclasses.replace(scored, members=scored.members * 0, truth=scored.truth * 0)
    found = measured(dry, temporal.Temporal(), temporal.metrics())
    assert found["temporal_coherence"] == 1
    assert found["temporal_log_spectral_distance"] == 0


def test_conservation_errors_of_fields_that_are_known(scored_rain, measured):
    scored = scored_rain(FactorPair(4, 2), missing=0)
    flat = spread(scored.coarse.unsqueeze(1), scored.pair)

    def errors(field):
        one = dataclasses.replace(scored, members=field.unsqueeze(1))
        found = measured(one, conservation.Conserved(), conservation.metrics())
        return found["conservation_tile"].item(), found["conservation_cell"].item()

    assert errors(flat) == pytest.approx((0, 0), abs=1e-6)
    assert errors(scored.truth) == pytest.approx((0, 0), abs=1e-6)
    assert errors(1.1 * flat) == pytest.approx((0.1, 0.1), abs=1e-6)
    moved = scored.coarse.flip(-1)
    apart = (moved - scored.coarse).abs().sum() / scored.coarse.sum()
    assert errors(flat.flip(-1)) == pytest.approx((0, apart.item()), abs=1e-6)


def test_conservation_is_judged_on_whole_cells_whatever_the_truth_lacks(scored_rain, measured):
    scored = scored_rain(FactorPair(4, 2), missing=0.3)
    drawn = scored.members.nan_to_num(nan=3.0)
    kept = [
        conserve(member, scored.coarse.unsqueeze(1), scored.pair, Conservation(scope=Scope.CELL), scale=1.0)
        for member in drawn.unbind(dim=1)
    ]

    def error(members):
        one = dataclasses.replace(scored, members=members)
        return measured(one, conservation.Conserved(), conservation.metrics())["conservation_cell"].item()

    assert error(torch.stack(kept, dim=1)) == pytest.approx(0, abs=1e-6)
    # Where nothing finite is under the mask, the valid pixels are all there is to judge.
    assert error(scored.truth.unsqueeze(1)) == pytest.approx(0, abs=1e-6)
    assert error(torch.stack(kept, dim=1).masked_fill(~scored.mask.unsqueeze(1), torch.nan)) > 0.01
