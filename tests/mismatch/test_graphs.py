"""Losses that differentiate through the model: its graph is not in the copies they are tried on."""

import pytest
import torch
from torch import nn

from multilabel_mnist.mismatch import diagnose

NETWORKS = {
    "linear": lambda: nn.Linear(3, 1),
    "tanh": lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)),
    "double": lambda: nn.Linear(3, 1).double(),
}
all_networks = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def gradient(outputs, x):
    """Return the gradient of the sum of the outputs."""
    (g,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
    return g


def inputs(net):
    """Return a batch in the dtype of the network."""
    dtype = next(net.parameters()).dtype
    return torch.randn(5, 3, dtype=dtype, requires_grad=True)


def pinn(pred, targ):
    u, x = pred
    return (gradient(u, x).sum(1, keepdim=True) - targ).square().mean()


@all_networks
def test_a_gradient_penalty_on_the_inputs_is_right(make):
    net = make()
    x = inputs(net)

    def penalty(pred, targ):
        return (gradient(pred, x).norm(dim=1) - 1).square().mean() + (pred - targ).mean()

    pred = net(x)
    d = diagnose(penalty, pred, torch.zeros_like(pred))
    assert d.ok and d.certain and not d.silent and d.message is None, d
    assert "could not be tried on copies" in d.explanation
    penalty(pred, torch.zeros_like(pred)).backward()  # the graph is still there


@all_networks
@pytest.mark.parametrize("pack", [tuple, list, lambda p: dict(zip("ux", p, strict=True))])
def test_outputs_with_their_inputs_are_right(make, pack):
    net = make()
    x = inputs(net)
    u = net(x)
    loss = pinn if pack in (tuple, list) else lambda pred, targ: pinn(pred.values(), targ)
    d = diagnose(loss, pack((u, x)), torch.zeros_like(u))
    assert d.ok and "could not be tried on copies" in d.explanation, d


def test_a_loss_of_outputs_that_have_no_graph_fails():
    d = diagnose(lambda p, t: gradient(p, t), torch.randn(5, 1), torch.zeros(5, 1))
    assert d.cause == "unexplained" and "does not require grad" in d.message
    x = torch.randn(5, 3)  # requires no gradient, and so the call fails in the user's code as well
    d = diagnose(lambda p, t: gradient(p, x).sum(), nn.Linear(3, 1)(x), torch.zeros(5, 1))
    assert d.cause == "unexplained"
