"""Values that are right are never called wrong, and marks and signs are read in every dtype."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from multilabel_mnist.mismatch import diagnose

N, C = 16, 5
LABELS = torch.arange(N) % C
SHAPES = [(N, C), (N, C, 3), (N, C, 4, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def fix_first(d, loss, pred, targ):
    """Run the first fix, and return the names that it leaves."""
    names = dict(torch=torch, nn=nn, F=F, loss_func=loss, pred=pred, targ=targ)
    exec(d.fixes[0], names)
    return names


def labels_for(shape):
    return torch.randint(0, C, (N, *shape[2:]))


def by_advantage(log_probs):
    return log_probs * torch.randn(N, *[1] * (log_probs.ndim - 1))


def focal(log_probs):
    return (1 - log_probs.exp()) ** 2 * log_probs


def binary(log_probs):
    return F.logsigmoid(log_probs + 2)


WEIGHTED = [by_advantage, focal, binary]
NLL = [nn.NLLLoss(), F.nll_loss, nn.NLLLoss(ignore_index=-1), nn.NLLLoss(weight=torch.ones(C))]


@every_shape
@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("loss", NLL)
def test_weighted_log_probabilities_are_right(loss, weighted, shape):
    pred = weighted(torch.randn(shape).log_softmax(1))
    d = diagnose(loss, pred, labels_for(shape))
    assert d.ok, d


@every_shape
@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.float32])
def test_weighted_log_probabilities_hide_no_other_cause(weighted, shape, dtype):
    pred = weighted(torch.randn(shape).log_softmax(1))
    assert diagnose(F.nll_loss, pred, labels_for(shape).to(dtype)).cause == "target-dtype"


@every_shape
@pytest.mark.parametrize("activation", [torch.clone, torch.relu, torch.sigmoid, torch.exp])
def test_raw_outputs_and_positive_ones_are_no_log_probabilities(activation, shape):
    pred = activation(torch.randn(shape) * 3)
    assert diagnose(nn.NLLLoss(), pred, labels_for(shape)).cause == "missing-activation"


@every_shape
@pytest.mark.parametrize("axis", [0, -1])
def test_log_probabilities_along_another_axis_are_told(axis, shape):
    pred = torch.randn(shape).log_softmax(axis)
    right = axis % len(shape) == 1
    cause = "ok" if right else "missing-activation"
    assert diagnose(nn.NLLLoss(), pred, labels_for(shape)).cause == cause


def own_bce(pred, targ):
    return -(targ * F.logsigmoid(pred) + (1 - targ) * F.logsigmoid(-pred)).mean()


def own_focal(pred, targ):
    each = F.binary_cross_entropy_with_logits(pred, targ, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


VALUE_LOSSES = {
    "torch": nn.BCEWithLogitsLoss(),
    "fastai": BCEWithLogitsLossFlat(),
    "focal": sigmoid_focal_loss,
    "own": own_bce,
    "own focal": own_focal,
    "divergence": nn.KLDivLoss(reduction="batchmean"),
    "soft targets": SoftTargetCrossEntropy(),
    "no background": nn.BCEWithLogitsLoss(weight=torch.tensor([0.0, 1, 1, 1, 1])),
}
VOID_SHAPES = [((N, C), (N,)), ((N, C), (N, 1)), ((N, C, 4, 4), (N, 4, 4))]
VOID_CASES = [
    pytest.param(loss, *shapes, id=f"{name}-{shapes[1]}")
    for name, loss in VALUE_LOSSES.items()
    for shapes in VOID_SHAPES
    if "own" not in name or shapes[1] != (N, 1)  # that broadcasts, and nothing tells it
    if name != "no background" or len(shapes[0]) == 2
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("loss, shape, labels_shape", VOID_CASES)
def test_a_void_label_is_told_in_every_dtype(loss, dtype, shape, labels_shape):
    targ = torch.randint(0, C, labels_shape).to(dtype)
    targ[::4] = 255
    pred = torch.randn(shape)
    d = diagnose(loss, pred, targ)
    assert d.cause == "label-out-of-range" and "255 marks what does not count" in d.explanation
    names = fix_first(d, loss, pred, targ)
    assert names["targ"].shape == names["pred"].shape and names["targ"].max() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_outputs", [C, 120, 300])
def test_quantities_that_reach_255_are_no_labels(n_outputs, dtype):
    pixels = torch.linspace(0, 255, N).round().to(dtype)
    d = diagnose(nn.BCEWithLogitsLoss(), torch.randn(N, n_outputs), pixels)
    assert d.cause != "label-out-of-range"


def own_gather(pred, targ):
    return -pred.log_softmax(1).gather(1, targ.unsqueeze(1)).mean()


def own_one_hot(pred, targ):
    return -(F.one_hot(targ, C).movedim(-1, 1) * pred.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("mark", [-100, -1, 255])
@pytest.mark.parametrize(
    "loss, shape",
    [
        (LabelSmoothingCrossEntropy(), (N, C)),
        (own_gather, (N, C)),
        (own_gather, (N, C, 4, 4)),
        (own_one_hot, (N, C)),
        (own_one_hot, (N, C, 3)),
    ],
)
def test_a_mark_beside_a_loss_that_ignores_none_is_left_out(loss, shape, mark):
    pred, targ = torch.randn(shape), labels_for(shape)
    targ[::4] = mark
    d = diagnose(loss, pred, targ)
    assert d.cause == "label-out-of-range" and d.certain
    names = fix_first(d, loss, pred, targ)
    known = targ != mark
    assert torch.equal(names["targ"], targ[known])
    assert torch.equal(names["pred"], pred.movedim(1, -1)[known])


@every_shape
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.nll_loss, nn.CrossEntropyLoss])
def test_a_mark_that_the_loss_ignores_is_right(loss, shape):
    loss = loss(label_smoothing=0.1) if loss is nn.CrossEntropyLoss else loss
    targ = labels_for(shape)
    targ[::4] = -100
    pred = torch.randn(shape).log_softmax(1)
    assert diagnose(loss, pred, targ).cause != "label-out-of-range"
    assert diagnose(loss, pred, targ.int()).cause != "label-out-of-range"


def own_hinge(pred, targ):
    return (1 - targ * pred).clamp_min(0).mean()


HINGES = [nn.SoftMarginLoss(), F.soft_margin_loss, nn.HingeEmbeddingLoss(), own_hinge]


@every_shape
@pytest.mark.parametrize("loss", HINGES)
def test_a_loss_that_needs_minus_1_is_offered_minus_1(loss, shape):
    pred, targ = torch.randn(shape), labels_for(shape)
    if targ.ndim > 1 or loss is own_hinge:
        targ = targ.float()
    d = diagnose(loss, pred, targ)
    assert d.cause == "class-indices-for-bce", d
    right = F.one_hot(targ.long(), C).movedim(-1, 1) * 2.0 - 1
    assert torch.equal(fix_first(d, loss, pred, targ)["targ"], right)


@pytest.mark.parametrize("loss", VALUE_LOSSES.values(), ids=VALUE_LOSSES.keys())
def test_a_loss_that_takes_0_is_offered_0(loss):
    pred = torch.randn(N, C)
    d = diagnose(loss, pred, LABELS)
    assert "* 2 - 1" not in d.fixes[0]
    assert torch.equal(fix_first(d, loss, pred, LABELS)["targ"].float(), F.one_hot(LABELS, C) * 1.0)


def with_log(pack, number, spoil, pred, targ):
    """A loss beside a number that is logged; either may be NaN or infinite."""
    loss, logged = F.cross_entropy(pred, targ), torch.tensor(0.5)
    if spoil == "loss":
        return pack(loss * number, logged)
    return pack(loss, logged * number)


PACKS = {
    "dict": lambda loss, logged: {"loss": loss, "iou_9": logged},
    "loss last": lambda loss, logged: {"iou_9": logged, "loss": loss},
    "tuple": lambda loss, logged: (loss, {"perplexity": logged}),
    "numbers": lambda loss, logged: (loss, logged.item()),
    "plain numbers": lambda loss, logged: {"loss": loss.item(), "iou_9": logged.item()},
    "list": lambda loss, logged: [loss, logged, logged],
}


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())
@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("spoil", ["loss", "log"])
def test_only_the_loss_has_to_be_finite_not_what_is_logged(pack, number, spoil):
    d = diagnose(partial(with_log, pack, number, spoil), torch.randn(N, C), LABELS)
    assert d.cause == ("loss-not-finite" if spoil == "loss" else "ok")


def quotient(pred, targ):
    return (pred / targ).mean()


def own_cross_entropy(pred, targ):
    return -(pred.log() * targ).mean()


@every_shape
@pytest.mark.parametrize("loss", [quotient, own_cross_entropy])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_on_the_meta_device_no_loss_is_called_infinite(loss, shape, dtype):
    pred, targ = torch.rand(2, *shape, dtype=dtype, device="meta")
    assert diagnose(loss, pred, targ).ok
