import numpy as np
import pytest
import torch

from pipeline.data.symmetries import EVERY, grid_symmetries, symmetries_allowed, turn, vector_components
from pipeline.store.field_store import write_store

TIMES = np.datetime64("2020-01-01") + np.arange(4) * np.timedelta64(300, "s")
FIELD = np.ones((4, 12, 16), "f4")
LATITUDE = {"y": {"units": "degrees_north", "standard_name": "latitude"}}


def make(folder, dy=1000.0, dx=1000.0, dynamics=(), attributes=None):
    y, x = 5e5 - dy * np.arange(12), dx * np.arange(16)
    fields = dict.fromkeys(dynamics, FIELD)
    return write_store(
        str(folder / "field.zarr"), FIELD, times=TIMES, y=y, x=x, name="f", dynamics=fields,
        attributes=attributes,
    )  # fmt: skip


def test_the_symmetries_are_eight():
    image = torch.arange(9).reshape(1, 3, 3)
    assert len({tuple(turn(image, k).flatten().tolist()) for k in EVERY}) == 8


@pytest.mark.parametrize(
    ("grid", "allowed"),
    [
        ({}, EVERY),
        ({"dy": 1000.0001}, EVERY),
        ({"dx": 1500.0}, (0, 1, 2, 3)),
        ({"dy": 0.1, "dx": 0.1, "attributes": LATITUDE}, (0, 1, 2, 3)),
    ],
)
def test_a_grid_without_square_pixels_is_mirrored_only(tmp_path, grid, allowed):
    assert grid_symmetries(make(tmp_path, **grid)) == allowed
    image = torch.arange(6).reshape(1, 2, 3)
    if len(allowed) == 4:  # no two axes change places
        assert all(turn(image, k).shape == image.shape for k in allowed)


def test_components_of_vectors_are_known_by_name_or_standard_name(tmp_path):
    scalars = ["cape", "humidity", "vorticity", "t2m", "velocity_potential"]
    vectors = ["10m_u_component_of_wind", "u", "u10", "v_100m", "vas", "a", "wind_u", "v_wind"]
    attributes = {"a": {"standard_name": "northward_wind"}, "cape": {"standard_name": "air_temperature"}}
    store = make(tmp_path, dynamics=[*scalars, *vectors], attributes=attributes)
    assert sorted(vector_components(store)) == sorted(vectors)


def test_a_component_in_use_leaves_nothing_to_turn():
    assert symmetries_allowed(EVERY, ["cape", "u10"], ["u10", "v10"]) == (0,)
    assert symmetries_allowed(EVERY, ["cape"], ["u10", "v10"]) == EVERY
    assert symmetries_allowed((0, 1, 2, 3), [], ["u10"]) == (0, 1, 2, 3)
