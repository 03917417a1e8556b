import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pipeline.ingest.run as run_module
import pipeline.ingest.transfer as transfer_module
from pipeline import UserError
from pipeline.errors import TroubleError
from pipeline.store import manifest
from pipeline.store.field_store import FieldStore

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "ingest.py"
KNMI = ROOT.parent / "shared" / "data" / "knmi"
main = runpy.run_path(str(JOB))["main"]


def write_files(folder, count=3, frames=4, unit="mm/h", shape=(5, 6)):
    """Write `count` NetCDF files that follow one another; return their paths and all values."""
    rng = np.random.default_rng(0)
    paths, values = [], []
    for index in range(count):
        path = folder / f"rain{index}.nc"
        values.append(rng.gamma(0.5, 2, (frames, *shape)).astype("f4"))
        write_file(path, values[-1], index * frames, unit)
        paths.append(path)
    return [str(path) for path in paths], np.concatenate(values)


def write_file(path, values, first=0, unit="mm/h", name="precipitation"):
    steps = (first + np.arange(len(values))) * np.timedelta64(300, "s")
    xr.Dataset(
        {name: (("time", "y", "x"), values, {"units": unit, "standard_name": "precipitation_flux"})},
        coords={
            "time": np.datetime64("2020-01-01", "ns") + steps,
            "y": np.arange(values.shape[1]) * 1.0,
            "x": np.arange(values.shape[2]) * 1.0,
        },
    ).to_netcdf(path, engine="h5netcdf")


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, str(JOB), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def refusal(*arguments):
    """Run in process and return the one line."""
    with pytest.raises(UserError) as caught:
        main([str(argument) for argument in arguments])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(folder):
    """When each file of a store was written, but for the lock."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name != manifest.LOCK}


def test_files_become_a_store(tmp_path, capsys):
    paths, values = write_files(tmp_path)
    main([*reversed(paths), "--store", str(tmp_path / "out.zarr")])
    store = FieldStore.open(str(tmp_path / "out.zarr"))
    np.testing.assert_array_equal(store.field[:], values)
    assert store.info.name == "out"
    assert store.to_xarray().precipitation.attrs["standard_name"] == "lwe_precipitation_rate"
    out = capsys.readouterr().out
    assert "12 frames of 5 x 6 pixels" in out
    assert f"{(values > 0.1).mean():.1%} of the valid values above 0.1 mm/h" in out
    assert f"{values.max():.4g} mm/h" in out
    assert store.info.fingerprint in out
    assert f"python jobs/tune_factors.py --store {store.url} --pairs 4x2" in out


def test_from_another_folder_without_installation(tmp_path):
    write_files(tmp_path)
    # -S -I style isolation would hide the dependencies too; PYTHONSAFEPATH only hides the checkout.
    done = run("rain*.nc", "--store", "out.zarr", cwd=tmp_path, env={**os.environ, "PYTHONSAFEPATH": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert FieldStore.open(str(tmp_path / "out.zarr")).info.shape == (12, 5, 6)


def test_again_is_already_there_and_untouched(tmp_path, capsys):
    paths, _ = write_files(tmp_path)
    command = [*paths, "--store", str(tmp_path / "out.zarr")]
    main(command)
    before = written(tmp_path / "out.zarr")
    capsys.readouterr()
    main(command)
    assert "already there" in capsys.readouterr().out
    assert before == written(tmp_path / "out.zarr")


def test_another_store_needs_overwrite(tmp_path):
    paths, values = write_files(tmp_path)
    target = tmp_path / "out.zarr"
    main([*paths, "--store", str(target)])
    assert "--overwrite" in refusal(*paths, "--store", target, "--name", "other")
    assert "its units is mm/h" in refusal(*paths, "--store", target, "--units", "mm")
    assert FieldStore.open(str(target)).info.shape[0] == 12
    main([*paths[:2], "--store", str(target), "--overwrite"])
    np.testing.assert_array_equal(FieldStore.open(str(target)).field[:], values[:8])


def test_bad_input_does_not_cost_the_store_that_was_there(tmp_path):
    paths, values = write_files(tmp_path)
    target = tmp_path / "out.zarr"
    main([*paths, "--store", str(target)])
    write_file(tmp_path / "rain1.nc", -values[4:8], 4)
    assert "negative" in refusal(*paths, "--store", target, "--overwrite")
    np.testing.assert_array_equal(FieldStore.open(str(target)).field[:], values)


def test_units_are_converted_or_declared(tmp_path):
    paths, values = write_files(tmp_path, unit="mm")
    main([*paths, "--store", str(tmp_path / "a")])
    np.testing.assert_allclose(FieldStore.open(str(tmp_path / "a")).field[:], values * 12, rtol=1e-6)
    main([*paths, "--store", str(tmp_path / "b"), "--units", "mm"])
    declared = FieldStore.open(str(tmp_path / "b"))
    np.testing.assert_array_equal(declared.field[:], values)
    assert declared.info.units == "mm"


def test_gaps_are_filled_with_missing_and_reported(tmp_path, capsys):
    paths, values = write_files(tmp_path)
    main([paths[0], paths[2], "--store", str(tmp_path / "a")])
    store = FieldStore.open(str(tmp_path / "a"))
    assert np.isnan(store.field[4:8]).all()
    np.testing.assert_array_equal(store.field[8:], values[8:])
    assert store.info.gaps == ((4, 4),)
    out = capsys.readouterr().out
    assert "4 frames that no file has, missing (4 between 2020-01-01T00:15:00 and 2020-01-01T00:40:00)" in out
    assert store.info.missing_fraction == pytest.approx(4 / 12)


def test_static_covariates_come_along(tmp_path):
    paths, _ = write_files(tmp_path, count=1)
    data = xr.load_dataset(paths[0], engine="h5netcdf")
    data["orography"] = (("x", "y"), np.arange(30.0).reshape(6, 5))
    data.to_netcdf(paths[0], engine="h5netcdf")
    main([*paths, "--store", str(tmp_path / "a"), "--static", "orography", "--variable", "precipitation"])
    store = FieldStore.open(str(tmp_path / "a"))
    np.testing.assert_array_equal(store.static("orography"), np.arange(30.0).reshape(6, 5).T)


def spoil_negative(path, values):
    write_file(path, np.where(values > 1, -0.25, values), 4)


def spoil_infinite(path, values):
    write_file(path, np.where(values > 1, np.inf, values), 4)


def spoil_units(path, values):
    write_file(path, values, 4, unit="dBZ")


def spoil_grid(path, values):
    write_file(path, values[:, 1:], 4)


def spoil_variable(path, values):
    write_file(path, values, 4, name="tas")


def spoil_file(path, values):
    path.write_text("no file of ours")


SPOILERS = [
    (spoil_negative, "rain1.nc: precipitation has negative values, down to -0.25 mm/h; set them to 0"),
    (spoil_infinite, "rain1.nc: precipitation has infinite values"),
    (spoil_units, "rain1.nc: precipitation: units 'dBZ' cannot be turned into mm/h"),
    (spoil_grid, "rain1.nc: precipitation on 4 x 6 pixels, most files have precipitation on 5 x 6"),
    (spoil_variable, "rain1.nc: no variable 'precipitation'; it has: tas"),
    (spoil_file, "rain1.nc: cannot be read"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILERS)
def test_bad_file_among_good_ones(tmp_path, capsys, spoil, message):
    paths, values = write_files(tmp_path)
    spoil(tmp_path / "rain1.nc", values[4:8])
    target = tmp_path / "out.zarr"
    command = [*paths, "--store", target, "--variable", "precipitation"]
    line = refusal(*command)
    assert message in line
    assert "--skip-bad" in line
    assert not target.exists()

    main([*map(str, command), "--skip-bad"])
    store = FieldStore.open(str(target))
    np.testing.assert_array_equal(store.field[:4], values[:4])
    assert np.isnan(store.field[4:8]).all()
    out = capsys.readouterr().out
    assert "1 of 3 files:" in out
    assert message in out


def test_all_files_bad(tmp_path):
    (tmp_path / "a.nc").write_text("x")
    (tmp_path / "b.nc").write_text("y")
    line = refusal(tmp_path / "a.nc", tmp_path / "b.nc", "--store", tmp_path / "out", "--skip-bad")
    assert line.startswith("all 2 files are bad; the first:")
    assert not (tmp_path / "out").exists()


def test_all_files_negative(tmp_path):
    paths, values = write_files(tmp_path, count=2)
    for index, path in enumerate(paths):
        write_file(path, -values[4 * index :][:4], 4 * index)
    assert "all 2 files are bad" in refusal(*paths, "--store", tmp_path / "out", "--skip-bad")


def test_missing_everywhere(tmp_path):
    write_file(tmp_path / "a.nc", np.full((4, 5, 6), np.nan, "f4"))
    assert "precipitation is missing everywhere" in refusal(tmp_path / "a.nc", "--store", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing*.nc", "--store", "out"], "nothing*.nc: no file matches"),
        (["nothing.nc", "--store", "out"], "nothing.nc: no such file"),
        (["rain0.nc", "rain?.nc", "--store", "out"], "rain0.nc: given twice"),
        (["rain0.nc", "other.nc", "--store", "out"], "2020-01-01T00:00:00 comes twice, with other values"),
        (["rain0.nc", "--store", "busy"], "something else is there already"),
        (["rain0.nc", "--store", "busy", "--overwrite"], "something else is there already"),
        (["rain0.nc", "--store", "rain0.nc/out"], "rain0.nc/out: cannot be"),
        (["rain0.nc"], "required: --store"),
        (["rain0.nc", "--store", "out", "--start", "2020-02", "--stop", "2020-01"], "--stop 2020-01: before"),
        (["rain0.nc", "--store", "out", "--start", "2021"], "no frame from 2021-01-01T00:00:00 to the last"),
        (["rain0.nc", "--store", "out", "--start", "20200101"], "--start 20200101: not a time"),
        (["rain0.nc", "--store", "out", "--static", "time"], "'time': no name for a field of a store"),
        (["rain0.nc", "--store", "out", "--dynamic", "10u"], "no variable '10u'"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, count=1)
    write_file(tmp_path / "other.nc", np.ones((4, 5, 6), "f4"))
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "letter.txt").write_text("keep me")
    before = sorted(tmp_path.rglob("*"))
    assert message in refusal(*arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_patterns_reach_into_folders_and_names_may_look_like_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a/b", "c"):
        (tmp_path / folder).mkdir(parents=True)
    _, values = write_files(tmp_path / "a" / "b", count=2)
    write_file(tmp_path / "c" / "rain[1].nc", np.ones((4, 5, 6), "f4"), 8)
    main(["a/**/*.nc", "c/rain[1].nc", "--store", "out"])
    np.testing.assert_array_equal(FieldStore.open("out").field[:8], values)
    assert FieldStore.open("out").shape[0] == 12


def test_a_contradiction_does_not_cost_the_store_that_is_replaced(tmp_path):
    paths, values = write_files(tmp_path)
    target = tmp_path / "out"
    main([*paths, "--store", str(target)])
    before = written(target)
    write_file(tmp_path / "other.nc", np.ones((4, 5, 6), "f4"), 2)
    again = [*paths, tmp_path / "other.nc", "--store", target, "--overwrite"]
    assert "2020-01-01T00:10:00 comes twice, with other values in" in refusal(*again)
    assert written(target) == before
    main([*map(str, again), "--keep-stored"])
    np.testing.assert_array_equal(FieldStore.open(str(target)).field[:], values)


def test_a_store_that_another_ingest_has_just_made_is_added_to(tmp_path, monkeypatch):
    """The other one ends between our look at the store and our turn to write."""
    paths, values = write_files(tmp_path, count=2)
    target = str(tmp_path / "out")
    alone = run_module.writing

    def late(url):
        monkeypatch.setattr(run_module, "writing", alone)
        main([paths[0], "--store", target])
        return alone(url)

    monkeypatch.setattr(run_module, "writing", late)
    main([paths[1], "--store", target])
    np.testing.assert_array_equal(FieldStore.open(target).field[:], values)


def test_another_store_that_has_just_been_made_is_left_alone(tmp_path, monkeypatch):
    paths, values = write_files(tmp_path, count=1)
    write_file(tmp_path / "wide.nc", np.ones((4, 5, 9), "f4"), 4)
    target = str(tmp_path / "out")
    alone = run_module.writing

    def late(url):
        monkeypatch.setattr(run_module, "writing", alone)
        main([paths[0], "--store", target])
        return alone(url)

    monkeypatch.setattr(run_module, "writing", late)
    assert "its grid is (5, 6)" in refusal(tmp_path / "wide.nc", "--store", target)
    np.testing.assert_array_equal(FieldStore.open(target).field[:], values)
    assert not manifest.is_being_written(target)


def test_trouble_outside_keeps_what_counts(tmp_path, monkeypatch):
    """A disk or a network that fails is no fault of the files: nothing of what was done is taken back."""
    paths, values = write_files(tmp_path, count=3, frames=20)
    target = tmp_path / "out"
    readings = []

    def failing(source, *arguments):
        readings.append(source.path)
        if len(readings) == 3:
            raise TroubleError("gs://radar: the server does not answer")
        return checked(source, *arguments)

    checked = transfer_module.checked
    monkeypatch.setattr(transfer_module, "checked", failing)
    assert "does not answer" in refusal(*paths, "--store", target)
    np.testing.assert_array_equal(FieldStore.open(str(target)).field[:24], values[:24])  # the whole chunk
    main([*paths, "--store", str(target)])
    np.testing.assert_array_equal(FieldStore.open(str(target)).field[:], values)


def test_store_on_top_of_its_own_source(tmp_path):
    paths, values = write_files(tmp_path)
    target = tmp_path / "a.zarr"
    main([*paths, "--store", str(target)])
    assert "one of the files to be read" in refusal(target, "--store", target, "--overwrite")
    np.testing.assert_array_equal(FieldStore.open(str(target)).field[:], values)


def test_exit_status_and_no_traceback(tmp_path):
    paths, values = write_files(tmp_path)
    write_file(tmp_path / "rain1.nc", -values[4:8], 4)
    done = run(*paths, "--store", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(tmp_path, capsys):
    paths, _ = write_files(tmp_path, unit="mm")
    main([*paths, "--store", str(tmp_path / "out"), "--dry-run"])
    out = capsys.readouterr().out
    assert "12 frames of 5 x 6 pixels" in out
    assert "times 12: mm/h" in out
    assert not (tmp_path / "out").exists()
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "letter.txt").write_text("keep me")
    assert "something else" in refusal(*paths, "--store", tmp_path / "busy", "--dry-run")


@pytest.mark.parametrize("arguments", [["--help"], ["nothing.nc", "--dry-run"], ["--nonsense"]])
def test_command_line_loads_nothing_heavy(arguments):
    code = f"""
