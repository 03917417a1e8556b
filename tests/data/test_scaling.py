import numpy as np
import pytest
import torch

from pipeline import UserError
from pipeline.data.scaling import ValueTransform

KINDS = ["log1p", "sqrt", "linear"]


@pytest.fixture
def rain():
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.where(rng.random(5000) < 0.3, rng.gamma(0.5, 4, 5000), 0)).float()


@pytest.mark.parametrize("kind", KINDS)
def test_inverse_undoes_forward(kind, rain):
    transform = ValueTransform.fit(rain, kind, wet_threshold=0.1)
    for values in (rain, torch.tensor([1e-6, 1e-3, 0.1, 150.0, 1e3])):
        torch.testing.assert_close(
            transform.inverse(transform.forward(values)), values, rtol=1e-5, atol=1e-7 * transform.unit
        )


@pytest.mark.parametrize("kind", KINDS)
def test_zero_maps_to_zero_and_back(kind, rain):
    transform = ValueTransform.fit(rain, kind, wet_threshold=0.1)
    assert transform.forward(torch.zeros(3)).tolist() == [0, 0, 0]
    assert transform.inverse(torch.tensor([0.0, -0.0, -2.0])).tolist() == [0, 0, 0]
    assert transform.forward(torch.tensor([-5.0])).tolist() == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_fit_gives_the_mean_wet_value_and_unit_variance(kind, rain):
    transform = ValueTransform.fit(rain, kind, wet_threshold=0.1)
    assert transform.unit == pytest.approx(float(rain[rain > 0.1].mean()), rel=1e-5)
    assert float(transform.forward(rain).std()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_takes_negative_values_for_dry_as_forward_does(kind, rain):
    marked = rain.where(rain > 0, -9.0)
    assert ValueTransform.fit(marked, kind, 0.1) == ValueTransform.fit(rain, kind, 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_finite_at_zero(kind):
    # Most of a rain field is exactly 0, where a plain root has an infinite slope.
    values = torch.tensor([0.0, 1e-12, 0.5], requires_grad=True)
    transform = ValueTransform(kind=kind, unit=2.0, spread=0.7)
    transform.forward(values).sum().backward()
    assert torch.isfinite(values.grad).all()
    assert values.grad[2] > 0


@pytest.mark.parametrize(
    ("values", "reason"),
    [([0.0, 0.05, 0.1], "wet_threshold = 0.1"), ([3.0, 3.0], "all values equal 3"), ([], "wet_threshold")],
)
def test_fit_refuses(values, reason, one_line):
    with pytest.raises(UserError) as raised:
        ValueTransform.fit(torch.tensor(values), "log1p", wet_threshold=0.1)
    one_line(raised, reason)


def test_round_trip_through_json(rain):
    transform = ValueTransform.fit(rain, "sqrt", 0.1)
    assert ValueTransform.model_validate_json(transform.model_dump_json()) == transform
