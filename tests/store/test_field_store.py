import json
import os
import shutil
import subprocess
import sys
import uuid
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import UserError
from pipeline.storage import files
from pipeline.store import manifest
from pipeline.store.field_store import FieldStore, write_store

SHAPE = (30, 20, 17)
TIMES = np.datetime64("2020-01-01T00:00:00") + np.arange(SHAPE[0]) * np.timedelta64(300, "s")


def make_field(seed=0):
    rng = np.random.default_rng(seed)
    field = rng.gamma(0.5, 2, SHAPE).astype("f4")
    field[:, :3, :5] = np.nan
    return field


def write(url, frames=None, **changes):
    arguments = {"times": TIMES, "y": np.arange(20.0), "x": np.arange(17.0), "name": "test"} | changes
    return write_store(str(url), make_field() if frames is None else frames, **arguments)


@pytest.fixture
def memory_url():
    return f"memory://{uuid.uuid4().hex}/field.zarr"


def test_round_trip_local(tmp_path):
    field = make_field()
    orography = np.arange(340, dtype="f4").reshape(20, 17)
    write(tmp_path / "a.zarr", field, crs="+proj=stere", statics={"orography": orography})
    store = FieldStore.open(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(store.field[:], field)
    np.testing.assert_array_equal(store.times, TIMES)
    assert store.times.dtype == "datetime64[s]"
    np.testing.assert_array_equal(store.static("orography"), orography)
    info = store.info
    assert (info.name, info.variable, info.units, info.shape) == ("test", "precipitation", "mm/h", SHAPE)
    assert (info.cadence_seconds, info.start, info.end) == (300, "2020-01-01T00:00:00", "2020-01-01T02:25:00")
    assert (info.statics, info.crs) == (("orography",), "+proj=stere")
    assert info.missing_fraction == pytest.approx(np.isnan(field).mean())
    assert store.field.chunks == (24, 20, 17)
    assert not (tmp_path / "a.zarr" / manifest.MARKER).exists()


def test_round_trip_memory(memory_url, tmp_path):
    field = make_field()
    there = write(memory_url, field)
    np.testing.assert_array_equal(FieldStore.open(memory_url).field[:], field)
    np.testing.assert_array_equal(there.to_xarray().precipitation.values, field)
    assert there.info.fingerprint == write(tmp_path / "b", field).info.fingerprint


def test_plain_xarray_reads_it_as_cf(tmp_path):
    write(
        tmp_path / "a.zarr", crs="+proj=stere", attributes={"y": {"units": "km"}, "": {"source": "somewhere"}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = xr.open_zarr(str(tmp_path / "a.zarr"), consolidated=False)
    np.testing.assert_array_equal(data.time.values, TIMES.astype("datetime64[ns]"))
    np.testing.assert_array_equal(data.precipitation.values, make_field())
    assert data.precipitation.dims == ("time", "y", "x")
    assert data.precipitation.attrs["units"] == "mm/h"
    assert data.precipitation.attrs["standard_name"] == "lwe_precipitation_rate"
    assert data[data.precipitation.attrs["grid_mapping"]].attrs["proj_text"] == "+proj=stere"
    assert data.attrs["Conventions"] == "CF-1.11"
    assert data.attrs["source"] == "somewhere"
    assert (data.y.attrs["units"], data.y.attrs["axis"]) == ("km", "Y")


def test_default_open_is_consolidated_and_quiet(tmp_path):
    write(tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "precipitation" in xr.open_zarr(str(tmp_path / "a.zarr"))


def test_fingerprint_does_not_depend_on_how_frames_arrive(tmp_path):
    field = make_field()
    whole = write(tmp_path / "a", [field]).info.fingerprint
    singles = write(tmp_path / "b", list(field)).info.fingerprint
    blocks = write(
        tmp_path / "c", [field[:7], field[7], field[8:]], attributes={"y": {"units": "km"}}
    ).info.fingerprint
    assert whole == singles == blocks
    digests = [np.frombuffer(manifest.frame_digest(frame), "u1") for frame in field]
    assert whole == manifest.fingerprint("precipitation", "mm/h", TIMES, np.stack(digests))


@pytest.mark.parametrize(
    "change",
    [
        {"units": "mm"},
        {"variable": "rain"},
        {"times": TIMES + np.timedelta64(1, "s")},
        {"statics": {"orography": np.zeros((20, 17))}},
        {"dynamics": {"wind": np.zeros(SHAPE, "f4")}},
        {"frames": make_field() + np.float32(1e-3)},
        {"frames": make_field()[::-1]},
    ],
)
def test_fingerprint_depends_on_content(tmp_path, change):
    assert write(tmp_path / "a").info.fingerprint != write(tmp_path / "b", **change).info.fingerprint


def test_fingerprint_ignores_nan_bits_and_sign_of_zero(tmp_path):
    field = make_field()
    field[5, 10, 10] = 0
    other = field.copy()
    other[5, 10, 10] = -0.0
    other.view("u4")[np.isnan(other)] |= 0x1
    assert other.tobytes() != field.tobytes()
    assert write(tmp_path / "a", field).info.fingerprint == write(tmp_path / "b", other).info.fingerprint


def test_missing_store(tmp_path):
    with pytest.raises(UserError, match=r"nothing there; make it with: python jobs/ingest\.py"):
        FieldStore.open(str(tmp_path / "none.zarr"))


def test_unreachable_store():
    with pytest.raises(UserError, match="nosuch://a: cannot be opened"):
        FieldStore.open("nosuch://a/b")


def test_plain_zarr_is_refused_and_never_replaced(tmp_path):
    url = str(tmp_path / "plain.zarr")
    xr.Dataset({"precipitation": (("time", "y", "x"), make_field())}).to_zarr(url)
    with pytest.raises(UserError, match="not a Finescale field store"):
        FieldStore.open(url)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="something else is there"):
            write(url, overwrite=overwrite)
    assert xr.open_zarr(url).precipitation.shape == SHAPE


def test_newer_format_is_refused(tmp_path):
    store = write(tmp_path / "a")
    path = tmp_path / "a" / manifest.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(UserError, match="format version 99 is newer"):
        FieldStore.open(store.url)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other", "version": 1}'])
def test_damaged_manifest_is_one_line(tmp_path, text):
    write(tmp_path / "a")
    (tmp_path / "a" / manifest.MANIFEST).write_text(text)
    with pytest.raises(UserError, match="cannot be read") as caught:
        FieldStore.open(str(tmp_path / "a"))
    assert "\n" not in str(caught.value)


def test_store_without_manifest_is_incomplete_and_replaced(tmp_path):
    url = str(tmp_path / "a")
    good = write(url).info.fingerprint
    os.remove(tmp_path / "a" / manifest.MANIFEST)
    (tmp_path / "a" / manifest.MARKER).write_text("{}")
    (tmp_path / "a" / "precipitation" / "c" / "leftover").write_text("x")
    with pytest.raises(UserError, match=r"incomplete, .* run the same ingest command again"):
        FieldStore.open(url)
    assert write(url).info.fingerprint == good
    assert not (tmp_path / "a" / "precipitation" / "c" / "leftover").exists()


def test_complete_store_is_kept_unless_told(tmp_path):
    url = str(tmp_path / "a")
    first = write(url).info
    with pytest.raises(UserError, match="--overwrite"):
        write(url, make_field(1))
    assert FieldStore.open(url).info == first
    assert write(url, make_field(1), overwrite=True).info.fingerprint != first.fingerprint
    np.testing.assert_array_equal(FieldStore.open(url).field[:], make_field(1))


@pytest.mark.parametrize("place", ["local", "memory"])
def test_exception_removes_what_was_written(tmp_path, memory_url, place):
    url = str(tmp_path / "a") if place == "local" else memory_url

    def failing():
        yield make_field()[:25]
        assert files.exists(files.join(url, "precipitation/c"))  # a chunk is there when it breaks
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(url, failing())
    assert manifest.state(url) == "absent"
    assert not files.exists(url)


@pytest.mark.parametrize(
    "frames", [make_field()[:-1], np.concatenate([make_field(), make_field()]), make_field()[:, 1:]]
)
def test_frames_that_do_not_fit_are_a_bug(tmp_path, frames):
    with pytest.raises(ValueError, match=r"frames? "):
        write(tmp_path / "a", frames)
    assert not (tmp_path / "a").exists()


def test_uneven_times_are_a_bug(tmp_path):
    times = TIMES.copy()
    times[-1] += np.timedelta64(1, "s")
    with pytest.raises(ValueError, match="evenly spaced"):
        write(tmp_path / "a", times=times)
    assert not (tmp_path / "a").exists()


def test_dynamic_covariates_lie_beside_the_field(tmp_path):
    wind = np.random.default_rng(1).normal(size=SHAPE).astype("f4")
    wind[3, 4, 5] = np.nan
    humidity = np.ones(SHAPE, "f4")
    store = write(tmp_path / "a", dynamics={"wind": wind, "humidity": humidity})
    assert store.info.dynamics == ("humidity", "wind")
    np.testing.assert_array_equal(store.read(2, 9, slice(1, 8), slice(3, 9), "wind"), wind[2:9, 1:8, 3:9])
    np.testing.assert_array_equal(store.read(0, 30), make_field())
    assert store.to_xarray().wind.dims == ("time", "y", "x")


def test_rows_tell_of_frames_without_reading_them(tmp_path):
    field = make_field()
    field[7] = np.nan
    store = write(tmp_path / "a", field)
    assert store.digests[3].tobytes() == manifest.frame_digest(field[3])
    valid, wet, total, highest = store.statistics.T
    np.testing.assert_array_equal(valid, np.isfinite(field).sum(axis=(1, 2)))
    np.testing.assert_array_equal(wet, (field > 0.1).sum(axis=(1, 2)))
    np.testing.assert_allclose(total, np.nansum(field, axis=(1, 2), dtype="f8"))
    np.testing.assert_array_equal(highest[:7], np.nanmax(field[:7], axis=(1, 2)))
    assert np.isnan(highest[7])


def test_large_grids_are_bundled_into_few_objects(tmp_path):
    field = np.zeros((3, 300, 1100), "f4")
    field[:, ::7, ::5] = 1.5
    times = TIMES[:3]
    store = write(tmp_path / "a", field, times=times, y=np.arange(300.0), x=np.arange(1100.0))
    assert store.chunks == (24, 128, 128)
    assert store.field.shards == (24, 384, 1024)
    chunks = [path for path in (tmp_path / "a" / "precipitation" / "c").rglob("*") if path.is_file()]
    assert len(chunks) == 2
    corner = store.read(1, 3, slice(250, 300), slice(1000, 1100))
    np.testing.assert_array_equal(corner, field[1:3, 250:, 1000:])


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 31), (5, 4)])
def test_reading_outside_is_an_error(tmp_path, start, stop):
    with pytest.raises(IndexError, match="outside a store of 30"):
        write(tmp_path / "a").read(start, stop)