import atexit, runpy, sys
heavy = {{"torch", "ray", "mlflow", "xarray"}}
atexit.register(lambda: print("loaded:", sorted(heavy & set(sys.modules))))
sys.argv = ["jobs/ingest.py", *{arguments!r}]
runpy.run_path({str(JOB)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if "--help" in arguments else 2)
    assert "loaded: []" in done.stdout


def test_killed_ingest_is_taken_up_by_the_same_command(tmp_path):
    paths, _ = write_files(tmp_path, count=4, frames=60, shape=(256, 256))
    done = run(*paths, "--store", tmp_path / "whole.zarr", "--name", "rain")
    assert done.returncode == 0
    target = tmp_path / "cut.zarr"
    command = [sys.executable, str(JOB), *paths, "--store", str(target), "--name", "rain"]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    chunks = target / "precipitation" / "c"
    while not chunks.exists():  # the data array has begun
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (target / manifest.MARKER).exists()
    assert subprocess.run(command, timeout=120).returncode == 0
    assert FieldStore.open(str(target)).info == FieldStore.open(str(tmp_path / "whole.zarr")).info


@pytest.mark.skipif(not KNMI.is_dir(), reason="no KNMI sample here")
def test_knmi_sample(tmp_path):
    main([str(KNMI / "*2010082604*.h5"), "--store", str(tmp_path / "knmi.zarr")])
    store = FieldStore.open(str(tmp_path / "knmi.zarr"))
    assert store.info.shape == (12, 765, 700)
    assert store.info.cadence_seconds == 300
    assert store.info.missing_fraction == pytest.approx(0.744, abs=0.001)
    values = store.field[:]
    counts = values[~np.isnan(values)] / 0.12
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
