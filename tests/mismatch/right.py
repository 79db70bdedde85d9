"""Strategies for pairs that fit, of every kind of loss."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from fastai.losses import (
    BCELossFlat,
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    FocalLoss,
    FocalLossFlat,
    L1LossFlat,
    LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat,
    MSELossFlat,
)
from fastai.metrics import accuracy, accuracy_multi, error_rate
from fastai.torch_core import TensorBase
from torch import nn

from .maker import Maker, Pair, computes, holds_weights, strategy

FLATTENED_DISTANCES = (MSELossFlat, L1LossFlat)


def with_ignored(m: Maker, targ, settings, n_classes):
    """Put ignored labels into a target, but not everywhere."""
    ignored = settings.get("ignore_index")
    if ignored is None:
        return targ
    if ignored == 0:
        targ.view(-1)[0] = n_classes - 1
    elif targ.numel() > 2:
        targ = torch.where(m.uniform(*targ.shape) < 0.2, ignored, targ)
        targ.view(-1)[0] = 0
    return targ


def without(settings, *names):
    return {name: value for name, value in settings.items() if name not in names}


def softmax_settings(m: Maker, n_classes):
    return m.pick(
        {},
        {},
        {"weight": m.uniform(n_classes) + 0.1},
        {"ignore_index": m.pick(-1, 255, -100, 0)},
        {"label_smoothing": 0.1},
        {"reduction": m.pick("none", "sum")},
    )


def softmax(m: Maker) -> Pair:
    n_classes = m.classes()
    places = m.places()
    pred = m.logits(m.batch(), n_classes, *places)
    targ = m.labels(n_classes, len(pred), *places)
    settings = softmax_settings(m, n_classes)
    axis = 1 if places else -1
    form = m.pick(
        "module", "function", "flat", "focal", "smoothing", "soft", "nll", "unbatched", "module"
    )
    if form == "soft":
        loss = nn.CrossEntropyLoss(**without(settings, "ignore_index"))
        return Pair(loss, pred, m.soft(*pred.shape))
    if form == "focal":
        return Pair(m.pick(FocalLoss(), FocalLossFlat(axis=axis)), pred, targ)
    if form == "smoothing":
        flat = LabelSmoothingCrossEntropyFlat(axis=axis)
        return Pair(m.pick(LabelSmoothingCrossEntropy(), flat), pred, targ)
    if form == "unbatched":
        return Pair(nn.CrossEntropyLoss(), m.logits(n_classes), m.integers(n_classes, 1)[0])
    if form == "flat":
        settings = without(settings, "label_smoothing", "reduction")
        if m.flip():
            axis = -1
            pred = pred.movedim(1, -1)
        loss = CrossEntropyLossFlat(axis=axis, **settings)
    elif form == "nll":
        pred = pred.log_softmax(1)
        settings = without(settings, "label_smoothing")
        loss = m.pick(nn.NLLLoss(**settings), partial(F.nll_loss, **settings))
    elif form == "function":
        loss = partial(F.cross_entropy, **settings)
    else:
        loss = nn.CrossEntropyLoss(**settings)
    return Pair(loss, pred, with_ignored(m, targ, settings, n_classes))


def weighted_sigmoid(m: Maker, pred, targ, n_classes) -> Pair:
    shape = (1,)
    if pred.ndim > 1 and pred.shape[1] == n_classes:
        shape = (n_classes, *[1] * (pred.ndim - 2))
    weight = m.uniform(*shape) + 0.5
    loss = m.pick(
        nn.BCEWithLogitsLoss(pos_weight=weight),
        nn.BCEWithLogitsLoss(weight=weight),
        partial(F.binary_cross_entropy_with_logits, pos_weight=weight),
    )
    return Pair(loss, pred, targ)


def flat_sigmoid(m: Maker, pred, targ) -> Pair:
    if m.flip():
        targ = targ.round().long()
    # A pos_weight keeps fastai's loss from flattening.
    settings = m.pick({}, {}, {"pos_weight": torch.tensor(3.0)})
    return Pair(BCEWithLogitsLossFlat(**settings), pred, targ)


def sigmoid(m: Maker) -> Pair:
    batch = m.batch()
    n_classes = m.pick(m.classes(), 1)
    pred = m.logits(batch, n_classes, *m.places())
    targ = m.pick(
        m.bits(*pred.shape),
        m.uniform(*pred.shape),
        m.bits(*pred.shape) * 0.8 + 0.1,
        m.hot(n_classes, batch, *pred.shape[2:]).float(),
    )
    if n_classes == 1 and m.flip():
        pred = pred.squeeze(1)
        targ = targ.squeeze(1)
    form = m.pick(
        "module", "weight", "function", "flat", "flat vector", "margin", "probs", "probs flat"
    )
    if form == "weight":
        return weighted_sigmoid(m, pred, targ, n_classes)
    if form == "flat":
        return flat_sigmoid(m, pred, targ)
    if form == "flat vector":
        bits = m.integers(2, batch)
        targ = m.pick(bits.float(), bits, bits[:, None].float(), bits.bool())
        return Pair(BCEWithLogitsLossFlat(), m.logits(batch, 1), targ)
    if form == "margin":
        loss = m.pick(nn.MultiLabelSoftMarginLoss(), F.multilabel_soft_margin_loss)
        bits = m.integers(2, batch, n_classes)
        return Pair(loss, m.logits(batch, n_classes), m.pick(bits, bits.float()))
    if form == "probs flat":
        return Pair(BCELossFlat(), pred.sigmoid(), targ)
    if form == "probs":
        loss = m.pick(nn.BCELoss(), F.binary_cross_entropy, nn.BCELoss(reduction="sum"))
        return Pair(loss, pred.sigmoid(), targ)
    if form == "function":
        return Pair(F.binary_cross_entropy_with_logits, pred, targ)
    return Pair(nn.BCEWithLogitsLoss(reduction=m.pick("mean", "none")), pred, targ)


def distance(m: Maker) -> Pair:
    batch = m.batch()
    rest = m.pick((), (1,), (m.classes(),), (m.pick(1, 3), m.side(), m.side()), (5, 4))
    pred = m.logits(batch, *rest)
    shape = pred.shape
    targ = m.pick(
        pred + m.normal(*shape),
        m.uniform(*shape),
        m.normal(*shape) * 50,
        m.bits(*shape),
        m.integers(9, *shape).float(),
    )
    loss = m.pick(
        nn.MSELoss(),
        nn.L1Loss(),
        nn.SmoothL1Loss(),
        nn.HuberLoss(),
        F.mse_loss,
        F.l1_loss,
        F.smooth_l1_loss,
        MSELossFlat(),
        L1LossFlat(),
        nn.MSELoss(reduction="none"),
    )
    if type(loss).__name__ == "BaseLoss" and m.flip():  # one of fastai's flattened distances
        vector = m.normal(batch)
        if m.flip():
            return Pair(loss, m.logits(batch, 1), vector)
        return Pair(loss, m.logits(batch), vector[:, None])
    if loss is not F.l1_loss and m.rarely():
        targ = targ.round().long()
    return Pair(loss, pred, targ)


def metric(m: Maker) -> Pair:
    batch = m.batch()
    n_classes = m.classes()
    places = m.places()
    if m.flip():
        bits = m.integers(2, batch, n_classes, *places)
        pred = m.logits(batch, n_classes, *places)
        return Pair(accuracy_multi, pred, m.pick(bits, bits.float()))
    func = m.pick(accuracy, error_rate)
    if places and m.flip():
        pred = m.logits(batch, n_classes, *places)
        return Pair(partial(func, axis=1), pred, m.integers(n_classes, batch, *places))
    targ = m.labels(n_classes, batch, *places)
    return Pair(func, m.logits(batch, *places, n_classes), m.pick(targ, targ[..., None]))


def leaves_out_nan(pred, targ):
    known = targ.isfinite()
    return F.binary_cross_entropy_with_logits(pred[known], targ[known])


def leaves_out_negative(pred, targ):
    losses = F.binary_cross_entropy_with_logits(pred, targ.clamp_min(0), reduction="none")
    known = targ >= 0
    return (losses * known).sum() / known.sum()


def squares_of_known(pred, targ):
    known = targ.isfinite()
    return ((pred - targ.nan_to_num(0, 0, 0)).square() * known).sum() / known.sum()


def left_out(m: Maker) -> Pair:
    """Return a pair with numbers that say nothing, and a loss that leaves them out."""
    batch = m.batch()
    n_classes = m.classes()
    form = m.pick("nan", "negative", "squares", "forbidden")
    if form == "forbidden":  # a class whose softmax is to be 0
        pred = m.logits(batch, n_classes)
        pred[:, -1] = -math.inf
        loss = m.pick(nn.CrossEntropyLoss(), F.cross_entropy, CrossEntropyLossFlat())
        return Pair(loss, pred, m.integers(n_classes - 1, batch))
    shape = (batch, n_classes, *m.places())
    unknown = m.uniform(*shape) < 0.3
    unknown.view(-1)[0] = False
    if form == "squares":
        targ = torch.where(unknown, m.pick(math.nan, math.inf, -math.inf), m.normal(*shape))
        return Pair(squares_of_known, m.logits(*shape), targ)
    if form == "negative":
        targ = torch.where(unknown, m.pick(-1.0, -100.0), m.bits(*shape))
        return Pair(leaves_out_negative, m.logits(*shape), targ)
    return Pair(leaves_out_nan, m.logits(*shape), torch.where(unknown, math.nan, m.bits(*shape)))


def disguised(m: Maker, pair: Pair) -> Pair:
    """Return the same pair in another form: memory layout, subclass, gradient, partial."""
    loss, pred, targ = pair.args
    if pred.ndim > 1 and m.rarely():
        pred = pred.transpose(0, -1).contiguous().transpose(0, -1)
    if targ.ndim > 1 and m.rarely():
        targ = targ.repeat_interleave(2, 0)[::2]
    if isinstance(loss, partial):
        pass  # one partial is enough, and torch's functions take no subclass
    elif m.rarely():
        loss = partial(loss)
    elif m.rarely():
        pred = pred.as_subclass(TensorBase)
        targ = targ.as_subclass(TensorBase)
    if pred.is_floating_point() and m.rarely():
        pred = pred.detach().requires_grad_()
    return Pair(loss, pred, targ)


def cast(tensor, dtype):
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def with_another_dtype(m: Maker, pair: Pair) -> Pair:
    """Return the pair in another floating point type, or with labels in a smaller one."""
    loss, pred, targ = pair.args
    if m.rarely():
        dtype = m.pick(torch.float64, torch.float16, torch.bfloat16)
        pred = cast(pred, dtype)
        targ = cast(targ, dtype)
        allowed = not holds_weights(loss)
    elif m.flip() and not targ.is_floating_point():
        low = int(targ.min())
        high = int(targ.max())
        dtypes = [torch.int32, torch.int16, torch.uint8]
        if high < 2:
            dtypes.append(torch.bool)
        targ = targ.to(m.pick(*dtypes))
        allowed = low >= 0 and high < 127
    else:
        return pair
    if allowed and computes(loss, pred, targ):
        return Pair(loss, pred, targ)
    return pair


def right_pairs(make):
    return strategy(lambda m: with_another_dtype(m, disguised(m, make(m))))


RIGHT = {
    make.__name__: right_pairs(make) for make in (softmax, sigmoid, distance, metric, left_out)
}