def test_first_format_is_read_but_has_no_digests(tmp_path):
    store = write(tmp_path / "a")
    path = tmp_path / "a" / manifest.MANIFEST
    known = json.loads(path.read_text()) | {"version": 1}
    path.write_text(json.dumps({key: known[key] for key in known if key not in ("dynamics", "gaps")}))
    shutil.rmtree(tmp_path / "a" / "frame_digest")
    zarr.consolidate_metadata(zarr.storage.LocalStore(store.url))
    old = FieldStore.open(store.url)
    np.testing.assert_array_equal(old.read(0, 30), make_field())
    with pytest.raises(UserError, match=r"without digests of its frames; ingest it again with --overwrite"):
        _ = old.digests


def test_unknown_static(tmp_path):
    with pytest.raises(UserError, match="no static covariate 'slope'; it has: none"):
        write(tmp_path / "a").static("slope")


def test_memory_stays_bounded(tmp_path):
    # 1200 frames of 256 x 256 are 300 MiB; the buffer and one chunk's copies are a few times 6 MiB.
    code = f"""
import resource, numpy as np
from pipeline.store.field_store import write_store
times = np.datetime64("2020-01-01", "s") + np.arange(1200) * np.timedelta64(300, "s")
axis = np.arange(256.0)
def frames():
    for i in range(1200):
        yield np.full((256, 256), i, "f4")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_store({str(tmp_path / "big")!r}, frames(), times=times, y=axis, x=axis, name="big")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 150
