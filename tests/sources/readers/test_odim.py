import h5py
import numpy as np
import pytest

from pipeline import UserError
from pipeline.sources.readers import Selection, open_source
from pipeline.sources.rules import load_rules

IMAGE = np.array([[0, 255, 1], [2, 100, 64]], "u1")


def test_rates_are_preferred_and_recognised_without_rules(make, read, tmp_path):
    quantities = {"DBZH": (IMAGE, 0.5, -32.0), "RATE": (IMAGE, 0.1, 1.0)}
    source = open_source(make.odim(tmp_path / "a.h5", quantities))
    expected = 0.1 * IMAGE.astype(float) + 1
    expected[0, :2] = 0, np.nan
    np.testing.assert_array_equal(read(source)[0], expected)
    header = source.header
    assert (header.variable, header.units, header.interval_seconds) == ("precipitation", "mm/h", None)
    assert str(header.times[0]) == "2020-01-01T00:00:00"  # the nominal time
    np.testing.assert_allclose(header.x, [1001000, 1003000, 1005000], atol=1e-3)
    np.testing.assert_allclose(header.y, [499000, 497000], atol=1e-3)
    assert header.attributes["crs"]["grid_mapping_name"] == "lambert_azimuthal_equal_area"
    assert header.attributes[""]["source"] == "ODIM composite ORG:247"


def test_sums_stand_for_their_interval_and_end_with_it(make, tmp_path):
    header = open_source(make.odim(tmp_path / "a.h5", {"ACRR": (IMAGE.astype("u2"), 0.1, 0.0)})).header
    assert (header.units, header.interval_seconds) == ("mm", 900)
    assert str(header.times[0]) == "2020-01-01T00:15:00"


def test_reflectivity_by_name(make, read, tmp_path):
    quantities = {"RATE": (IMAGE, 0.1, 1.0), "DBZH": (IMAGE, 0.5, -32.0)}
    source = open_source(make.odim(tmp_path / "a.h5", quantities), load_rules("odim"), variable="DBZH")
    dbz = 0.5 * IMAGE.astype(float) - 32
    expected = np.where(dbz < 0, 0, 10 ** ((dbz - 10 * np.log10(200)) / 16))
    expected[0, :2] = 0, np.nan
    np.testing.assert_allclose(read(source)[0], expected, rtol=1e-6)
    assert source.header.units == "mm/h"


def test_a_longitude_latitude_grid_and_a_box(make, read, tmp_path):
    path = make.odim(
        tmp_path / "a.h5",
        {"RATE": (IMAGE, 1.0, 0.0)},
        projdef="+proj=longlat +ellps=WGS84",
        left_top=(5.0, 60.0),
        pixel=0.5,
    )
    source = open_source(path, selection=Selection(bbox=(5.5, 59, 7, 59.5)))
    np.testing.assert_allclose(source.header.x, [5.75, 6.25])
    np.testing.assert_allclose(source.header.y, [59.25])
    np.testing.assert_array_equal(read(source)[0], [[100, 64]])


def bad_object(file):
    file["what"].attrs["object"] = np.bytes_("PVOL")


def bad_corner(file):
    file["where"].attrs["LR_lon"] += 1.0


def bad_size(file):
    file["where"].attrs["xsize"] = 99


def bad_quantity(file):
    file["dataset1/what"].attrs["quantity"] = np.bytes_("VRADH")
    file.copy("dataset1", "dataset2")
    file["dataset2/what"].attrs["quantity"] = np.bytes_("QIND")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (bad_object, "an ODIM PVOL; only composites on a map"),
        (bad_corner, r"corners lie \d+\.\d x .* pixels apart, the image has 3 x 2"),
        (bad_size, "image of 2 x 3 pixels, 2 x 99 declared"),
        (bad_quantity, "which quantity. It has: VRADH, QIND; choose one with --variable"),
        (lambda file: file["where"].attrs.pop("UL_lat"), "no attribute UL_lat"),
        (lambda file: file["what"].attrs.pop("time"), "cannot be read"),
    ],
)
def test_bad_file_is_one_line(make, tmp_path, damage, message):
    path = make.odim(tmp_path / "bad.h5", {"RATE": (IMAGE, 1.0, 0.0)})
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(UserError, match=message) as caught:
        open_source(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_a_quantity_that_is_not_there(make, tmp_path):
    path = make.odim(tmp_path / "a.h5", {"RATE": (IMAGE, 1.0, 0.0)})
    with pytest.raises(UserError, match=r"no quantity 'ACRR'; it has: RATE"):
        open_source(path, variable="ACRR")
