"""What a user gets wrong with jobs/ingest.py: one line, the same in a dry run, and nothing left behind."""

import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from pipeline.store import manifest
from pipeline.store.field_store import FieldStore


@pytest.fixture(scope="module")
def made(tmp_path_factory, job, series):
    """A folder with a file, a store, and things that are neither."""
    folder = tmp_path_factory.mktemp("mistakes")
    Path(series.write(folder, 0, 4)).rename(folder / "rain.nc")
    job([str(folder / "rain.nc"), "--store", str(folder / "known.zarr")])
    (folder / "note.txt").write_text("not data")
    (folder / "empty.nc").touch()
    (folder / "image.tif").write_bytes(b"II*\x00")
    h5py.File(folder / "bare.h5", "w").close()
    data = xr.load_dataset(folder / "rain.nc", engine="h5netcdf")
    data.isel(time=slice(0, 0)).to_netcdf(folder / "never.nc", engine="h5netcdf")
    lost = np.where(np.arange(series.grid[1]) == 3, np.nan, data.x)
    data.assign_coords(x=lost).to_netcdf(folder / "lost.nc", engine="h5netcdf")
    for name, odd in (("height", np.nan), ("depth", np.inf)):
        values = np.where(np.arange(series.grid[1]) == 2, odd, np.ones(series.grid))
        data[name] = (("y", "x"), values)
    data.to_netcdf(folder / "hills.nc", engine="h5netcdf")
    return folder


@pytest.fixture
def there(made, monkeypatch):
    """That folder, where nothing may be changed."""
    monkeypatch.chdir(made)
    before = everything(made)
    yield made
    assert everything(made) == before


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rain.nc --store new --static hill", "rain.nc: no variable 'hill' on (y, x); it has: none"),
        ("hills.nc --store known.zarr --static height=0", "known.zarr: was made without static height"),
        ("hills.nc --store new --static height", "static height: 11 of 99 values are missing"),
        ("hills.nc --store new --static height=1 --static height=2", "--static height: given 2 times"),
        ("hills.nc --store new --static height=nan", "--static height=nan: 'nan' is no number"),
        ("hills.nc --store new --dynamic height", "height has dimensions (y, x), and time cannot be told"),
        ("rain.nc --store note.txt/deep/new", "cannot be made, for {there}/note.txt is a file"),
        ("rain.nc --store new --name ../up", "--name ../up: no name"),
        ("rain.nc --store new --start 2020-01-01T00:00+01:00", "times are in UTC"),
        ("rain.nc --store new --bbox -5,0,nan,3", "--bbox -5,0,nan,3: x0 must be below x1"),
        ("rain.nc --store new --bbox -5,-5,-1,-1", "rain.nc: no pixel within --bbox -5,-5,-1,-1"),
        ("rain.nc --store new --lenient", "--lenient: is for --check"),
        ("empty.nc --store new", "empty.nc: is empty"),
        ("never.nc --store new", "never.nc: no frame in it"),
        ("lost.nc --store new", "lost.nc: its x has missing values"),
        ("bare.h5 --store new", "bare.h5: no variable on a map"),
        ("rain.nc --store new --source knmi", "rain.nc: has no image1/image_data, where the rules"),
        ("image.tif --store new", "name its rules with --source: comephore, fmi, or a file"),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(there, refusal, arguments, message):
    for dry in ([], ["--dry-run"]):
        assert message.replace("{there}", str(there)) in refusal(*arguments.split(), *dry)


def test_an_empty_name_is_not_this_folder(there, refusal):
    assert "an empty name among the files" in refusal("", "--store", "new")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--check known.zarr rain.nc", "rain.nc: not used with --check"),
        ("--check known.zarr --overwrite", "--overwrite: not used with --check"),
        ("--list-sources --store new", "--store: not used with --list-sources"),
    ],
)
def test_what_a_mode_would_pass_over_is_refused(there, refusal, arguments, message):
    assert message in refusal(*arguments.split())


def test_nothing_is_written_to_the_web(there, refusal, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # so that no server is asked first
    line = refusal("rain.nc", "--store", "http://127.0.0.1:1/s", "--dry-run")
    assert "nothing is written to the web" in line


def test_a_disk_that_may_only_be_read(made, refusal, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for dry in ([], ["--dry-run"]):
        line = refusal(made / "rain.nc", "--store", small_disk / "deep" / "new", *dry)
        assert f"deep/new: may not be written in {small_disk}; " in line


def test_a_store_that_has_lost_an_array(here, job, refusal, series):
    """Its manifest and its consolidated metadata still speak of it."""
    shutil.rmtree("known.zarr/precipitation")
    more = series.write(here, 4, 4)
    assert "its arrays cannot be read (KeyError: 'precipitation')" in refusal(more, "--store", "known.zarr")
    assert not manifest.is_being_written(str(here / "known.zarr"))
    job(["rain.nc", more, "--store", "known.zarr", "--overwrite"])
    assert FieldStore.open("known.zarr").shape[0] == 8


def test_statics_are_named_and_filled_as_told(here, job, capsys):
    command = ["hills.nc", "--variable", "precipitation", "--store", "new", "--static", "depth=-7"]
    capsys.readouterr()
    job([*command, "--static", "height=3", "--dry-run"])
    assert "statics      depth, height\n" in capsys.readouterr().out
    job(command)
    job([*command, "--dry-run"])
    assert "statics      depth\n" in capsys.readouterr().out
    depth = FieldStore.open("new").static("depth")
    np.testing.assert_array_equal(depth[0, :4], [1, 1, -7, 1])  # the infinite one too


def test_a_box_may_begin_west_of_greenwich(here, job):
    job(["rain.nc", "--store", "new", "--bbox", "-5,-5,3,3"])
    assert FieldStore.open("new").shape == (4, 4, 4)


def test_a_store_by_its_file_url(here, job):
    for _ in range(2):
        job(["rain.nc", "--store", f"file://{here}/new"])
    assert FieldStore.open("new").shape[0] == 4
