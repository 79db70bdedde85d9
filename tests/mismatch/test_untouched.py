"""`diagnose` leaves everything as it was, even where the loss would change it."""

import copy
import random
import threading
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multilabel_mnist.mismatch import diagnose
from multilabel_mnist.trial import attempt

from .frozen import random_state, same


class Noisy(nn.Module):
    """Counts its calls, draws from every generator, and writes into what it is given."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.seen = []
        self.register_buffer("mean", torch.zeros(()))
        self.drop = nn.Dropout()

    def forward(self, pred, targ):
        self.calls += 1
        self.seen.append(pred.shape)
        self.mean += random.random() + np.random.rand()
        pred.mul_(0)
        targ.add_(1)
        return self.drop(pred).mean() + torch.rand(())


PREDICTIONS = {
    "plain": torch.ones(4, 3),
    "with a gradient": torch.ones(4, 3, requires_grad=True),
    "transposed": torch.ones(3, 4).T,
}


@pytest.mark.parametrize("pred", PREDICTIONS.values(), ids=PREDICTIONS.keys())
def test_by_a_loss_that_changes_everything(pred):
    loss = Noisy()
    targ = torch.ones(4, 3)
    before = copy.deepcopy(vars(loss))
    state = random_state()
    diagnose(loss, pred, targ)
    assert (loss.calls, loss.seen, loss.mean.item()) == (0, [], 0)
    assert before["training"] == loss.training
    assert torch.equal(pred.detach(), torch.ones(4, 3))
    assert torch.equal(targ, torch.ones(4, 3))
    assert same(state, random_state())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_no_grad_and_inference_mode(mode):
    with mode():
        d = diagnose(nn.MSELoss(), torch.randn(4, 1), torch.randn(4))
        assert d.cause == "silent-broadcast"
        assert diagnose(nn.CrossEntropyLoss(), torch.randn(4, 3), torch.arange(4) % 3).ok


def test_a_pair_of_a_graph_keeps_its_gradient():
    x = torch.randn(4, 3, requires_grad=True)
    pred = x * 2
    targ = torch.arange(4) % 3
    loss = nn.CrossEntropyLoss()(pred, targ)
    diagnose(nn.CrossEntropyLoss(), pred, targ)
    loss.backward()
    assert x.grad is not None
    assert attempt(nn.CrossEntropyLoss(), pred, targ).error is None


class Recorder:
    """Keeps a list and a module with buffers; one method is a loss."""

    def __init__(self):
        self.seen = []
        self.norm = nn.BatchNorm1d(3)

    def __call__(self, pred, targ):
        self.seen.append(pred.shape)
        return (self.norm(pred) - targ).square().mean()

    loss = __call__


class Unpicklable(Recorder):
    """A Recorder that cannot be copied as a whole."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def of_part(pred, targ, crit):
    return crit(pred, targ)


LOSSES = {
    "object": lambda r: r,
    "method": lambda r: r.loss,
    "partial": lambda r: partial(of_part, crit=r),
    "partial of a method": lambda r: partial(r.loss),
    "partial over a method": lambda r: partial(of_part, crit=r.loss),
}


@pytest.mark.parametrize("cls", [Recorder, Unpicklable])
@pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)
def test_by_what_a_loss_keeps_in_an_object(make, cls):
    recorder = cls()
    loss = make(recorder)
    for targ in (torch.ones(4, 3), torch.ones(4)):
        diagnose(loss, torch.randn(4, 3), targ)
    assert recorder.seen == []
    assert recorder.norm.num_batches_tracked == 0
    assert torch.equal(recorder.norm.running_mean, torch.zeros(3))


def test_a_scripted_function_is_called_as_it_is():
    scripted = torch.jit.script(F.mse_loss)
    pred = torch.randn(4, 3)
    assert attempt(scripted, pred, pred).value == 0


@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_forward_hook"])
def test_from_a_hook_of_the_loss_itself(register):
    """A hook that calls `diagnose` sees each call once, not the trials of its own diagnosis."""
    loss = nn.BCEWithLogitsLoss()
    causes = []

    def check(module, args, *output):
        causes.append(diagnose(module, *args).cause)

    getattr(loss, register)(check)
    torch.manual_seed(0)
    logits = 3 * torch.randn(64, 3)
    targets = torch.randint(0, 2, (64, 3)).float()
    loss(logits, targets)
    loss(logits.sigmoid(), targets)
    assert causes == ["ok", "double-activation"]
