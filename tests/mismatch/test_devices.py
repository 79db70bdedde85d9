"""Predictions and targets on a GPU, on two devices, or on none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multilabel_mnist.mismatch import diagnose, facts


@pytest.fixture
def tried(monkeypatch):
    """The devices on which a loss was tried."""
    devices = []
    original = facts.attempt

    def attempt(loss, pred, targ, device="cpu"):
        devices.append(device)
        return original(loss, pred, targ, device)

    monkeypatch.setattr(facts, "attempt", attempt)
    return devices


def facts_on_a_gpu(loss, labels):
    """Return the facts of a call as if its tensors lay on a GPU."""
    f = facts.Facts(loss, torch.randn(2, 3), torch.tensor(labels))
    f.devices = {torch.device("cuda", 0)}
    return f


def gpu_only(pred, targ):
    raise RuntimeError("works on a GPU only")


@pytest.mark.parametrize(
    "labels, devices", [([0, 5], {"cpu"}), ([0, -1], {"cpu"}), ([0, 2], {"cpu", None})]
)
def test_on_a_gpu_ranges_are_looked_at_before_anything_is_tried_there(tried, labels, devices):
    assert facts_on_a_gpu(gpu_only, labels).failed
    assert set(tried) == devices


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.nll_loss], ids=["module", "function"])
def test_a_known_loss_is_never_tried_on_a_gpu(tried, loss):
    assert facts_on_a_gpu(loss, [0, 5]).failed
    assert set(tried) == {"cpu"}


def test_two_devices():
    pred = torch.randn(4, 1, device="meta")
    targ = torch.randn(4, 1)
    d = diagnose(nn.MSELoss(), pred, targ)
    assert d.cause == "other-device" and "meta" in d.explanation
    names = dict(pred=pred, targ=targ)
    exec(d.fixes[0], names)
    assert nn.MSELoss()(names["pred"], names["targ"]).device == pred.device
