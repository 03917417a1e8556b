import json

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline import UserError
from pipeline.store.checks.figure import store_figure
from pipeline.store.checks.findings import Limits, Subject
from pipeline.store.checks.report import check_store
from pipeline.store.checks.scan import scan
from pipeline.store.field_store import FieldStore, write_store
from pipeline.store.manifest import MANIFEST

FRAMES = 30


@pytest.fixture
def write(tmp_path):
    """Write a store of weak rain that does not change much, faults by frame."""

    def write(faults=None, cadence=300, frames=FRAMES, gaps=(), **changes):
        rng = np.random.default_rng(0)
        field = rng.gamma(2.0, 0.5, (frames, 16, 24)).astype("f4")
        for frame, change in (faults or {}).items():
            field[frame] = change(field[frame])
        for first, count in gaps:
            field[first : first + count] = np.nan
        arguments = {
            "times": np.datetime64("2020-02-27T22:00:00") + np.arange(frames) * np.timedelta64(cadence, "s"),
            "y": 50 + np.arange(16.0), "x": np.arange(24.0), "name": "test", "crs": "+proj=stere",
            "attributes": {"x": {"units": "km"}, "y": {"units": "km"}},
        } | changes  # fmt: skip
        url = write_store(str(tmp_path / "rain.zarr"), field, overwrite=True, **arguments).url
        with open(f"{url}/{MANIFEST}") as file:
            known = json.load(file)
        with open(f"{url}/{MANIFEST}", "w") as file:
            json.dump(known | {"gaps": list(gaps)}, file)
        return url

    return write


def drawn(url):
    """Draw the page of a store; gives its axes by their titles."""
    store = FieldStore.open(url)
    figure = store_figure(Subject(store, scan(store), Limits()), [], "title")
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_a_clean_store_has_no_problem(write, tmp_path):
    told = []

    def progress(what, total):
        assert (what, total) == ("checking", FRAMES)
        return told.append

    report = check_store(write(), figure=str(tmp_path / "new" / "page.png"), progress=progress)
    assert sum(told) == FRAMES
    assert report.problems == []
    lines = report.text.splitlines()
    assert lines[-1] == f"{'summary':<12} 18 ok"
    assert f"{'figure':<12} {report.figure}" in lines
    assert max(map(len, lines)) <= 110
    picture = imread(report.figure)
    assert picture.shape[0] > 900
    assert picture.shape[1] > 1000
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 100  # not blank


def test_problems_come_first_and_one_to_a_line(write):
    url = write({7: lambda v: -v, 12: lambda v: v * np.nan}, crs=None)
    report = check_store(url)
    assert report.figure is None
    assert [line.split(":")[0] for line in report.problems] == ["range", "empty frames", "leaps"]
    assert all("\n" not in line for line in report.problems)
    assert "negative in 1 frame: 7 (2020-02-27T22:35:00); mend" in report.problems[0]
    summary = report.text.splitlines()[-1]
    assert summary.endswith("3 problems (range, empty frames, leaps), 1 note (projection), 14 ok")
    row = next(line for line in report.text.splitlines() if line.startswith("range"))
    assert row.startswith(f"{'range':<12} PROBLEM  ")
    assert "lenient" not in report.text


def test_lenient_says_so_and_still_names_the_problems(write, tmp_path):
    page = tmp_path / "page.png"
    report = check_store(write({7: lambda v: -v}, gaps=[[20, 3]]), lenient=True, figure=str(page))
    assert report.problems
    assert page.stat().st_size > 10_000
    assert report.text.endswith("lenient: problems are let pass")


def test_the_range_is_that_of_the_units(write):
    amounts = {7: lambda v: v + 45}  # 45 mm in 5 minutes are 540 mm/h, in an hour they are a cloudburst
    assert "range: 0.0" in " ".join(check_store(write(amounts, units="mm")).problems)
    assert check_store(write(amounts, units="mm", cadence=3600)).problems == []
    assert check_store(write(amounts, units="K"), limits=Limits(most=1)).problems == []


def test_the_page_shows_gaps_coverage_and_where_values_are_missing(write):
    def half(values):
        return np.where(np.arange(24) < 12, values, np.nan)

    axes = drawn(write(dict.fromkeys(range(20, 30), half), gaps=[[3, 6]]))
    coverage = axes["valid pixels"].lines[0].get_ydata()
    np.testing.assert_array_equal(coverage[[0, 25]], [100, 50])
    assert np.isnan(coverage[3:9]).all()
    assert np.isnan(axes["mean rain"].lines[0].get_ydata()[3:9]).all()
    assert all(
        len(axes[name].collections[0].get_paths()) == 1 for name in ("mean rain", "maximum", "valid pixels")
    )
    lost = axes["missing, outside gaps"].images[0]
    np.testing.assert_allclose(lost.get_array()[0, [0, 23]], [0, 100 * 10 / 24])
    assert lost.get_extent() == [-0.5, 23.5, 49.5, 65.5]
    assert axes["mean over time"].get_ylabel() == "y, km"
    # 22:00 to 00:25, a cell for 15 minutes: 22:15 to 22:40 is a gap.
    days = axes["availability, hour of the day, UTC"].images[0].get_array()
    np.testing.assert_array_equal(days[0, 88:].filled(-1), [0, 2, 2, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(days[1, :4].filled(-1), [0, 0, -1, -1])


def test_rows_that_go_south_are_drawn_with_north_on_top(write):
    image = drawn(write(y=65 - np.arange(16.0)))["mean over time"].images[0]
    assert image.origin == "upper"
    assert image.get_extent() == [-0.5, 23.5, 49.5, 65.5]


def test_a_long_store_is_laid_out_by_years_and_its_lines_are_thinned(write):
    axes = drawn(write({2100: lambda v: 9 * v}, cadence=21600, frames=2500, gaps=[[40, 1400]]))
    by_year = axes["availability, month"].images[0].get_array()
    assert by_year.shape == (2, 366)
    assert by_year.mask[0, :57].all()  # the store begins on February 27
    np.testing.assert_array_equal(by_year[0, 57:67].filled(-1), [0] * 10)
    assert by_year[0, 200] == 2
    maximum = axes["maximum of 2 frames"].lines[0].get_ydata()
    assert len(maximum) == 1250
    assert np.nanargmax(maximum) == 1050


def test_a_store_with_nothing_in_it_is_drawn_too(write, tmp_path):
    url = write({frame: lambda v: v * np.nan for frame in range(FRAMES)})
    report = check_store(url, figure=str(tmp_path / "page.png"))
    assert report.problems
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_coordinates_that_cannot_be_read_leave_the_page_with_pixels(write, tmp_path):
    url = write()
    for path in (tmp_path / "rain.zarr" / "y" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x07" * 64)
    assert [line.split(":")[0] for line in check_store(url).problems] == ["coordinates"]
    assert drawn(url)["mean over time"].get_ylabel() == "row"


def test_a_page_that_cannot_be_written_is_one_line(write, tmp_path, one_line):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as raised:
        check_store(write(), figure=str(tmp_path / "file" / "page.png"))
    one_line(raised, "page.png: cannot be written", "--figure")


def test_no_store_is_one_line(tmp_path, one_line):
    with pytest.raises(UserError) as raised:
        check_store(str(tmp_path / "none.zarr"))
    one_line(raised, "nothing there")
