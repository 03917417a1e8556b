import pytest
import torch

from pipeline.diffusion.schedule import linear_schedule


@pytest.mark.parametrize("beta", [0.002, 0.02, 0.2])
@pytest.mark.parametrize("steps", [10, 1000])
def test_identities(beta, steps):
    schedule = linear_schedule(beta, steps)
    assert schedule.steps == steps
    assert schedule.betas[0] == pytest.approx(1e-4)
    assert schedule.betas[-1] == pytest.approx(beta)
    torch.testing.assert_close(
        schedule.betas.diff(), torch.full((steps - 1,), (beta - 1e-4) / (steps - 1)).double()
    )
    torch.testing.assert_close(schedule.signal**2 + schedule.noise**2, torch.ones(steps).double())
    kept = 1.0
    for t in range(steps):
        kept *= 1 - float(schedule.betas[t])
        assert float(schedule.signal[t]) == pytest.approx(kept**0.5, rel=1e-9)
    assert (schedule.half_log_snr.diff() < 0).all()
    assert float(schedule.half_log_snr[0]) == pytest.approx(
        torch.log(schedule.signal[0] / schedule.noise[0]).item()
    )


def test_a_larger_amplitude_leaves_less_signal():
    left = [float(linear_schedule(beta).signal[-1]) for beta in (0.005, 0.01, 0.02, 0.04)]
    assert left == sorted(left, reverse=True)
    # The amplitude of Ho et al. (2020) leaves abar_T of about 4e-5.
    assert left[2] ** 2 == pytest.approx(4e-5, rel=0.05)


def test_the_largest_amplitudes_stay_finite():
    schedule = linear_schedule(0.999)
    assert torch.isfinite(schedule.half_log_snr).all()
    assert (schedule.signal > 0).all()
