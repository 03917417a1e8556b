from pathlib import Path

import numpy as np
import pytest

from pipeline import UserError
from pipeline.sources.readers import Selection, name_times, open_source
from pipeline.sources.rules import SourceRules, TimeRules, load_rules

FMI = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "fmi_geotiff"
NUMBERS = np.array([[0, 255, 64], [100, 110, 65]], "u1")


def rules(**changes):
    time = TimeRules(pattern=r"(\d{12})", format="%Y%m%d%H%M")
    return SourceRules(description="test", reader="geotiff", time=time, **changes)


def test_fmi_reflectivity_becomes_rain(make, read, tmp_path):
    path = make.geotiff(tmp_path / "201705091045_FINUTM.tif", NUMBERS)
    source = open_source(path, load_rules("fmi"))
    dbz = 0.5 * NUMBERS.astype(float) - 32
    expected = 10 ** ((dbz - 10 * np.log10(200)) / 16)  # Z = 200 R^1.6, solved for R
    expected[0] = [0, np.nan, expected[0, 2]]
    np.testing.assert_allclose(read(source)[0], expected, rtol=1e-6)
    assert expected[0, 2] == pytest.approx(0.0365, abs=1e-4)  # 0 dBZ
    header = source.header
    assert (header.variable, header.units, header.interval_seconds) == ("precipitation", "mm/h", 300)
    assert header.times.astype(str).tolist() == ["2017-05-09T10:45:00"]
    np.testing.assert_array_equal(header.y, [8875, 8625])
    np.testing.assert_array_equal(header.x, [1125, 1375, 1625])
    assert "TM35FIN" in header.crs
    assert header.attributes["crs"]["grid_mapping_name"] == "transverse_mercator"
    assert header.attributes["x"]["units"] == "metre"


def test_comephore_sums(make, read, tmp_path):
    numbers = np.array([[0, 7, 65535]], "u2")
    path = make.geotiff(tmp_path / "2019020918_RR.gtif", numbers, nodata=65535)
    source = open_source(path, load_rules("comephore"))
    np.testing.assert_allclose(read(source)[0], [[0, 0.7, np.nan]])
    assert (source.header.units, source.header.interval_seconds) == ("mm", 3600)
    assert str(source.header.times[0]) == "2019-02-09T18:00:00"
    with pytest.raises(UserError, match=r"2019020918_ERR\.gtif: no time of the form %Y%m%d%H in the name"):
        open_source(make.geotiff(tmp_path / "2019020918_ERR.gtif", numbers), load_rules("comephore"))


def test_scale_offset_and_nodata_of_the_file_give_way_to_the_rules(make, read, tmp_path):
    import rasterio

    path = make.geotiff(tmp_path / "202001010000.tif", np.array([[1, 2, 9]], "i2"), nodata=9)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0.5], [3.0]
    np.testing.assert_array_equal(read(open_source(path, rules(units="mm/h")))[0], [[3.5, 4, np.nan]])
    np.testing.assert_array_equal(read(open_source(path, rules(gain=2, dry=2)))[0], [[5, 0, np.nan]])


def test_float_images_and_bands(make, read, tmp_path):
    bands = np.array([[[1, 2]], [[-9999.9, 4]]], "f4")
    path = make.geotiff(tmp_path / "202001010000.tif", bands)
    np.testing.assert_array_equal(
        read(open_source(path, rules(select={"band": 2}, missing=-9999.9)))[0], [[np.nan, 4]]
    )
    np.testing.assert_array_equal(read(open_source(path, rules()))[0], [[1, 2]])
    with pytest.raises(UserError, match=r"has no band = 3.*; it has: 1, 2"):
        open_source(path, rules(select={"band": 3}))


def test_only_the_box_is_read(make, read, tmp_path):
    numbers = np.arange(30, dtype="u1").reshape(5, 6)
    path = make.geotiff(tmp_path / "202001010000.tif", numbers)
    source = open_source(path, rules(), Selection(bbox=(1375, 8125, 1900, 8625)))
    np.testing.assert_array_equal(read(source)[0], numbers[1:4, 1:4])
    np.testing.assert_array_equal(source.header.x, [1375, 1625, 1875])
    with pytest.raises(UserError, match=r"no pixel within --bbox 0,0,1,1; x runs from 1125 to 2375"):
        open_source(path, rules(), Selection(bbox=(0, 0, 1, 1)))


def test_without_rules_the_packaged_ones_are_named(make, tmp_path):
    path = make.geotiff(tmp_path / "202001010000.tif", NUMBERS)
    with pytest.raises(UserError, match=r"a GeoTIFF says neither.*--source: comephore, .*fmi, "):
        open_source(path)


def test_a_name_without_time(make, tmp_path):
    path = make.geotiff(tmp_path / "rain.tif", NUMBERS)
    assert name_times(path, load_rules("fmi")) is None
    with pytest.raises(UserError, match=r"no time of the form %Y%m%d%H%M in the name 'rain\.tif'"):
        open_source(path, load_rules("fmi"))
    with pytest.raises(UserError, match="no time of the form"):  # the 45th of May
        open_source(make.geotiff(tmp_path / "201705451045_x.tif", NUMBERS), load_rules("fmi"))


def test_truncated(make, read, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype="u1")
    whole = Path(make.geotiff(tmp_path / "201705091045_x.tif", noise)).read_bytes()
    for part in (len(whole) // 2, 60):
        (tmp_path / "201705091050_x.tif").write_bytes(whole[:part])
        with pytest.raises(UserError, match=r"^/.*201705091050_x\.tif: cannot be read") as caught:
            read(open_source(str(tmp_path / "201705091050_x.tif"), load_rules("fmi")))
        assert "\n" not in str(caught.value)


def test_rotated_image(make, tmp_path):
    from rasterio import Affine

    path = make.geotiff(tmp_path / "202001010000.tif", NUMBERS, transform=Affine(250, 10, 0, 10, -250, 0))
    with pytest.raises(UserError, match="rotated"):
        open_source(path, rules())


@pytest.mark.skipif(not FMI.is_dir(), reason="no FMI sample here")
def test_fmi_sample(read):
    import rasterio

    box = Selection(bbox=(300_000, 6_900_000, 340_000, 6_930_000))
    source = open_source(str(FMI / "201705091110_FINUTM.tif"), load_rules("fmi"), box)
    assert source.header.grid == (120, 160)
    values = read(source)[0]
    assert values.dtype == np.float32
    with rasterio.open(source.path) as file:
        rows, columns = (
            np.flatnonzero((centres >= least) & (centres <= most))
            for centres, least, most in (
                (file.xy(np.arange(file.height), 0)[1], 6_900_000, 6_930_000),
                (file.xy(0, np.arange(file.width))[0], 300_000, 340_000),
            )
        )
        numbers = file.read(1)[np.ix_(rows, columns)].astype(float)
    dbz = 0.5 * numbers - 32
    expected = np.where(dbz < 0, 0, (10 ** (dbz / 10) / 200) ** (1 / 1.6))
    expected[numbers == 255] = np.nan
    np.testing.assert_allclose(values, expected, rtol=1e-6)
