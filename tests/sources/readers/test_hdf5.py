from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline import UserError
from pipeline.sources.readers import Selection, open_source
from pipeline.sources.rules import load_rules

KNMI = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "knmi"


def test_knmi_calibration_codes_time_and_grid_come_from_the_file(make, read, tmp_path):
    counts = np.array([[0, 1, 250], [65535, 65534, 65000]])
    source = open_source(make.knmi(tmp_path / "a.h5", counts, formula="GEO = 0.5*PV + -0.5"))
    np.testing.assert_array_equal(read(source)[0], [[-0.5, 0, 124.5], [np.nan, np.nan, 32499.5]])
    header = source.header
    assert (header.variable, header.units, header.interval_seconds) == ("precipitation", "mm", 300)
    np.testing.assert_array_equal(header.times, np.array(["2010-08-26T00:05:00"], "datetime64[s]"))
    np.testing.assert_array_equal(header.y, [-3650.5, -3651.5])
    np.testing.assert_array_equal(header.x, [21, 23, 25])
    assert header.crs.startswith("+proj=stere")
    words = header.attributes["crs"]
    assert (words["grid_mapping_name"], words["standard_parallel"]) == ("polar_stereographic", 60)
    assert words["semi_major_axis"] == 6378137
    assert header.attributes[""]["source"] == "KNMI radar composite RAD_TEST"
    assert header.attributes["precipitation"]["comment"] == "time is the end of the interval"


def test_selection(make, read, tmp_path):
    counts = np.arange(20).reshape(4, 5)
    path = make.knmi(tmp_path / "a.h5", counts)
    source = open_source(path, selection=Selection(bbox=(22.5, -3652.5, 27.5, -3651)))
    np.testing.assert_array_equal(source.header.y, [-3651.5, -3652.5])
    np.testing.assert_array_equal(source.header.x, [23, 25, 27])
    np.testing.assert_array_equal(read(source)[0], counts[1:3, 1:4] * 0.01)
    late = open_source(path, selection=Selection(start=np.datetime64("2010-08-26T00:05:01")))
    assert len(late.header.times) == 0
    assert list(late.blocks(0, 0)) == []


def test_unknown_calibration(make, read, tmp_path):
    source = open_source(make.knmi(tmp_path / "a.h5", np.zeros((2, 2)), formula="GEO=LOG(PV)"))
    with pytest.raises(UserError, match=r"a\.h5: calibration 'GEO=LOG\(PV\)' is not of the form"):
        read(source)


@pytest.mark.parametrize("lost", ["overview", "geographic/map_projection", "image1/calibration"])
def test_what_the_rules_name_is_not_there(make, read, tmp_path, lost):
    path = make.knmi(tmp_path / "a.h5", np.zeros((2, 2)))
    with h5py.File(path, "a") as file:
        del file[lost]
    with pytest.raises(UserError, match=rf"a\.h5: has no {lost}@") as caught:
        read(open_source(path, load_rules("knmi")))
    assert "\n" not in str(caught.value)


def test_another_variable_is_refused(make, tmp_path):
    path = make.knmi(tmp_path / "a.h5", np.zeros((2, 2)))
    assert open_source(path, variable="precipitation").header.variable == "precipitation"
    with pytest.raises(UserError, match=r"no variable 'rain'; it has: precipitation"):
        open_source(path, variable="rain")


def test_rules_of_ones_own(read, tmp_path):
    with h5py.File(tmp_path / "rain_20200102T0304.h5", "w") as file:
        file["map/rain"] = np.array([[1, 2], [0, 255]], "u1")
        file["map/rain"].attrs.update({"scale": 0.5, "add": 1.0, "no": 255, "unit": "mm/h"})
        file["size"] = 2.0
        file["origin"] = 0
    (tmp_path / "own.yaml").write_text(
        """
        description: test
        reader: hdf5
        time: {pattern: 'rain_(.*)\\.h5', format: '%Y%m%dT%H%M', stamp: start}
        accumulation: 1h
        hdf5:
          image: map/rain
          gain: map/rain@scale
          offset: map/rain@add
          missing: [map/rain@no, map/rain@not_there]
          units: map/rain@unit
          pixel_size: [size, size]
          first_pixel: [origin, origin]
        """
    )
    rules = load_rules(str(tmp_path / "own.yaml"))
    source = open_source(str(tmp_path / "rain_20200102T0304.h5"), rules)
    np.testing.assert_array_equal(read(source)[0], [[1.5, 2], [1, np.nan]])
    assert (source.header.units, source.header.interval_seconds, source.header.crs) == ("mm/h", 3600, None)
    assert source.header.times.astype(str).tolist() == ["2020-01-02T04:04:00"]
    np.testing.assert_array_equal(source.header.y, [1, 3])


@pytest.mark.skipif(not KNMI.is_dir(), reason="no KNMI sample here")
def test_knmi_sample(read):
    source = open_source(str(KNMI / "RAD_NL25_RAP_5min_201008260410.h5"))
    assert source.header.grid == (765, 700)
    assert str(source.header.times[0]) == "2010-08-26T04:10:00"
    frame = read(source)[0]
    with h5py.File(source.path) as file:
        counts = file["image1/image_data"][()]
    np.testing.assert_array_equal(np.isnan(frame), counts == 65535)
    np.testing.assert_allclose(frame[counts != 65535], counts[counts != 65535] * 0.01)
    # The file gives the corners' latitude: check ours by the ellipsoid-free projection, good to a few km.
    rho = np.hypot(source.header.x[0] - 0.5, source.header.y[0] + 0.5)
    latitude = 90 - 2 * np.degrees(np.arctan(rho / (6378.137 * (1 + np.sin(np.radians(60))))))
    assert latitude == pytest.approx(55.97, abs=0.15)
