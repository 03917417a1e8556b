"""The size of a pixel, as the coordinates of a store tell it."""

import numpy as np
import pytest

from pipeline.evaluation.grid import pixel_size
from pipeline.store.field_store import write_store

EVEN, UNEVEN = np.arange(4.0), np.array([0.0, 1.0, 2.1, 3.0])


@pytest.mark.parametrize(
    ("y", "x", "units", "expected"),
    [
        (-250.01 * EVEN, 249.99 * EVEN, "metres", (0.25, "km")),
        (2 * EVEN[::-1], 2 * EVEN, "km", (2.0, "km")),
        (0.1 * EVEN, 0.1 * EVEN, "degrees_north", (1.0, "pixels")),
        (2 * EVEN, 3 * EVEN, "km", (1.0, "pixels")),  # not square
        (EVEN, UNEVEN, "km", (1.0, "pixels")),
    ],
)
def test_it_is_a_length_where_the_grid_is_square_even_and_in_metres(y, x, units, expected, tmp_path):
    times = np.datetime64("2020-01-01", "s") + np.arange(2) * np.timedelta64(300, "s")
    store = write_store(
        str(tmp_path / "rain.zarr"), [np.zeros((4, 4), "f4")] * 2, times=times, y=y, x=x, name="rain",
        attributes={"y": {"units": units}, "x": {"units": units}},
    )  # fmt: skip
    assert pixel_size(store) == expected


def test_rows_without_units_are_pixels(store):
    assert pixel_size(store) == (1.0, "pixels")
