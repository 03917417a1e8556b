import numpy as np
import pytest

from pipeline.sources.readers.calibration import Calibration, rain_rate
from pipeline.sources.rules import DbzRules, SourceRules

DBZ = DbzRules(a=200, b=1.6, threshold=5)


def plain(numbers, gain, offset, missing, dry):
    values = gain * numbers.astype(np.float64) + offset
    values[np.isin(numbers, dry)] = 0
    values[np.isin(numbers, missing)] = np.nan
    return values


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "<i2", ">i2", "<i4", ">f4", "f8"])
def test_table_and_arithmetic_agree_to_the_last_bit(dtype):
    kind = np.dtype(dtype)
    least, most = (-30000, 30000) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    numbers = np.random.default_rng(0).integers(max(least, -40000), min(most, 70000), (300, 17)).astype(dtype)
    numbers[0, :3] = [least, most, 7] if kind.itemsize <= 2 else [-1, 1, 7]
    codes = float(numbers[0, 0]), float(numbers[0, 1])
    calibration = Calibration(gain=0.1, offset=-3.3, missing=codes[:1], dry=codes[1:])
    expected = plain(numbers, 0.1, -3.3, codes[:1], codes[1:])
    for part in (numbers, numbers[:, ::2], numbers[0], numbers[5:5]):
        values = calibration.apply(part)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, plain(part, 0.1, -3.3, codes[:1], codes[1:]))
    assert np.isnan(expected[0, 0])
    assert expected[0, 1] == 0


def test_reflectivity_through_the_table_is_float32_of_the_same():
    numbers = np.arange(256, dtype="u1").reshape(16, 16)
    calibration = Calibration(gain=0.5, offset=-32, missing=(255,), dry=(0,), dbz=DBZ)
    values = calibration.apply(numbers)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, calibration.apply(numbers.astype("f8")).astype("f4"))


@pytest.mark.parametrize("rain", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("rules", [DBZ, DbzRules(a=223, b=1.53)])
def test_rain_rate_solves_the_power_law(rain, rules):
    reflectivity = 10 * np.log10(rules.a * rain**rules.b)
    assert rain_rate(np.array([reflectivity]), rules)[0] == pytest.approx(rain)


def test_below_the_threshold_it_is_dry():
    assert rain_rate(np.array([4.99, 5]), DBZ).tolist() == [0, pytest.approx(0.0748, abs=1e-4)]
    assert rain_rate(np.array([4.99]), DbzRules())[0] > 0


def test_1_mm_per_hour_is_23_dbz():
    np.testing.assert_allclose(rain_rate(np.array([23.0103]), DBZ), [1], rtol=1e-5)


def test_negative_rounding_is_clipped_and_no_more():
    values = Calibration(clip_below=1e-6).apply(np.array([-1e-6, -1.1e-6, 0, 5]))
    np.testing.assert_array_equal(values, [0, -1.1e-6, 0, 5])


def test_rules_win_over_the_file_and_codes_add_up():
    rules = SourceRules(description="test", gain=2, missing=[9])
    found = {"gain": 5.0, "offset": 1.0, "missing": (8.0,), "dry": (7.0,)}
    calibration = Calibration.of(rules, found)
    np.testing.assert_array_equal(calibration.apply(np.array([9, 8, 7, 1], "u1")), [np.nan, np.nan, 0, 3])


def test_nothing_to_do_keeps_the_values():
    values = np.array([1.5, np.nan], "f4")
    assert Calibration().apply(values) is values
