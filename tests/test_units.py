import pytest

from pipeline import UserError, units


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("mm/h", 1), ("mm h-1", 1), ("mm hr-1", 1), ("mm h**-1", 1), ("mm h^-1", 1),
        ("mm.hour-1", 1), ("MM/HR", 1),
        ("kg m-2 s-1", 3600), ("kg/m2/s", 3600), ("kg m**-2 s**-1", 3600), ("s-1 kg m-2", 3600),
        ("mm s-1", 3600), ("m s-1", 3.6e6), ("m h-1", 1000), ("mm/day", 1 / 24), ("mm d-1", 1 / 24),
        ("mm/min", 60), ("mm", 12), ("kg m-2", 12), ("m", 12000),
    ],
)  # fmt: skip
def test_units_become_mm_per_hour(text, factor):
    assert units.to_mm_per_hour(text, 300, "file") == pytest.approx(factor)


@pytest.mark.parametrize("text", ["dBZ", "", "K", "mm h", "kg m-1 s-1", "5 mm", "m2 s-1"])
def test_unknown_units_are_refused(text):
    with pytest.raises(UserError, match=r"a\.nc: units .*--units UNITS"):
        units.to_mm_per_hour(text, 300, "a.nc")
