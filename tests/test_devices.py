import pytest
import torch

from pipeline import UserError
from pipeline.devices import device_of_trial, pick_device

CPU = torch.device("cpu")


def test_what_a_name_stands_for(one_line):
    assert pick_device("cpu") == CPU
    if torch.cuda.is_available():
        assert pick_device("auto").type == pick_device("cuda").type == "cuda"
        return
    assert pick_device("auto") == CPU
    with pytest.raises(UserError) as raised:
        pick_device("cuda")
    one_line(raised, "--device cpu")


def test_workers_have_a_gpu_if_they_are_given_a_share(one_line):
    """Whether this machine has one says nothing of theirs."""
    assert pick_device("auto", workers=4, gpus_per_worker=0.5).type == "cuda"
    assert pick_device("auto", workers=4) == pick_device("cpu", 4, 0.5) == CPU
    with pytest.raises(UserError) as raised:
        pick_device("cuda", workers=4)
    one_line(raised, "tuning.gpus_per_trial=0.5")


def test_a_trial_without_a_share_of_a_gpu_stays_on_the_cpu(tiny):
    assert device_of_trial(tiny) == CPU
