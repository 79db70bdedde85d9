"""Predictions and targets on a GPU, on two devices, or on none."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from torch import nn

from multilabel_mnist.labels import BCEOneHotLossFlat
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


# Class weights elsewhere: `meta`, whose tensors have no numbers, stands for the other device.


class Own(nn.Module):
    """A loss of the user's: a registered tensor, a plain one, or one in a part."""

    def __init__(self, weight, where):
        super().__init__()
        self.where = where
        if where == "buffer":
            self.register_buffer("weight", weight)
        elif where == "parameter":
            self.weight = nn.Parameter(weight)
        elif where == "attribute":
            self.weight = weight
        else:
            self.part = nn.BCEWithLogitsLoss(pos_weight=weight)

    def forward(self, pred, targ):
        if self.where == "part":
            return self.part(pred, targ)
        each = F.binary_cross_entropy_with_logits(pred, targ, reduction="none")
        return (each * self.weight).mean()


class Plain:
    """A loss that is no module."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, pred, targ):
        return F.cross_entropy(pred, targ, weight=self.weight)


class Careful(Own):
    """A loss that brings its weights to the prediction."""

    def forward(self, pred, targ):
        weight = self.weight.to(pred.device)
        return F.cross_entropy(pred, targ, weight=weight)


class Holding:
    """An object of the user's that holds a loss, and has a method that is a loss."""

    def __init__(self, part):
        self.part = part

    def __call__(self, pred, targ):
        return self.part(pred, targ)

    loss = __call__


class HoldingModule(nn.Module):
    """A module that holds a loss, which may be no module."""

    def __init__(self, part):
        super().__init__()
        self.held = part

    def forward(self, pred, targ):
        return self.held(pred, targ)


def reading_a_loss(weight):
    part = nn.CrossEntropyLoss(weight=weight)

    def loss(pred, targ):
        return part(pred, targ)

    return loss


def reading_a_variable(weight):
    def loss(pred, targ):
        return F.cross_entropy(pred, targ, weight=weight)

    return loss


def calling(pred, targ, part):
    return part(pred, targ)


OF_LABELS = {
    "module": lambda w: nn.CrossEntropyLoss(weight=w),
    "nll": lambda w: nn.NLLLoss(weight=w),
    "flat": lambda w: CrossEntropyLossFlat(weight=w),
    "partial": lambda w: partial(F.cross_entropy, weight=w),
    "plain": Plain,
    "variable": reading_a_variable,
    "loss in a variable": reading_a_loss,
    "module in an object": lambda w: Holding(nn.CrossEntropyLoss(weight=w)),
    "flat in an object": lambda w: Holding(CrossEntropyLossFlat(weight=w)),
    "flat in a module": lambda w: HoldingModule(CrossEntropyLossFlat(weight=w)),
    "object in a module": lambda w: HoldingModule(Holding(Plain(w))),
    "method": lambda w: Holding(nn.CrossEntropyLoss(weight=w)).loss,
    "loss in a partial": lambda w: partial(calling, part=CrossEntropyLossFlat(weight=w)),
}
OF_TARGETS = {
    "weight": lambda w: nn.BCEWithLogitsLoss(weight=w),
    "pos_weight": lambda w: nn.BCEWithLogitsLoss(pos_weight=w),
    "flat pos_weight": lambda w: BCEWithLogitsLossFlat(pos_weight=w),
    "partial": lambda w: partial(F.binary_cross_entropy_with_logits, pos_weight=w),
    "buffer": lambda w: Own(w, "buffer"),
    "parameter": lambda w: Own(w, "parameter"),
    "attribute": lambda w: Own(w, "attribute"),
    "part": lambda w: Own(w, "part"),
}
WEIGHTED = [
    *[pytest.param(make, (7,), id=f"labels: {name}") for name, make in OF_LABELS.items()],
    *[pytest.param(make, (7, 3), id=f"targets: {name}") for name, make in OF_TARGETS.items()],
]


def pair_on(device, targ_shape):
    """Return log-probabilities with targets of 3 columns, or with labels."""
    pred = torch.randn(7, 3).log_softmax(1)
    dtype = torch.float if targ_shape[1:] == (3,) else torch.long
    return pred.to(device), torch.zeros(targ_shape, dtype=dtype, device=device)


@pytest.mark.parametrize("make, targ_shape", WEIGHTED)
@pytest.mark.parametrize("here, there", [("meta", "cpu"), ("cpu", "meta")])
def test_class_weights_on_another_device(make, targ_shape, here, there):
    pred, targ = pair_on(here, targ_shape)
    loss = make(torch.ones(3, device=there))
    with pytest.raises(RuntimeError, match="device"):
        loss(pred, targ)
    d = diagnose(loss, pred, targ)
    assert d.cause == "other-device" and d.certain and not d.silent, d
    assert f"on {there}" in d.explanation and f"on {here}" in d.explanation
    assert d.fixes and "device" in d.message


@pytest.mark.parametrize("make, targ_shape", WEIGHTED)
def test_the_fix_moves_class_weights(make, targ_shape):
    pred, targ = pair_on("meta", targ_shape)
    loss = make(torch.ones(3))
    part = nn.CrossEntropyLoss(weight=torch.ones(3))
    names = dict(loss_func=loss, pred=pred, targ=targ, weight=torch.ones(3), part=part, nn=nn)
    exec(diagnose(loss, pred, targ).fixes[0], names)
    if make is reading_a_loss:
        assert names["part"].weight.is_meta
        return
    if make is reading_a_variable:
        assert names["weight"].is_meta  # the variable that the function reads, in your own code
    else:
        assert names["loss_func"](pred, targ).is_meta


@pytest.mark.parametrize("make, targ_shape", WEIGHTED)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_class_weights_on_the_same_device(make, targ_shape, device):
    if make in (reading_a_variable, reading_a_loss) and device == "meta":
        return  # a variable without numbers has no copy with numbers
    pred, targ = pair_on(device, targ_shape)
    assert diagnose(make(torch.ones(3, device=device)), pred, targ).ok


@pytest.mark.parametrize("where", ["buffer", "attribute"])
def test_a_loss_that_brings_its_weights_to_the_prediction_is_right(where):
    assert diagnose(Careful(torch.ones(3), where), *pair_on("meta", (7,))).ok


@pytest.mark.parametrize("make", OF_TARGETS.values(), ids=OF_TARGETS)
def test_a_single_number_may_stay_on_the_cpu(make):
    assert diagnose(make(torch.tensor(2.0)), *pair_on("meta", (7, 3))).ok


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 3)])
def test_our_own_loss_with_weights_on_another_device(shape):
    loss = BCEOneHotLossFlat(pos_weight=torch.ones(3))
    loss.func.to("meta")
    d = diagnose(loss, *pair_on("cpu", shape))
    assert d.cause == "other-device" and d.fixes == ("loss_func.func.to(pred.device)",)


def test_what_else_is_wrong_is_told_before_the_device():
    pred, _ = pair_on("meta", (7,))
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    assert diagnose(loss, pred, torch.zeros(5, dtype=torch.long, device="meta")).cause == "rows"
    labels = torch.tensor([0, 1, 9])
    on_meta = nn.CrossEntropyLoss(weight=torch.ones(3, device="meta"))
    assert diagnose(on_meta, torch.randn(3, 3), labels).cause == "label-out-of-range"
