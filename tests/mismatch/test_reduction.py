"""A loss that is not reduced: what `backward()` needs, and what a loop may reduce later."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, MSELossFlat
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from multilabel_mnist.mismatch import diagnose

from .maker import STEADY, Maker


def of_each_item(pred, targ):
    return F.cross_entropy(pred, targ, reduction="none")


class Focal(nn.Module):
    """A loss of the user's with a setting of the usual name."""

    def __init__(self, reduction="none"):
        super().__init__()
        self.reduction = reduction

    def forward(self, pred, targ):
        each = F.binary_cross_entropy_with_logits(pred, targ, reduction="none")
        each = (1 - (-each).exp()) ** 2 * each
        return each.mean() if self.reduction == "mean" else each


class Weighted(nn.Module):
    """A loss of the user's without such a setting."""

    def forward(self, pred, targ):
        return ((pred - targ) ** 2).mean(1)


focal = partial(sigmoid_focal_loss, reduction="mean")
of_labels, of_targets, of_values = "labels", "targets", "values"
NOT_REDUCED = {
    "softmax": (nn.CrossEntropyLoss(reduction="none"), nn.CrossEntropyLoss(), of_labels),
    "softmax flat": (CrossEntropyLossFlat(reduction="none"), CrossEntropyLossFlat(), of_labels),
    "softmax function": (partial(F.cross_entropy, reduction="none"), F.cross_entropy, of_labels),
    "nll": (nn.NLLLoss(reduction="none"), nn.NLLLoss(), of_labels),
    "user's function": (of_each_item, F.cross_entropy, of_labels),
    "focal flat": (FocalLossFlat(reduction="none"), FocalLossFlat(), of_labels),
    "sigmoid": (nn.BCEWithLogitsLoss(reduction="none"), nn.BCEWithLogitsLoss(), of_targets),
    "sigmoid flat": (
        BCEWithLogitsLossFlat(reduction="none"),
        BCEWithLogitsLossFlat(),
        of_targets,
    ),
    "focal default": (sigmoid_focal_loss, focal, of_targets),
    "focal partial": (
        partial(sigmoid_focal_loss, alpha=0.5),
        partial(focal, alpha=0.5),
        of_targets,
    ),
    "user's module": (Focal(), Focal("mean"), of_targets),
    "distance": (nn.MSELoss(reduction="none"), nn.MSELoss(), of_values),
    "distance flat": (MSELossFlat(reduction="none"), MSELossFlat(), of_values),
    "user's module without setting": (Weighted(), nn.MSELoss(), of_values),
}


def tensors(m, form):
    """Return a prediction and a target for a loss of labels, targets or values."""
    n = m.integer(2, 20)
    c = m.integer(2, 12)
    pred = m.normal(n, c)
    if form == of_labels:
        return pred.log_softmax(1), m.labels(c, n)
    return pred, m.bits(n, c) if form == of_targets else m.normal(n, c)


@pytest.mark.parametrize("name", NOT_REDUCED)
@STEADY
@given(data=st.data())
def test_before_backward_a_loss_that_is_not_reduced_is_certain(name, data):
    loss, reduced, form = NOT_REDUCED[name]
    pred, targ = tensors(Maker(data.draw), form)
    d = diagnose(loss, pred, targ, backward=True)
    assert d.cause == "loss-not-reduced" and d.certain and not d.silent and not d.ok, d
    assert "backward()" in d.explanation
    kept = getattr(loss, "reduction", None)
    for fix in d.fixes:
        names = dict(loss_func=loss, pred=pred, targ=targ, nn=nn, F=F)
        exec(fix, names)
        value = names["loss_func"](pred, targ).as_subclass(torch.Tensor)
        torch.testing.assert_close(value, reduced(pred, targ).as_subclass(torch.Tensor))
        if kept is not None:
            loss.reduction = kept
        elif isinstance(loss, partial) and "reduction" in loss.keywords:
            loss.keywords["reduction"] = "none"
    assert diagnose(reduced, pred, targ, backward=True).ok


@pytest.mark.parametrize("name", NOT_REDUCED)
@STEADY
@given(data=st.data())
def test_without_backward_it_is_no_mismatch_but_said(name, data):
    loss, _, form = NOT_REDUCED[name]
    pred, targ = tensors(Maker(data.draw), form)
    d = diagnose(loss, pred, targ)
    assert d.ok and d.cause == "ok" and "is not reduced" in d.explanation, d


@pytest.mark.parametrize("shape", [(1, 1), (1,), (1, 1, 1)])
def test_a_single_number_is_reduced_whatever_its_shape(shape):
    loss = nn.MSELoss(reduction="none")
    assert diagnose(loss, torch.randn(shape), torch.randn(shape), backward=True).ok


def test_what_raises_an_error_before_is_told_first():
    loss = nn.CrossEntropyLoss(reduction="none")
    d = diagnose(loss, torch.randn(4, 3), torch.tensor([1, 2, 3, 1]), backward=True)
    assert d.cause == "label-out-of-range"
