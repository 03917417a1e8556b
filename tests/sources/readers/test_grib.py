import os
import subprocess
import sys

import numpy as np
import pytest

from pipeline import UserError
from pipeline.sources.readers import Selection, open_source
from pipeline.sources.rules import OtherVariable, load_rules

GRID = (4, 6)


def precipitation(date, time, steps, seed):
    rng = np.random.default_rng(seed)
    return [
        {"paramId": 228, "dataDate": date, "dataTime": time, "stepType": "accum",
         "stepRange": f"{step - 1}-{step}", "values": rng.gamma(0.5, 1e-3, GRID)} for step in steps
    ]  # fmt: skip


def temperature(hours, levels=(850, 500)):
    return [
        {"paramId": 130, "dataDate": 20200102, "dataTime": 100 * hour, "stepRange": "0",
         "typeOfLevel": "isobaricInhPa", "level": level, "values": np.full(GRID, level + hour)}
        for hour in hours for level in levels
    ]  # fmt: skip


GEOPOTENTIAL = {"paramId": 129, "dataDate": 20200102, "dataTime": 0, "stepRange": "0",
                "values": np.full(GRID, 980.665)}  # fmt: skip


@pytest.fixture(scope="module")
def era5(make, tmp_path_factory):
    """As the Climate Data Store cuts a day out of forecasts from 18 and 6 o'clock, first hours missing."""
    folder = tmp_path_factory.mktemp("grib")
    rain = precipitation(20200101, 1800, range(7, 13), 0) + precipitation(20200102, 600, range(1, 13), 1)
    path = make.grib(folder / "era5.grib", [*rain, *temperature(range(19)), GEOPOTENTIAL])
    return path, np.stack([message["values"] for message in rain])


def test_sums_by_valid_time(era5, read):
    path, truth = era5
    source = open_source(path, load_rules("era5-grib"))
    header = source.header
    np.testing.assert_array_equal(
        header.times, np.datetime64("2020-01-02T01", "s") + np.arange(18) * np.timedelta64(3600, "s")
    )
    assert (header.variable, header.units, header.interval_seconds) == ("precipitation", "m", 3600)
    np.testing.assert_array_equal(header.y, [50, 49.75, 49.5, 49.25])
    np.testing.assert_allclose(read(source), truth, atol=truth.max() / 2**15)
    assert os.listdir(os.path.dirname(path)) == ["era5.grib"]  # no index file


def test_levels_and_statics_and_a_part(era5, read):
    path, truth = era5
    rules = load_rules("era5-grib").model_copy(
        update={
            "dynamics": {"t850": OtherVariable(variable="t", select={"isobaricInhPa": 850})},
            "statics": {"orography": OtherVariable(variable="z", gain=1 / 9.80665, units="m")},
        }
    )
    part = Selection(np.datetime64("2020-01-02T05"), np.datetime64("2020-01-02T07"), (0.25, 49, 0.5, 49.6))
    source = open_source(path, rules, part)
    assert source.header.grid == (2, 2)
    np.testing.assert_allclose(read(source), truth[4:7, 2:, 1:3], atol=truth.max() / 2**15)
    np.testing.assert_allclose(read(source, "t850")[:, 0, 0], [855, 856, 857])
    assert source.header.attributes["t850"]["units"] == "K"
    np.testing.assert_allclose(source.static("orography"), np.full((2, 2), 100), rtol=1e-4)
    with pytest.raises(UserError, match="no further field 'q'; the rules name: t850"):
        read(source, "q")


def test_a_dynamic_that_lacks_times(make, tmp_path):
    rain = precipitation(20200102, 0, range(1, 4), 0)
    path = make.grib(tmp_path / "a.grib", [*rain, *temperature([1, 2], levels=(850,))])
    rules = load_rules("era5-grib").model_copy(update={"dynamics": {"t850": OtherVariable(variable="t")}})
    with pytest.raises(UserError, match=r"t \(t850 in the rules\) lacks 1 of the 3 times of tp, .*T03:00:00"):
        open_source(path, rules)


def test_which_variable(era5):
    path, _ = era5
    with pytest.raises(UserError, match=r"which variable. It has: t, tp, z; choose one with --variable NAME"):
        open_source(path)
    with pytest.raises(UserError, match="no variable 'q'; it has: t, tp, z"):
        open_source(path, variable="q")
    with pytest.raises(UserError, match=r"2 values of 'isobaricInhPa' .*select"):
        open_source(path, variable="t")


def test_one_variable_needs_no_rules(make, read, tmp_path):
    path = make.grib(tmp_path / "a.grib", precipitation(20200102, 0, [1], 0))
    source = open_source(path)
    assert (source.header.variable, source.header.units) == ("tp", "m")
    assert read(source).shape == (1, *GRID)


def test_overlapping_forecasts_are_refused(make, tmp_path):
    messages = precipitation(20200102, 0, [6, 7], 0) + precipitation(20200102, 600, [1], 1)
    path = make.grib(tmp_path / "a.grib", messages)
    with pytest.raises(UserError, match="tp has 2 messages that are valid at 20200102 0700"):
        open_source(path, load_rules("era5-grib"))


def test_truncated(era5, read, tmp_path):
    bad = tmp_path / "bad.grib"
    with open(era5[0], "rb") as file:
        bad.write_bytes(file.read()[:200])
    with pytest.raises(UserError, match=r"bad\.grib: ") as caught:
        read(open_source(str(bad), load_rules("era5-grib")))
    assert "\n" not in str(caught.value)


def test_a_process_that_read_grib_and_a_projection_ends_well(era5):
    code = (
        "import sys; from pipeline.sources.readers import open_source; "
        "open_source(sys.argv[1], variable='tp'); "
        "import pyproj; pyproj.Proj('+proj=utm +zone=33')(10, 50)"
    )
    done = subprocess.run([sys.executable, "-c", code, era5[0]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_message_that_was_cut_short_is_a_fault_and_no_log(make, tmp_path, caplog):
    message = {"paramId": 228, "dataDate": 20200101, "stepRange": "0-1", "values": np.full((2, 3), 1e-3)}
    path = make.grib(tmp_path / "a.grib", [message | {"dataTime": hour} for hour in (0, 100)])
    with open(path, "r+b") as file:
        file.truncate(file.seek(0, 2) - 10)
    with pytest.raises(UserError, match=r"a\.grib: cannot be read \(\w+Error: [^\n]*\)$"):
        open_source(path)
    assert caplog.text == ""
