import numpy as np
import pytest

from pipeline import UserError
from pipeline.store.grids import attributes_of, check_even, coarsened, edge_index, pixel_step, refined


@pytest.mark.parametrize("factor", [1, 2, 3, 10])
@pytest.mark.parametrize("step", [0.25, -1000.0])
def test_a_refined_axis_is_even_and_its_parts_have_the_pixels_for_a_mean(factor, step):
    axis = 50 + step * np.arange(7)
    fine = refined(axis, factor)
    assert len(fine) == 7 * factor
    np.testing.assert_allclose(np.diff(fine), step / factor)
    np.testing.assert_allclose(coarsened(fine, factor), axis, rtol=1e-14)
    assert fine[0] - step / factor / 2 == pytest.approx(axis[0] - step / 2)  # the edge stays where it is


def test_a_rest_that_fills_no_block_is_left_out():
    assert coarsened(np.arange(8.0), 3).tolist() == [1, 4]


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("first", [0.0, 0.5, -400.0])
@pytest.mark.parametrize("step", [1.0, -1.0, 0.1, 25.0])
@pytest.mark.parametrize("factor", [2, 3, 10])
def test_parts_of_a_grid_agree_in_where_they_lie(factor, step, first, dtype):
    """Whether edges or centres lie on whole pixels, and with coordinates that were rounded."""
    axis = ((first + np.arange(600)) * step).astype(dtype).astype("f8")
    whole = edge_index(refined(axis, factor))
    for cut in (1, 2, 7, 301):
        assert edge_index(refined(axis[cut:], factor)) == whole + cut * factor
        assert edge_index(refined(axis[cut : cut + 2 + cut % 3], factor)) == whole + cut * factor


def test_an_edge_at_zero_has_index_0():
    assert edge_index(np.array([0.5, 1.5])) == edge_index(np.array([-0.5, -1.5])) == 0


@pytest.mark.parametrize("axis", [[1.0], [0.0, 1.0, 2.1], [3.0, 3.0]])
def test_an_axis_without_a_pixel_size_is_refused(axis, one_line):
    with pytest.raises(UserError) as raised:
        check_even(np.array(axis), "y", "store s")
    one_line(raised, "store s", "y")


def test_a_rounded_axis_is_even():
    check_even(np.linspace(0, 360, 3600, endpoint=False).astype("f4"), "x", "store s")
    assert pixel_step(np.array([4.0, 2.0, 0.0])) == -2


def test_attributes_of_an_axis(store):
    assert attributes_of(store, "y")["axis"] == "Y"
