import json

import numpy as np
import pytest
import zarr

from pipeline.store import layout
from pipeline.store.checks.catalogue import CHECKS, run_checks
from pipeline.store.checks.findings import Limits, Verdict
from pipeline.store.checks.scan import EDGES, scan
from pipeline.store.field_store import FieldStore, write_store
from pipeline.store.manifest import MANIFEST

FRAMES, HEIGHT, WIDTH = 40, 20, 30


def times(cadence=300):
    return np.datetime64("2020-06-01T00:00:00") + np.arange(FRAMES) * np.timedelta64(cadence, "s")


@pytest.fixture
def field():
    """A shower that crosses the grid and grows, with a corner that the radar does not see."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = [
        (5 + 0.1 * t) * np.exp(-(((x - 5 - 0.5 * t) / 6) ** 2) - ((y - 10) / 4) ** 2) for t in range(FRAMES)
    ]
    values = np.stack(frames).astype("f4") * rng.uniform(0.9, 1.1, (FRAMES, HEIGHT, WIDTH)).astype("f4")
    values[values < 0.1] = 0
    values[:, :3, :4] = np.nan
    return values


@pytest.fixture
def covariates(field):
    orography = np.arange(HEIGHT * WIDTH, dtype="f4").reshape(HEIGHT, WIDTH)
    wind = np.linspace(-5, 5, field.size, dtype="f4").reshape(field.shape)
    return {"statics": {"orography": orography}, "dynamics": {"wind": wind}}


@pytest.fixture
def write(tmp_path, field):
    def write(values=field, **changes):
        arguments = {
            "times": times(), "y": 1000.0 * np.arange(HEIGHT)[::-1], "x": 1000.0 * np.arange(WIDTH),
            "name": "test", "crs": "+proj=stere",
        } | changes  # fmt: skip
        return write_store(str(tmp_path / "rain.zarr"), values, overwrite=True, **arguments).url

    return write


def check(url, **limits):
    store, limits = FieldStore.open(url), Limits(**limits)
    findings = run_checks(store, scan(store, limits.least, limits.most), limits)
    assert [finding.name for finding in findings] == list(CHECKS)
    assert all("\n" not in str(finding) for finding in findings)
    return {finding.name: finding for finding in findings}


def bad(findings, verdict=Verdict.PROBLEM):
    return {name for name, finding in findings.items() if finding.verdict is verdict}


def edit(url, name, place, value):
    zarr.open_group(url, mode="r+")[name][place] = value


def edit_manifest(url, **changes):
    path = f"{url}/{MANIFEST}"
    with open(path) as file:
        known = json.load(file)
    with open(path, "w") as file:
        json.dump(known | changes, file)


def test_a_clean_store_passes_every_check(write, covariates):
    found = check(write(**covariates))
    assert {name: finding.verdict for name, finding in found.items()} == dict.fromkeys(CHECKS, Verdict.OK)
    assert "40 frames as written" in found["digests"].found
    assert "2.0% of the values" in found["missing"].found
    assert all(finding.frames == () and finding.remedy == "" for finding in found.values())


def test_the_scan_counts_what_numpy_counts_on_the_whole_field(write, field, covariates):
    field[7, 5, 5] = np.inf
    field[8] = np.nan
    read = []
    store = FieldStore.open(write(field, **covariates))
    found = scan(store, 0, 6, read.append)
    assert sum(read) == FRAMES
    assert max(read) == store.chunks[0] < FRAMES
    finite = np.where(np.isfinite(field), field, np.nan)
    others = np.arange(FRAMES) != 8
    np.testing.assert_array_equal(found.field.valid, (~np.isnan(field)).sum(axis=(1, 2)))
    np.testing.assert_array_equal(found.field.infinite, np.isinf(field).sum(axis=(1, 2)))
    np.testing.assert_array_equal(found.field.outside, (finite > 6).sum(axis=(1, 2)))
    np.testing.assert_allclose(found.field.mean[others], np.nanmean(finite[others], axis=(1, 2), dtype="f8"))
    np.testing.assert_allclose(found.field.most[others], np.nanmax(finite[others], axis=(1, 2)))
    assert np.isnan([found.field.mean[8], found.field.most[8], found.field.least[8]]).all()
    np.testing.assert_array_equal(found.counted, (~np.isnan(field)).sum(axis=0))
    np.testing.assert_allclose(found.sums, np.nansum(finite, axis=0, dtype="f8"))
    np.testing.assert_array_equal(found.histogram, np.histogram(finite[finite > 0], EDGES)[0])
    assert found.dynamics["wind"].most.max() == 5


def zero(values):
    return np.where(np.isnan(values), values, 0)


FAULTS = {
    "range, negative": ("range", 12, lambda v: np.where(v == np.nanmax(v), -1, v)),
    "range, infinite": ("range", 12, lambda v: np.where(v == v[10, 10], np.inf, v)),
    "empty frames": ("empty frames", 12, lambda v: v * np.nan),
    "coverage": ("coverage", 12, lambda v: np.where(np.arange(HEIGHT)[:, None] % 3 == 0, v, np.nan)),
    "leaps, up": ("leaps", 12, lambda v: 20 * v),
    "leaps, zeros for missing": ("leaps", 12, zero),
    "constant": ("constant", 39, lambda v: zero(v) + 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_frame_is_found_there_and_nowhere_else(write, field, fault):
    name, frame, change = FAULTS[fault]
    field[frame] = change(field[frame])
    found = check(write(field))
    assert bad(found) == {name}
    assert found[name].frames == (frame,)
    assert str(times()[frame]) in found[name].found
    assert found[name].remedy


def test_values_beyond_the_plausible_range_are_a_problem(write, field):
    url = write(field)
    found = check(url, most=7.0)
    assert bad(found) == {"range"}
    assert f"{(field > 7).sum()} values outside 0 to 7" in found["range"].found
    assert check(url, most=float(np.nanmax(field)) + 0.01)["range"].verdict is Verdict.OK


def test_frames_that_stand_still_are_a_problem(write, field):
    field[24] = field[23]  # across two blocks
    field[30:33] = field[29]
    found = check(write(field))
    assert bad(found) == {"frozen"}
    assert found["frozen"].frames == (24, 30, 31, 32)
    assert "up to 3 in a row" in found["frozen"].found
    field[20:] = zero(field[20:])  # dry frames are alike, and that is right
    assert check(write(field))["frozen"].verdict is Verdict.OK


def test_a_maximum_that_leaps_is_a_note(write, field):
    field[12, 10, 20] = 90
    found = check(write(field))
    assert bad(found) == set()
    assert bad(found, Verdict.NOTE) == {"leaps"}
    assert found["leaps"].frames == (12,)


def test_at_a_slow_cadence_a_leap_can_be_real(write, field):
    field[12] *= 20
    found = check(write(field, times=times(3600)))
    assert bad(found) == set()
    assert bad(found, Verdict.NOTE) == {"leaps"}


def test_a_little_less_coverage_is_a_note(write, field):
    field[12:14, :, :6] = np.nan
    found = check(write(field))
    assert bad(found, Verdict.NOTE) == {"coverage"}
    assert found["coverage"].frames == (12, 13)
    assert bad(check(write(field), lost_problem=0.1)) == {"coverage"}


@pytest.mark.parametrize(
    ("name", "verdict", "change"),
    [
        ("missing", Verdict.PROBLEM, lambda v: v * np.nan),
        ("missing", Verdict.NOTE, lambda v: np.where(np.arange(v.size).reshape(v.shape) % 7 == 0, np.nan, v)),
        ("dry", Verdict.PROBLEM, zero),
        ("dry", Verdict.NOTE, lambda v: np.concatenate([v[:2], zero(v[2:])])),
    ],
)
def test_a_store_with_little_in_it(write, field, name, verdict, change):
    found = check(write(change(field)))
    assert found[name].verdict is verdict
    if verdict is Verdict.NOTE:
        assert bad(found) == set()


def test_the_longest_dry_spell_is_told(write, field):
    field[3], field[10:16] = zero(field[3]), zero(field[10:16])
    found = check(write(field))["dry"].found
    assert "17.5% of the frames" in found
    assert "30 min from 2020-06-01T00:50:00" in found


def test_gaps_are_a_note_and_their_frames_are_not_looked_at(write, field):
    field[5:8] = np.nan
    field[20] = np.nan
    url = write(field)
    assert bad(check(url)) == {"empty frames"}
    edit_manifest(url, gaps=[[5, 3], [20, 1]])
    found = check(url)
    assert bad(found) == set()
    assert bad(found, Verdict.NOTE) == {"gaps"}
    assert "2 gaps of 4 frames in all (10.0%), the longest 15 min" in found["gaps"].found
    assert "3 from 2020-06-01T00:25:00" in found["gaps"].found
    # A late file may be on its way into a gap: what lies there does not count.
    edit(url, "precipitation", 6, -1)
    assert bad(check(url)) == set()


@pytest.mark.parametrize("gaps", [[[5, 3], [7, 2]], [[9, 0]], [[38, 5]]])
def test_impossible_gaps_are_a_problem(write, gaps):
    url = write()
    edit_manifest(url, gaps=gaps)
    assert "gaps" in bad(check(url))


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (9, lambda t: t[8], "frame 9: 2020-06-01T00:40:00 does not come after"),
        (9, lambda t: t[9] + 60, "2 uneven steps, first at frame 9"),
        (slice(None), lambda t: t + 300, "says 2020-06-01T00:00:00"),
    ],
)
def test_times_that_do_not_rise_evenly_are_a_problem(write, place, value, says):
    url = write()
    edit(url, "time", place, value(times().astype("int64")))
    found = check(url)
    assert bad(found) == {"time"}
    assert says in found["time"].found


def test_a_cadence_that_does_not_divide_the_day_is_a_note(write):
    assert bad(check(write(times=times(420))), Verdict.NOTE) == {"cadence"}


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("y", np.r_[0:19, np.nan], "y has 1 value that are not finite"),
        ("x", np.r_[0:15, 14:-1:-1], "x is not monotonic"),
        ("x", np.arange(WIDTH) ** 2.0, "x is not evenly spaced: steps of 1 to 57"),
    ],
)
def test_crooked_coordinates_are_a_problem(write, name, values, says):
    found = check(write(**{name: values}))
    assert bad(found) == {"coordinates"}
    assert says in found["coordinates"].found


def test_no_projection_is_a_note(write):
    assert bad(check(write(crs=None)), Verdict.NOTE) == {"projection"}


def test_units_that_are_none_of_rain_are_a_note(write, field):
    field[3, 10, 10] = -20
    found = check(write(field, units="K"))
    assert bad(found, Verdict.NOTE) == {"units"}
    assert bad(found) == {"range"}  # the scan was told a range here; `check_store` tells none
    store = FieldStore.open(write(field, units="K"))
    assert bad({f.name: f for f in run_checks(store, scan(store))}) == set()


def test_one_changed_value_changes_a_digest(write, field):
    url = write()
    edit(url, "precipitation", (31, 10, 10), np.nextafter(field[31, 10, 10], np.float32(9)))
    found = check(url)
    assert bad(found) == {"digests"}
    assert found["digests"].frames == (31,)


def test_a_changed_covariate_is_found(write, covariates):
    url = write(**covariates)
    edit(url, "wind", (31, 10, 10), 0.5)
    assert check(url)["digests"].frames == (31,)
    url = write(**covariates)
    edit(url, "orography", (4, 4), 1.0)
    assert "static covariate changed" in check(url)["digests"].found


def test_wrong_statistics_are_found(write):
    url = write()
    edit(url, layout.STATISTICS, (17, 2), 1e6)
    found = check(url)
    assert bad(found) == {"digests"}
    assert found["digests"].frames == (17,)


def test_a_store_without_digests_is_checked_by_its_fingerprint(write):
    url = write()
    group = zarr.open_group(url, mode="r+")
    del group[layout.DIGESTS]
    with layout.quiet():
        zarr.consolidate_metadata(group.store)
    assert bad(check(url), Verdict.NOTE) == {"digests"}
    edit(url, "precipitation", (31, 10, 10), 3.0)
    assert bad(check(url)) == {"digests"}


@pytest.mark.parametrize(("array", "name"), [("precipitation", "reading"), ("wind", "dynamics")])
def test_bytes_that_cannot_be_decoded_are_found(write, covariates, tmp_path, array, name):
    url = write(**covariates)
    second = next(path for path in (tmp_path / "rain.zarr" / array / "c" / "1").rglob("*") if path.is_file())
    second.write_bytes(b"\x07" * 64)
    found = check(url)
    assert bad(found) == {name}
    assert found[name].frames == tuple(range(24, 40))
    assert "24 frames as written" in found["digests"].found


def test_a_lost_chunk_reads_as_missing_and_is_told_by_the_digests(write, tmp_path):
    url = write()
    for path in (tmp_path / "rain.zarr" / "precipitation" / "c" / "1").rglob("*"):
        if path.is_file():
            path.unlink()
    found = check(url)
    assert {"digests", "empty frames"} <= bad(found)
    assert found["digests"].frames == tuple(range(24, 40))


def test_statics(write):
    holed, flat = np.ones((2, HEIGHT, WIDTH), "f4")
    holed[0, :2] = np.nan
    found = check(write(statics={"land": holed}))
    assert bad(found) == {"statics"}
    assert "land: 2 pixels not finite" in found["statics"].found
    assert bad(check(write(statics={"land": flat})), Verdict.NOTE) == {"statics"}


@pytest.mark.parametrize(
    ("verdict", "change"),
    [
        (Verdict.PROBLEM, lambda v: v * np.nan),
        (Verdict.PROBLEM, lambda v: np.where(v == v[12, 3, 3], np.inf, v)),
        (Verdict.NOTE, lambda v: v * 0 + 1),
        (Verdict.NOTE, lambda v: np.where(np.arange(FRAMES)[:, None, None] < 10, np.nan, v)),
    ],
)
def test_dynamics(write, covariates, verdict, change):
    wind = change(covariates["dynamics"]["wind"])
    assert bad(check(write(dynamics={"wind": wind})), verdict) == {"dynamics"}


def test_a_covariate_that_is_not_there_is_a_problem(write, covariates):
    url = write(**covariates)
    edit_manifest(url, dynamics=["wind", "humidity"])
    found = check(url)
    assert "dynamics" in bad(found)
    assert "humidity cannot be read" in found["dynamics"].found
