"""A store that grows: appended, late and repeated frames, and what must not be added."""

import itertools
import json
import shutil
import threading

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import UserError
from pipeline.storage.locks import leased
from pipeline.store import manifest
from pipeline.store.field_store import FieldStore
from pipeline.store.writer import StoreWriter


def content(folder):
    """Every byte of a store but the lock, which says who held it last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != manifest.LOCK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def whole(tmp_path, job, series):
    """A store of 60 frames, made in one go."""
    (tmp_path / "all").mkdir()
    path = series.write(tmp_path / "all", 0, 60)
    job([path, "--store", str(tmp_path / "whole.zarr"), "--name", "rain"])
    return tmp_path / "whole.zarr"


def strip_first_file(stored):
    info = json.loads(stored.pop(manifest.MANIFEST))
    info["source"].pop("first_file")
    return stored | {manifest.MANIFEST: info}


def test_appended_is_the_same_store_byte_for_byte(tmp_path, job, whole, capsys, series):
    target = tmp_path / "grown.zarr"
    for first, count in ((0, 20), (20, 7), (27, 30), (57, 3)):
        job([series.write(tmp_path, first, count), "--store", str(target), "--name", "rain"])
        store = FieldStore.open(str(target))
        assert store.shape == (first + count, *series.grid)
        np.testing.assert_array_equal(store.read(0, first + count), series.frames(0, first + count))
    assert "frames: 3 appended" in capsys.readouterr().out
    assert strip_first_file(content(target)) == strip_first_file(content(whole))


def test_late_frames_fill_gaps_and_change_nothing_else(tmp_path, job, whole, capsys, series):
    target = tmp_path / "late.zarr"
    early, late, last = (
        series.write(tmp_path, first, count) for first, count in ((0, 20), (20, 25), (45, 15))
    )
    job([early, last, "--store", str(target), "--name", "rain"])
    store = FieldStore.open(str(target))
    assert store.info.gaps == ((20, 25),)
    assert np.isnan(store.read(20, 45)).all()
    capsys.readouterr()
    job([late, "--store", str(target)])
    assert "frames: 25 filled into gaps" in capsys.readouterr().out
    assert strip_first_file(content(target)) == strip_first_file(content(whole))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5), max_size=3))
def test_whatever_order_files_come_in(tmp_path_factory, job, order, cuts, series):
    """Six files in any order and grouping, the first file among the first group: always the same store."""
    folder = tmp_path_factory.mktemp("order")
    order = [0, *(k for k in order if k)]
    paths = [series.write(folder, 9 * k, 9) for k in range(6)]
    edges = [0, *sorted(cuts), 6]
    for a, b in itertools.pairwise(edges):
        job([*(paths[k] for k in order[a:b]), "--store", str(folder / "s.zarr")])
    store = FieldStore.open(str(folder / "s.zarr"))
    np.testing.assert_array_equal(store.read(0, 54), series.frames(0, 54))
    digests = np.stack([np.frombuffer(manifest.frame_digest(f), "u1") for f in series.frames(0, 54)])
    assert store.info.fingerprint == manifest.fingerprint("precipitation", "mm/h", store.times, digests)
    assert store.info.gaps == ()


def test_repeated_frames_change_nothing_if_they_are_the_same(tmp_path, job, capsys, series):
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 20), "--store", str(target)])
    job([series.write(tmp_path, 10, 20), "--store", str(target)])
    assert "frames: 10 appended, 10 there already" in capsys.readouterr().out
    np.testing.assert_array_equal(FieldStore.open(str(target)).read(0, 30), series.frames(0, 30))


def test_other_values_at_a_known_time_are_refused_or_left_out(tmp_path, job, refusal, capsys, series):
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 20), "--store", str(target)])
    before = content(target)
    spoilt = series.frames(10, 20)
    spoilt[9] += 1  # frame 19, after nine that are the same and before ten that are new
    path = series.write(tmp_path, 10, 20, values=spoilt)
    line = refusal(path, "--store", target)
    assert "rain0010.nc: time 2020-01-01T01:35:00 comes twice, with other values in the store" in line
    assert "--keep-stored" in line
    assert content(target) == before
    capsys.readouterr()
    job([path, "--store", str(target), "--keep-stored"])
    assert "10 appended, 9 there already, 1 differed and were left" in capsys.readouterr().out
    np.testing.assert_array_equal(FieldStore.open(str(target)).read(0, 30), series.frames(0, 30))


def test_a_fault_in_the_middle_leaves_the_store_as_it_was(tmp_path, job, refusal, series):
    """The bad frame comes blocks after good ones that were written already, into a gap and behind the end."""
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 20), series.write(tmp_path, 50, 10), "--store", str(target)])
    before = content(target)
    values = series.frames(20, 80)
    values[75, 0, 0] = -3
    assert "negative" in refusal(series.write(tmp_path, 20, 80, values=values), "--store", target)
    after = content(target)
    assert after.keys() == before.keys()
    assert after == before


def test_only_new_does_not_look_at_known_times(tmp_path, job, capsys, series):
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 20), "--store", str(target)])
    path = series.write(
        tmp_path, 10, 20, values=np.concatenate([-series.frames(10, 10), series.frames(20, 10)])
    )
    job([path, "--store", str(target), "--only-new"])
    assert "frames: 10 appended" in capsys.readouterr().out
    np.testing.assert_array_equal(FieldStore.open(str(target)).read(0, 30), series.frames(0, 30))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder, series: series.write(folder, 40, 4, cadence=420),
            "does not fit the cadence: a frame every 300 s",
        ),
        (
            lambda folder, series: series.write(folder, -8, 4, values=np.zeros((4, *series.grid), "f4")),
            "lies before the store's first time, 2020-01-01T00:00:00",
        ),
        (lambda folder, series: series.write(folder, 99_999, 1), "gap of 99979 frames between"),
        (
            lambda folder, series: series.write(
                folder, 20, 2, values=np.zeros((2, *series.grid), "f4"), unit="dBZ"
            ),
            "units 'dBZ' cannot be turned into mm/h",
        ),
        (
            lambda folder, series: series.write(folder, 20, 2, name="rain"),
            "its variable is precipitation, that of",
        ),
    ],
)
def test_files_that_do_not_belong_are_one_line_and_change_nothing(
    tmp_path, job, refusal, make, message, series
):
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 20), "--store", str(target)])
    before = content(target)
    assert message in refusal(make(tmp_path, series), "--store", target)
    assert content(target) == before


def test_a_second_writer_is_refused(tmp_path, job, refusal, series):
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 20), "--store", str(target)])
    more = series.write(tmp_path, 20, 5)
    with leased(str(target / manifest.LOCK), "held by the test"):
        assert "another ingest is writing to it" in refusal(more, "--store", target)
    job([more, "--store", str(target)])
    assert FieldStore.open(str(target)).shape[0] == 25


def test_readers_see_the_old_store_while_frames_arrive(tmp_path, job, series):
    """What was put but not committed is not seen: neither behind the end nor in a gap."""
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 30), series.write(tmp_path, 40, 10), "--store", str(target)])
    before = FieldStore.open(str(target))
    seen = before.read(0, 50)
    writer = StoreWriter(str(target), before.info, before.times[0], 90, {})
    for slot in (*range(30, 40), *range(50, 80)):
        frame = series.frames(slot, 1)[0]
        writer.put(slot, [frame], manifest.frame_digest(frame))
    raw = zarr.open_group(str(target), mode="r")["precipitation"]
    assert raw.shape[0] == 90
    assert np.isfinite(raw[30:40]).all()  # written, though not yet so
    for store in (before, FieldStore.open(str(target))):
        assert store.shape[0] == 50
        np.testing.assert_array_equal(store.read(0, 50), seen)
        assert store.to_xarray().sizes["time"] == 50
    writer.close()
    after = FieldStore.open(str(target))
    np.testing.assert_array_equal(after.read(0, 80), series.frames(0, 80))


def test_dynamics_grow_with_the_field(tmp_path, job, refusal, series):
    target = str(tmp_path / "a.zarr")
    wind = np.random.default_rng(3).normal(size=(40, *series.grid)).astype("f4")
    one = series.write(tmp_path, 0, 25, u10=wind[:25])
    two = series.write(tmp_path, 25, 15, u10=wind[25:])
    job([one, "--store", target, "--variable", "precipitation", "--dynamic", "u10"])
    fingerprint = FieldStore.open(target).info.fingerprint
    assert "its dynamic covariates is ('u10',)" in refusal(
        two, "--store", target, "--variable", "precipitation"
    )
    job([two, "--store", target, "--variable", "precipitation", "--dynamic", "u10"])
    store = FieldStore.open(target)
    assert store.info.dynamics == ("u10",)
    np.testing.assert_array_equal(store.read(0, 40, variable="u10"), wind)
    assert store.to_xarray().u10.attrs["units"] == "m s-1"
    assert store.info.fingerprint != fingerprint


def test_disk_full_keeps_what_is_whole(tmp_path, job, refusal, small_disk, series):
    series.write(tmp_path, 0, 20)
    target = small_disk / "a.zarr"
    rng = np.random.default_rng(0)
    big = np.broadcast_to(rng.gamma(1, 1, (1, *series.grid)), (20, *series.grid)).astype("f4")
    job([series.write(tmp_path, 0, 20, values=big), "--store", str(target)])
    before = FieldStore.open(str(target)).info
    noise = rng.gamma(1, 1, (9000, *series.grid)).astype("f4")  # 3.5 MB for a disk of 2
    line = refusal(series.write(tmp_path, 20, 9000, values=noise), "--store", target)
    assert "no space" in line
    store = FieldStore.open(str(target))
    assert store.info.start == before.start
    assert store.shape[0] >= 20
    np.testing.assert_array_equal(store.read(0, 20), big)
    np.testing.assert_array_equal(store.read(20, store.shape[0]), noise[: store.shape[0] - 20])


def test_a_store_from_a_newer_version_is_not_touched(tmp_path, job, refusal, series):
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 20), "--store", str(target)])
    path = target / manifest.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    before = content(target)
    assert "format version 99 is newer" in refusal(series.write(tmp_path, 20, 5), "--store", target)
    assert content(target) == before


def test_concurrent_reader_thread_never_sees_half(tmp_path, job, series):
    """While appends run, every manifest that a reader opens vouches for frames that are all there."""
    target = tmp_path / "a.zarr"
    job([series.write(tmp_path, 0, 20), "--store", str(target)])
    ended, wrong = threading.Event(), []

    def read():
        while not ended.is_set():
            try:
                store = FieldStore.open(str(target))
                count = store.shape[0]
                if not np.array_equal(store.read(0, count), series.frames(0, count)):
                    wrong.append(count)
            except UserError as error:
                wrong.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    for first in range(20, 80, 20):
        job([series.write(tmp_path, first, 20), "--store", str(target)])
    ended.set()
    reader.join()
    assert wrong == []
    shutil.rmtree(target)


def test_a_period_of_a_growing_store_stays_the_same(tmp_path, job, series):
    target = str(tmp_path / "a.zarr")
    job([series.write(tmp_path, 0, 20), series.write(tmp_path, 25, 15), "--store", target])
    once = FieldStore.open(target)
    part = once.up_to(once.times[32])
    assert (part.shape[0], part.info.end, part.info.gaps) == (33, str(once.times[32]), ((20, 5),))
    assert once.up_to(once.times[22]).shape[0] == 20  # it does not end in a gap
    assert once.up_to(once.times[39]) == once.up_to(np.datetime64("2030-01-01")) == once
    job([series.write(tmp_path, 40, 10), "--store", target])
    grown = FieldStore.open(target)
    assert grown.info.fingerprint != once.info.fingerprint
    assert grown.up_to(once.times[32]).info == part.info
    assert part.info.missing_fraction == pytest.approx(5 / 33)
    with pytest.raises(UserError, match=r"data\.until = 2020-01-01T00:00:00 leaves fewer than two frames"):
        once.up_to(once.times[0])


def test_a_replaced_store_is_noticed_and_a_grown_one_is_not_a_replaced_one(tmp_path, job, series):
    target = str(tmp_path / "a.zarr")
    job([series.write(tmp_path, 0, 20), series.write(tmp_path, 25, 15), "--store", target])
    once = FieldStore.open(target)
    seen = once.read(0, 40)
    once.check_unchanged()
    job([series.write(tmp_path, 20, 5), series.write(tmp_path, 40, 3), "--store", target])
    once.check_unchanged()
    np.testing.assert_array_equal(once.read(0, 40), seen)  # late frames are not seen
    job([series.write(tmp_path, 1, 50), "--store", target, "--overwrite"])
    with pytest.raises(UserError, match="was replaced meanwhile"):
        once.check_unchanged()
