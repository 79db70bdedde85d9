"""Strategies for pairs that do not fit: a function for each kind, entered under its cause."""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from fastai.losses import (
    BCELossFlat,
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    FocalLossFlat,
    L1LossFlat,
    LabelSmoothingCrossEntropyFlat,
    MSELossFlat,
)
from fastai.metrics import accuracy, accuracy_multi, error_rate
from hypothesis import strategies as st
from timm.loss import AsymmetricLossMultiLabel, SoftTargetCrossEntropy
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from .maker import Maker, Pair, raises, strategy


@dataclass(frozen=True)
class Wrong:
    """One kind of wrong pair."""

    cause: str
    pairs: st.SearchStrategy[Pair]


WRONG: dict[str, Wrong] = {}


def wrong(cause):
    """Enter a function that makes wrong pairs under their cause."""

    def enter(make):
        WRONG[make.__name__] = Wrong(cause, strategy(make))
        return make

    return enter


# Losses


def sigmoid_loss(m: Maker):
    return m.pick(
        nn.BCEWithLogitsLoss(),
        F.binary_cross_entropy_with_logits,
        BCEWithLogitsLossFlat(),
        partial(nn.BCEWithLogitsLoss()),
    )


def plain_sigmoid_loss(m: Maker):
    """Return a loss that does not flatten."""
    return m.pick(
        nn.BCEWithLogitsLoss(),
        F.binary_cross_entropy_with_logits,
        partial(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(2.0)),
    )


def softmax_loss(m: Maker, axis=-1):
    return m.pick(
        nn.CrossEntropyLoss(),
        F.cross_entropy,
        partial(F.cross_entropy, ignore_index=-100),
        CrossEntropyLossFlat(axis=axis),
    )


def plain_softmax_loss(m: Maker):
    """Return a loss that does not flatten."""
    smoothed = partial(F.cross_entropy, label_smoothing=0.1)
    return m.pick(nn.CrossEntropyLoss(), F.cross_entropy, smoothed)


def distance(m: Maker):
    return m.pick(
        nn.MSELoss(),
        nn.L1Loss(),
        nn.SmoothL1Loss(),
        F.mse_loss,
        F.l1_loss,
        F.smooth_l1_loss,
        partial(F.mse_loss),
    )


def map_axes(m: Maker):
    """Return the axes behind the classes: mostly none, or those of an image."""
    return m.pick((), (), (m.side(), m.side()))


def height_and_width(m: Maker):
    """Return two sides that differ, so that no two axes can be taken for each other."""
    height = m.side()
    return height, m.other(height, 6, 15)


# Labels for a loss that expects one number per output


@wrong("class-indices-for-bce")
def labels_for_a_sigmoid(m):
    n = m.many()
    c = m.integer(3, 40)
    targ = m.labels(c, n)
    targ[0] = c - 1  # a label that is not 0 or 1
    form = m.pick("logits", "probs", "margin")
    if form == "margin" and n != c:  # n labels beside n outputs are broadcast: see below
        loss = m.pick(nn.MultiLabelSoftMarginLoss(), F.multilabel_soft_margin_loss)
        return Pair(loss, m.logits(n, c), targ)
    targ = m.pick(targ, targ[:, None], targ.float(), targ.int())
    if form == "probs":
        probs_loss = m.pick(
            nn.BCELoss(), F.binary_cross_entropy, partial(F.binary_cross_entropy), BCELossFlat()
        )
        return Pair(probs_loss, m.logits(n, c).sigmoid(), targ)
    return Pair(sigmoid_loss(m), m.logits(n, c), targ)


@wrong("class-indices-for-bce")
def two_classes_for_a_sigmoid(m):
    n = m.many()
    targ = m.integers(2, n)
    return Pair(sigmoid_loss(m), m.logits(n, 2), m.pick(targ, targ.float()))


@wrong("class-indices-for-bce")
def mask_of_indices_for_a_sigmoid(m):
    n = m.pick(1, 2, 4)
    c = m.pick(2, 3, 5, 12)
    height, width = height_and_width(m)
    targ = m.labels(c, n, height, width)
    return Pair(sigmoid_loss(m), m.logits(n, c, height, width), m.pick(targ, targ[:, None]))


@wrong("class-indices-for-bce")
def labels_for_a_distance(m):
    c = m.integer(3, 12)
    n = m.other(c, 4, 20)
    targ = m.integers(c, n)
    targ[0] = c - 1
    return Pair(m.pick(MSELossFlat(), nn.MSELoss(), nn.L1Loss()), m.logits(n, c), targ)


# One-hot and multi-hot targets for a loss that expects labels


@wrong("one-hot-for-softmax")
def whole_one_hot_for_a_softmax(m):
    n = m.many()
    c = m.pick(2, 3, 5, 10, 28)
    places = m.pick((), (), (m.side(), m.side()), (9,))
    targ = m.hot(c, n, *places)
    losses = [nn.CrossEntropyLoss(), F.cross_entropy]
    if not places:
        losses.append(nn.NLLLoss())
    pred = m.logits(n, c, *places).log_softmax(1)
    return Pair(m.pick(*losses), pred, m.pick(targ, targ.int(), targ.bool()))


@wrong("one-hot-for-softmax")
def one_hot_for_a_flattened_softmax(m):
    n = m.many()
    c = m.integer(2, 12)
    targ = m.hot(c, n)
    if m.flip():
        return Pair(nn.NLLLoss(), m.logits(n, c).log_softmax(1), targ.float())
    loss = m.pick(CrossEntropyLossFlat(), LabelSmoothingCrossEntropyFlat(), FocalLossFlat())
    return Pair(loss, m.logits(n, c), m.pick(targ, targ.float()))


@wrong("one-hot-for-softmax")
def one_hot_mask_with_classes_last(m):
    n = m.pick(1, 2, 4)
    c = m.pick(3, 5, 9)
    height = m.pick(8, 16)
    width = m.pick(6, 10)
    targ = m.hot(c, n, height, width).movedim(1, -1)
    return Pair(nn.CrossEntropyLoss(), m.logits(n, c, height, width), m.pick(targ, targ.float()))


def several_ones(m, n, c):
    """Return multi-hot targets, with two ones in the first row and not in the same places."""
    targ = m.bits(n, c)
    targ[0] = 0
    targ[0, :2] = 1
    targ[-1] = 0
    targ[-1, 1:3] = 1
    return targ


@wrong("multi-hot-for-softmax")
def several_for_a_softmax(m):
    n = m.many()
    c = m.integer(3, 28)
    return Pair(plain_softmax_loss(m), m.logits(n, c), several_ones(m, n, c))


@wrong("multi-hot-for-softmax")
def whole_several_for_a_softmax(m):
    n = m.many()
    c = m.integer(3, 28)
    return Pair(softmax_loss(m), m.logits(n, c), several_ones(m, n, c).long())


# Another number of outputs


@wrong("n-outputs")
def other_columns(m):
    n = m.many()
    loss = m.pick(
        nn.BCEWithLogitsLoss(),
        F.binary_cross_entropy_with_logits,
        BCEWithLogitsLossFlat(),
        nn.MultiLabelSoftMarginLoss(),
    )
    # This loss accepts one output, and broadcasts it.
    fewest = 2 if isinstance(loss, nn.MultiLabelSoftMarginLoss) else 1
    c = m.integer(fewest, 12)
    return Pair(loss, m.logits(n, c), m.bits(n, m.other(c, 2, 21)))


@wrong("n-outputs")
def other_columns_of_quantities(m):
    n = m.many()
    c = m.integer(2, 12)
    loss = m.pick(nn.MSELoss(), nn.L1Loss(), F.smooth_l1_loss, MSELossFlat())
    return Pair(loss, m.logits(n, c), m.normal(n, m.other(c, 2, 14)))


@wrong("n-outputs")
def one_hot_of_more_classes(m):
    c = m.integer(2, 10)
    k = c + m.integer(1, 3)
    n = m.integer(k, 64)  # room for every class
    targ = F.one_hot(m.labels(k, n), k).float()
    return Pair(softmax_loss(m), m.logits(n, c), targ)


# An axis too many, or too few


@wrong("trailing-axis")
def column_or_vector(m):
    n = m.many()
    logits = m.logits(n)
    bits = m.bits(n)
    loss = plain_sigmoid_loss(m)
    pair = m.pick(
        Pair(loss, logits[:, None], bits),
        Pair(loss, logits, bits[:, None]),
        Pair(nn.BCELoss(), logits[:, None].sigmoid(), bits),
        Pair(nn.BCELoss(), logits.sigmoid(), bits[:, None]),
    )
    if m.rarely():
        return Pair(pair.loss, pair.pred, pair.targ.long())
    return pair


@wrong("trailing-axis")
def map_without_channel(m):
    logits = m.logits(m.integer(2, 4), m.side(), m.side())
    bits = m.bits(*logits.shape)
    pred, targ = m.pick(
        (logits[:, None], bits), (logits, bits[:, None]), (logits[:, None], bits[..., None])
    )
    return Pair(plain_sigmoid_loss(m), pred, targ)


@wrong("trailing-axis")
def pooled_but_not_flattened(m):
    n = m.many()
    c = m.integer(2, 20)
    return Pair(plain_softmax_loss(m), m.logits(n, c, 1, 1), m.labels(c, n))


@wrong("extra-target-axis")
def column_of_labels(m):
    n = m.many()
    c = m.integer(2, 20)
    return Pair(plain_softmax_loss(m), m.logits(n, c), m.labels(c, n, 1))


@wrong("extra-target-axis")
def mask_with_channel(m):
    n = m.pick(1, 2, 4)
    c = m.pick(2, 3, 5, 21)
    mask = m.labels(c, n, m.side(), m.side())
    with_channel = mask[:, None]
    targ = m.pick(with_channel, mask[..., None], with_channel.int(), with_channel.float())
    return Pair(plain_softmax_loss(m), m.logits(n, c, *mask.shape[1:]), targ)


@wrong("extra-target-axis")
def several_labels_per_row(m):
    n = m.many()
    c = m.integer(5, 10)
    return Pair(plain_softmax_loss(m), m.logits(n, c), m.labels(c, n, m.other(c, 2, 11)))


@wrong("mask-channels")
def color_mask(m):
    n = m.pick(1, 2, 4)
    height = m.side()
    width = m.side()
    channels = m.pick(3, 3, 4)
    shape = (n, channels, height, width)
    targ = m.pick(
        m.bits(*shape),
        m.integers(256, *shape),
        torch.zeros(shape),
        m.bits(n, 1, height, width).expand(shape) * 255,
        m.bits(n, height, width, channels),
    )
    loss = m.pick(plain_sigmoid_loss(m), BCEWithLogitsLossFlat())
    return Pair(loss, m.logits(n, 1, height, width), targ)


@wrong("mask-channels")
def color_mask_for_a_softmax(m):
    n = m.pick(1, 2, 4)
    c = m.pick(2, 5, 12)
    height = m.side()
    width = m.side()
    mask = m.integers(c, n, height, width)
    if m.flip():
        targ = mask[:, None].expand(n, 3, height, width)
    else:
        palette = m.integers(256, c, 3)
        targ = palette[mask].movedim(-1, 1)
    loss = m.pick(nn.CrossEntropyLoss(), F.cross_entropy)
    return Pair(loss, m.logits(n, c, height, width), m.pick(targ, targ.movedim(1, -1)))


def palette_of(m, n_colors):
    """Return colors as bytes, three or four numbers each, no two alike."""
    channels = m.pick(3, 3, 4)
    colors = m.integers(256, n_colors, channels)
    colors[:, 0] = torch.randperm(256, generator=m.generator)[:n_colors]
    return colors


@wrong("mask-channels")
def color_mask_for_several_maps(m):
    n = m.pick(1, 2, 4)
    c = m.pick(2, 5, 12)
    height = m.integer(7, 16)
    width = m.integer(7, 16)
    colors = palette_of(m, m.pick(c, c, 2))[m.labels(2, n, height, width)]
    colors = m.pick(colors.byte(), colors, colors.float(), colors / 255)
    colors = m.pick(colors, colors.movedim(-1, 1))
    pred = m.logits(n, c, height, width)
    probs_loss = m.pick(nn.BCELoss(), F.binary_cross_entropy, BCELossFlat())
    return m.pick(
        Pair(plain_sigmoid_loss(m), pred, colors),
        Pair(m.pick(BCEWithLogitsLossFlat(), dice, own_sigmoid_focal), pred, colors),
        Pair(probs_loss, pred.sigmoid(), colors),
    )


@wrong("mask-channels")
def color_mask_for_three_maps(m):
    """As many channels as maps, but along the last axis."""
    n = m.pick(1, 2, 4)
    height = m.integer(7, 16)
    width = m.integer(7, 16)
    colors = m.integers(254, 3, 3) + 1
    targ = colors[m.labels(3, n, height, width)]
    pred = m.logits(n, 3, height, width)
    return Pair(m.pick(plain_sigmoid_loss(m), dice), pred, m.pick(targ.byte(), targ.float()))


def dice(pred, targ):
    probs = pred.sigmoid()
    return 1 - 2 * (probs * targ).sum() / (probs + targ).sum()


def own_sigmoid_focal(pred, targ):
    probs = pred.sigmoid()
    misses = probs * (1 - targ) + (1 - probs) * targ
    each = F.binary_cross_entropy_with_logits(pred, targ.float(), reduction="none")
    return (each * misses**2).mean()


# Axes in another order


@wrong("class-axis")
def classes_along_any_axis(m):
    c = m.pick(21, 50)
    sizes = m.pick((4, 6), (4, 6, 7), (2, 9, 5), (3, 2, 5, 6))
    axis = m.integer(0, len(sizes))
    pred = m.logits(*sizes[:axis], c, *sizes[axis:])
    targ = m.labels(c, *sizes)
    targ.view(-1)[0] = c - 1
    if axis == 1:  # where the classes belong
        return Pair(CrossEntropyLossFlat(), pred, targ)
    if m.flip():
        return Pair(nn.NLLLoss(), pred.log_softmax(axis), targ)
    return Pair(m.pick(plain_softmax_loss(m), own_focal), pred, targ)


@wrong("class-axis")
def classes_elsewhere_and_labels_in_one_list(m):
    c = m.pick(21, 50)
    sizes = m.pick((4, 6), (4, 6, 7), (2, 9, 5))
    axis = m.pick(*(n for n in range(len(sizes) + 1) if n != 1))
    pred = m.logits(*sizes[:axis], c, *sizes[axis:])
    targ = m.labels(c, torch.Size(sizes).numel())
    targ[0] = c - 1
    return Pair(m.pick(plain_softmax_loss(m), own_focal), pred, targ)


def own_focal(pred, targ):
    each = F.cross_entropy(pred, targ, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


# Folded by a view with another number of classes


@wrong("folded-classes")
def too_few_classes_in_a_view(m):
    n = m.pick(9, 16, 32, 60)
    c = m.pick(20, 40, 100)
    old = m.pick(1, 2, 4, 5)
    targ = m.labels(c, n)
    targ[0] = c - 1
    pred = m.logits(n, c).reshape(-1, old)
    targ = m.pick(targ, targ, targ[:, None], targ.byte())
    return Pair(m.pick(softmax_loss(m), own_focal), pred, targ)


@wrong("folded-classes")
def too_many_classes_in_a_view(m):
    n = m.pick(12, 24, 60)
    c = m.pick(2, 5, 10)
    targ = m.labels(c, n)
    return Pair(m.pick(softmax_loss(m), own_focal), m.logits(n, c).reshape(-1, 2 * c), targ)


@wrong("folded-classes")
def targets_of_other_rows(m):
    n = m.pick(7, 9, 33)
    c = m.pick(4, 8, 20)
    old = m.pick(1, 2, c // 4)
    pred = m.logits(n, c)
    targ = m.bits(n, c)
    targ[0, :2] = 1
    pred, targ = m.pick((pred.reshape(-1, old), targ), (pred, targ.reshape(-1, old)))
    return Pair(plain_sigmoid_loss(m), pred, targ)


@wrong("class-axis")
def classes_last(m):
    n = m.pick(2, 4, 8)
    t = m.pick(5, 9, 20)
    c = m.pick(3, 7, 13, 50)
    return Pair(plain_softmax_loss(m), m.logits(n, t, c), m.labels(c, n, t))


@wrong("class-axis")
def channels_last_map(m):
    n = m.pick(2, 4)
    c = m.pick(3, 5, 9)
    height = m.side()
    width = m.pick(7, 10)
    pred = m.logits(n, height, width, c)
    return Pair(plain_softmax_loss(m), pred, m.labels(c, n, height, width))


@wrong("class-axis")
def flattened_along_the_last_axis(m):
    n = m.pick(2, 4)
    c = m.pick(3, 5, 9)
    height = m.side()
    width = m.pick(7, 10)
    pred = m.logits(n, c, height, width)
    return Pair(CrossEntropyLossFlat(), pred, m.labels(c, n, height, width))


@wrong("class-axis")
def channels_last_target(m):
    n = m.pick(2, 4)
    c = m.pick(3, 5)
    height = m.pick(8, 16)
    width = m.pick(7, 10)
    pred = m.logits(n, c, height, width)
    return Pair(plain_sigmoid_loss(m), pred, m.bits(n, height, width, c))


@wrong("class-axis")
def transposed(m):
    n = m.pick(8, 16, 64)
    c = m.pick(3, 5, 10)
    pred, targ = m.pick((m.logits(c, n), m.bits(n, c)), (m.logits(n, c), m.bits(c, n)))
    return Pair(plain_sigmoid_loss(m), pred, targ)


@wrong("class-axis")
def time_first(m):
    t = m.pick(5, 9)
    n = m.pick(2, 4, 8)
    c = m.pick(11, 13)
    return Pair(plain_softmax_loss(m), m.logits(t, n, c), m.labels(c, n, t))


# Another number of rows


@wrong("rows")
def other_rows(m):
    n = m.many()
    c = m.pick(3, 5, 10)
    k = m.pick(n + 1, n - 1, n * 2, m.other(n, 5, 12))
    pred = m.logits(n, c)
    return m.pick(
        Pair(softmax_loss(m), pred, m.labels(c, k)),
        Pair(sigmoid_loss(m), pred, m.bits(k, c)),
        Pair(MSELossFlat(), pred, m.normal(k, c)),
        Pair(nn.L1Loss(), pred, m.normal(k, c)),
    )


@wrong("rows")
def other_size_of_map(m):
    n = m.pick(1, 2, 4)
    c = m.pick(2, 3, 5)
    height = m.pick(8, 16)
    width = m.pick(8, 16)
    loss = plain_sigmoid_loss(m)
    other_n = 1 if n > 1 else 3
    one_map = m.logits(n, 1, height, width)
    return m.pick(
        Pair(
            plain_softmax_loss(m),
            m.logits(n, c, height, width),
            m.integers(c, n, height * 2, width * 2),
        ),
        Pair(loss, one_map, m.bits(n, 1, height * 2, width * 2)),
        Pair(loss, one_map, m.bits(other_n, 1, height, width)),
    )


@wrong("rows")
def labels_of_all_words(m):
    n = m.pick(4, 16)
    c = m.pick(3, 13)
    t = m.pick(9, 90)
    return Pair(softmax_loss(m), m.logits(n, c), m.integers(c, n * t))


@wrong("squeezed-batch")
def last_batch_of_one(m):
    c = m.integer(3, 20)
    softmax = plain_softmax_loss(m)
    sigmoid = plain_sigmoid_loss(m)
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
    row = m.logits(1, c)
    maps = m.logits(1, c, 8, 6)
    mask = m.integers(c, 1, 8, 6)
    return m.pick(
        Pair(softmax, row, m.integers(c, 1)[0]),
        Pair(smoothed, row.squeeze(), m.integers(c, 1)),
        Pair(sigmoid, row.squeeze(), m.bits(1, c)),
        Pair(sigmoid, row, m.bits(c)),
        Pair(softmax, maps.squeeze(), mask),
        Pair(softmax, maps, mask[0]),
    )


@wrong("squeezed-batch")
def one_number_of_a_batch_of_one(m):
    sigmoid = nn.BCEWithLogitsLoss()
    return m.pick(
        Pair(sigmoid, m.logits(1).squeeze(), m.bits(1)),
        Pair(nn.BCELoss(), m.logits(1, 1).sigmoid().squeeze(), m.bits(1)),
        Pair(sigmoid, m.logits(1, 1, 8, 6).squeeze(), m.bits(1, 1, 8, 6)),
    )


# Labels out of range


@wrong("label-out-of-range")
def counted_from_1(m):
    c = m.integer(3, 12)
    n = m.integer(max(c, 8), 64)
    loss = m.pick(
        nn.CrossEntropyLoss(),
        F.cross_entropy,
        CrossEntropyLossFlat(),
        nn.CrossEntropyLoss(weight=torch.ones(c)),
    )
    return Pair(loss, m.logits(n, c), m.labels(c, n) + 1)


@wrong("label-out-of-range")
def too_few_outputs(m):
    n = m.integer(8, 64)
    c = m.integer(2, 12)
    targ = m.integers(c + 4, n)
    targ[1] = c + m.integer(0, 3)
    pred = m.logits(n, c)
    return m.pick(
        Pair(nn.CrossEntropyLoss(), pred, targ),
        Pair(F.cross_entropy, pred, targ),
        Pair(nn.NLLLoss(), pred.log_softmax(1), targ),
        Pair(CrossEntropyLossFlat(), pred, targ),
    )


@wrong("label-out-of-range")
def minus_one(m):
    n = m.integer(4, 16)
    c = m.integer(2, 12)
    places = map_axes(m)
    targ = m.integers(c, n, *places)
    targ.view(-1)[m.pick(0, -1)] = m.pick(-1, -2)
    return Pair(nn.CrossEntropyLoss(), m.logits(n, c, *places), targ)


@wrong("label-out-of-range")
def mask_of_0_and_255(m):
    n = m.pick(1, 2, 4)
    shape = (n, m.side(), m.side())
    c = m.pick(2, 5, 21)
    if c == 2:
        targ = m.integers(2, *shape) * 255
    else:
        targ = torch.where(m.uniform(*shape) < 0.1, 255, m.integers(c, *shape))
    targ[0, 0, 0] = 255
    loss = m.pick(nn.CrossEntropyLoss(), F.cross_entropy, CrossEntropyLossFlat(axis=1))
    return Pair(loss, m.logits(n, c, *shape[1:]), m.pick(targ, targ.to(torch.uint8)))


@wrong("single-logit-softmax")
def one_output(m):
    n = m.many()
    targ = m.integers(2, n)
    targ[0] = 1
    column = m.logits(n, 1)
    module = nn.CrossEntropyLoss()
    return m.pick(
        Pair(softmax_loss(m), column, targ),
        Pair(module, column, targ[:, None].float()),
        Pair(module, m.logits(n, 1, 8, 6), m.integers(2, n, 8, 6)),
        Pair(module, column, torch.zeros(n).long()),
        Pair(module, m.logits(n), targ.float()),
    )


# Another dtype


@wrong("target-dtype")
def index_as_a_float(m):
    n = m.many()
    c = m.integer(2, 12)
    places = map_axes(m)
    loss = m.pick(plain_softmax_loss(m), CrossEntropyLossFlat(axis=1 if places else -1))
    targ = m.labels(c, n, *places)
    return Pair(loss, m.logits(n, c, *places), m.pick(targ.float(), targ.double()))


@wrong("target-dtype")
def small_whole_numbers(m):
    n = m.many()
    c = m.integer(2, 12)
    places = map_axes(m)
    pred = m.logits(n, c, *places)
    targ = m.labels(c, n, *places).to(m.pick(torch.int32, torch.int16, torch.int8))
    if m.flip():
        return Pair(nn.NLLLoss(), pred.log_softmax(1), targ)
    return Pair(plain_softmax_loss(m), pred, targ)


@wrong("target-dtype")
def whole_targets_for_a_sigmoid(m):
    logits = m.logits(m.many(), m.pick(1, m.integer(1, 12)))
    bits = m.integers(2, *logits.shape)
    targ = m.pick(bits, bits.bool(), bits.int())
    return m.pick(
        Pair(nn.BCEWithLogitsLoss(), logits, targ),
        Pair(F.binary_cross_entropy_with_logits, logits, targ),
        Pair(nn.BCELoss(), logits.sigmoid(), targ),
    )


@wrong("target-dtype")
def double_targets(m):
    logits = m.logits(m.many(), m.integer(1, 12))
    numbers = m.uniform(*logits.shape).double()
    bits = m.bits(*logits.shape).double()
    # Only BCELoss raises an error; the others promote, and nothing says that it was not meant.
    return m.pick(
        Pair(nn.MSELoss(), logits, numbers, certain=False),
        Pair(nn.L1Loss(), logits[:, 0], numbers[:, 0], certain=False),
        Pair(nn.BCELoss(), logits.sigmoid(), bits),
        Pair(nn.BCEWithLogitsLoss(), logits, bits, certain=False),
    )


@wrong("target-dtype")
def quantities_for_a_softmax(m):
    n = m.many()
    return Pair(plain_softmax_loss(m), m.logits(n, m.integer(2, 12)), m.normal(n) * 10)


# Values out of range


@wrong("target-range")
def mask_of_0_and_255_for_a_sigmoid(m):
    shape = (m.pick(1, 2, 4), m.pick(1, 3), m.side(), m.side())
    bits = m.bits(*shape)
    bits.view(-1)[:2] = torch.tensor([0.0, 1.0])
    targ = m.pick(bits * 255, m.integers(256, *shape).float(), bits * 2 - 1, bits + 1)
    logits = m.logits(*shape)
    return m.pick(
        Pair(plain_sigmoid_loss(m), logits, targ),
        Pair(nn.BCELoss(), logits.sigmoid(), targ),
        Pair(BCEWithLogitsLossFlat(), logits, targ),
    )


@wrong("target-range")
def indices_beside_one_output(m):
    n = m.integer(8, 64)
    c = m.integer(3, 12)
    targ = m.labels(c, n)
    targ[0] = c - 1
    logits = m.logits(n, 1)
    column = targ[:, None].float()
    return m.pick(
        Pair(plain_sigmoid_loss(m), logits, column),
        Pair(BCEWithLogitsLossFlat(), logits, targ),
        Pair(nn.BCELoss(), logits.sigmoid(), column),
    )


# An activation too few, or too many


@wrong("missing-activation")
def raw_for_probabilities(m):
    n = m.integer(8, 64)
    c = m.integer(1, 12)
    pred = m.normal(n, c) * m.pick(1, 3)
    pred.view(-1)[:2] = torch.tensor([-1.3, 2.1])
    loss = m.pick(nn.BCELoss(), F.binary_cross_entropy, BCELossFlat())
    return Pair(loss, pred, m.bits(n, c))


@wrong("missing-activation")
def not_log_probs_for_nll(m):
    n = m.integer(4, 64)
    c = m.integer(2, 12)
    places = map_axes(m)
    raw = m.normal(n, c, *places) * m.pick(1, 3)
    raw[0, 0] = 2.1  # above every probability
    raw[0, 1] = -1.3  # log-probabilities times a weight have one sign
    targ = m.integers(c, n, *places)
    loss = m.pick(nn.NLLLoss(), F.nll_loss, partial(F.nll_loss, weight=torch.ones(c)))
    return m.pick(
        Pair(loss, raw, targ),
        Pair(loss, raw.softmax(1), targ),
        # Certain is that no logarithm is positive; a sigmoid is suspected where it saturates.
        Pair(loss, raw.sigmoid(), targ, certain=None),
    )


@wrong("missing-activation")
def log_softmax_along_the_batch(m):
    n = m.integer(4, 64)
    c = m.integer(2, 12)
    pred = m.normal(n, c).log_softmax(0)
    # They are negative, too: only their sums show the difference.
    return Pair(m.pick(nn.NLLLoss(), F.nll_loss), pred, m.integers(c, n), certain=False)


@wrong("double-activation")
def softmax_for_a_softmax(m):
    n = m.integer(4, 64)
    c = m.integer(2, 12)
    places = map_axes(m)
    pred = (m.normal(n, c, *places) * m.pick(1, 0.1, 5)).softmax(1)
    loss = softmax_loss(m, axis=1 if places else -1)
    return Pair(loss, pred, m.integers(c, n, *places), certain=False)


@wrong("double-activation")
def sigmoid_for_a_sigmoid(m):
    n = m.integer(32, 64)
    c = m.integer(1, 12)
    pred = (m.normal(n, c) * m.pick(3, 5, 8)).sigmoid()
    return Pair(sigmoid_loss(m), pred, m.bits(n, c), certain=False)


# Broadcast or flattened without an error


@wrong("silent-broadcast")
def vector_and_column(m):
    n = m.many()
    pred = m.logits(n)
    numbers = m.normal(n)
    pred, targ = m.pick(
        (pred[:, None], numbers),
        (pred, numbers[:, None]),
        (pred[:, None], m.integers(9, n).float()),
        (pred[:, None], m.bits(n)),
    )
    return Pair(distance(m), pred, targ)


@wrong("silent-broadcast")
def map_and_missing_channel(m):
    n = m.integer(2, 8)
    height = m.side()
    width = m.side()
    return Pair(distance(m), m.logits(n, 1, height, width), m.uniform(n, height, width))


@wrong("silent-broadcast")
def broadcast_rows_or_columns(m):
    n = m.many()
    c = m.pick(3, 5, 10)
    pred = m.logits(n, c)
    pred, targ = m.pick(
        (pred, m.normal(n, 1)),
        (pred[:, :1], m.normal(n, c)),
        (pred, m.normal(c)),
        (pred, m.normal(1, c)),
    )
    return Pair(distance(m), pred, targ)


@wrong("silent-broadcast")
def as_many_labels_as_outputs(m):
    n = m.integer(3, 12)
    loss = m.pick(nn.MultiLabelSoftMarginLoss(), F.multilabel_soft_margin_loss, distance(m))
    return Pair(loss, m.logits(n, n), m.labels(n, n))


def mean_squared(pred, targ):
    return ((pred - targ) ** 2).mean()


def mean_absolute(pred, targ):
    return (pred - targ).abs().mean()


def root_mean_squared(pred, targ):
    return torch.sqrt(F.mse_loss(pred, targ))


@wrong("silent-broadcast")
def in_a_loss_of_ones_own(m):
    n = m.many()
    vector = m.normal(n)
    maps = m.normal(n, 6, 8)
    loss = m.pick(mean_squared, mean_absolute, root_mean_squared)
    pred, targ = m.pick(
        (m.logits(n, 1), vector), (m.logits(n), vector[:, None]), (m.logits(n, 1, 6, 8), maps)
    )
    return Pair(loss, pred, targ, certain=False)  # it may have meant to


@wrong("same-count-flattened")
def flattened_in_another_order(m):
    n = m.pick(8, 16, 64)
    c = m.pick(3, 5, 10)
    loss = m.pick(BCEWithLogitsLossFlat(), MSELossFlat(), L1LossFlat())
    return Pair(loss, m.logits(n, c), m.bits(c, n))


@wrong("same-count-flattened")
def flattened_maps(m):
    n = m.pick(2, 4)
    c = m.pick(3, 5)
    height = m.pick(8, 16)
    width = m.pick(7, 10)
    pred = m.logits(n, c, height, width)
    return m.pick(
        Pair(BCEWithLogitsLossFlat(), pred, m.bits(n, height, width, c)),
        Pair(BCEWithLogitsLossFlat(), pred, m.bits(n, c, width, height)),
        Pair(CrossEntropyLossFlat(axis=1), pred, m.labels(c, n, width, height)),
    )


# Weights, empty targets, metrics


@wrong("class-weight-length")
def weights_of_other_classes(m):
    n = m.many()
    c = m.integer(3, 12)
    places = map_axes(m)
    weight = m.uniform(m.other(c, 2, 13)) + 0.1
    pred = m.logits(n, c, *places)
    targ = m.labels(c, n, *places)
    return m.pick(
        Pair(nn.CrossEntropyLoss(weight=weight), pred, targ),
        Pair(partial(F.cross_entropy, weight=weight), pred, targ),
        Pair(CrossEntropyLossFlat(weight=weight, axis=1 if places else -1), pred, targ),
        Pair(nn.NLLLoss(weight=weight), pred.log_softmax(1), targ),
    )


@wrong("class-weight-length")
def pos_weights_of_other_classes(m):
    n = m.many()
    c = m.integer(3, 12)
    weight = m.uniform(m.other(c, 2, 13)) + 0.1
    loss = m.pick(
        nn.BCEWithLogitsLoss(pos_weight=weight),
        nn.BCEWithLogitsLoss(weight=weight),
        partial(F.binary_cross_entropy_with_logits, pos_weight=weight),
        BCEWithLogitsLossFlat(pos_weight=weight),
    )
    return Pair(loss, m.logits(n, c), m.bits(n, c))


@wrong("class-weight-length")
def pos_weights_along_the_wrong_axis(m):
    c = m.pick(3, 4)
    shape = (m.pick(1, 2, 4), c, m.side(), m.side())
    loss = nn.BCEWithLogitsLoss(pos_weight=m.uniform(c) + 0.1)
    return Pair(loss, m.logits(*shape), m.bits(*shape))


@wrong("empty-target")
def nothing(m):
    n = m.many()
    c = m.integer(3, 12)
    pred = m.logits(n, c)
    sigmoid = sigmoid_loss(m)
    softmax = plain_softmax_loss(m)
    maps = m.logits(n, c, 4, 4)
    return m.pick(
        Pair(sigmoid, pred, torch.zeros(0, c)),
        Pair(sigmoid, pred, torch.zeros(n, 0)),
        Pair(softmax, pred, torch.zeros(0).long()),
        Pair(softmax, pred, torch.full((n,), -100)),
        Pair(sigmoid, pred, torch.zeros(0)),
        Pair(distance(m), pred, torch.zeros(n, 0)),
        Pair(nn.CrossEntropyLoss(ignore_index=255), maps, torch.full((n, 4, 4), 255)),
    )


@wrong("metric-mismatch")
def metric_of_the_other_sort(m):
    n = m.many()
    c = m.integer(2, 12)
    pred = m.logits(n, c)
    maps = m.logits(n, c, 8, 6)
    mask = m.integers(c, n, 8, 6)
    labels = m.integers(c, n)
    return m.pick(
        Pair(accuracy, pred, m.bits(n, c)),
        Pair(accuracy, pred, m.hot(c, n).float()),
        Pair(error_rate, pred, m.hot(c, n)),
        Pair(accuracy_multi, pred, labels),
        Pair(partial(accuracy_multi, thresh=0.3), pred, labels),
        Pair(accuracy, m.logits(n, 1), m.integers(2, n)),
        Pair(accuracy, maps, mask),
        Pair(accuracy_multi, maps, mask),
    )


# Labels beside a sigmoid loss that cannot be one-hot encoded as they are


def loss_of_rows(m: Maker):
    """Return a loss that expects a number for each class, from logits."""
    return m.pick(
        nn.BCEWithLogitsLoss(),
        F.binary_cross_entropy_with_logits,
        BCEWithLogitsLossFlat(),
        partial(sigmoid_focal_loss, reduction="mean"),
        AsymmetricLossMultiLabel(),
        SoftTargetCrossEntropy(),
        nn.KLDivLoss(reduction="batchmean"),
    )


def labels_out_of_range(m: Maker, c, *shape):
    """Return labels that are counted from 1, hold a background, or marks."""
    labels = m.labels(c, *shape)
    labels.view(-1)[:2] = torch.tensor([0, c - 1])
    marked = m.uniform(*shape) < 0.2
    marked.view(-1)[2] = True
    return m.pick(
        labels + 1,
        torch.where(marked, c, labels),
        torch.where(marked, -1, labels),
        torch.where(marked, -100, labels),
        torch.where(marked, 255, labels),
        labels + 3,
    )


@wrong("label-out-of-range")
def labels_out_of_range_for_rows(m):
    n = m.many()
    c = m.other(n, 3, 12)  # n labels beside n outputs are broadcast by some
    targ = labels_out_of_range(m, c, n)
    targ = m.pick(targ, targ[:, None], targ.float(), targ.int())
    if m.flip():
        return Pair(nn.BCELoss(), m.logits(n, c).sigmoid(), targ)
    return Pair(loss_of_rows(m), m.logits(n, c), targ)


@wrong("label-out-of-range")
def masks_out_of_range_for_a_sigmoid(m):
    n = m.pick(1, 2, 4)
    c = m.pick(3, 5, 12)
    height, width = height_and_width(m)
    targ = labels_out_of_range(m, c, n, height, width)
    targ = m.pick(targ, targ[:, None], targ.float())
    return Pair(sigmoid_loss(m), m.logits(n, c, height, width), targ)


@wrong("class-indices-for-soft-targets")
def labels_for_soft_targets(m):
    n = m.many()
    c = m.other(n, 3, 12)
    targ = m.labels(c, n)
    targ[0] = c - 1
    pred = m.logits(n, c)
    form = m.pick("soft", "divergence")
    if form == "soft":
        targ = m.pick(targ, targ[:, None], targ.float())
        return Pair(SoftTargetCrossEntropy(), pred, targ)
    divergence = m.pick(
        nn.KLDivLoss(reduction="batchmean"),
        F.kl_div,
        nn.KLDivLoss(log_target=True),
        partial(F.kl_div, reduction="sum", log_target=True),
    )
    return Pair(divergence, pred.log_softmax(1), targ)


# Lists of labels, and marks of what is unknown


def padded_lists(m: Maker, n, length, c):
    """Return lists of different labels, padded with -1 or another negative number."""
    padding = m.pick(-1, -1, -100)
    targ = torch.full((n, length), padding)
    for row in targ[1:]:
        k = m.integer(0, min(length, c))
        row[:k] = torch.randperm(c, generator=m.generator)[:k]
    targ[0, :2] = torch.tensor([c - 1, 0])
    targ[1, 1:] = padding
    return m.pick(targ, targ.float(), targ.int())


@wrong("class-indices-for-bce")
def padded_lists_of_labels(m):
    n = m.many()
    c = m.integer(4, 12)
    length = m.other(c, 2, 14)
    return Pair(sigmoid_loss(m), m.logits(n, c), padded_lists(m, n, length, c))


@wrong("target-range")
def padded_lists_as_long_as_there_are_outputs(m):
    c = m.integer(4, 12)
    n = m.integer(8, 64)
    logits = m.logits(n, c)
    targ = padded_lists(m, n, c, c)
    return m.pick(
        Pair(sigmoid_loss(m), logits, targ),
        Pair(nn.BCELoss(), logits.sigmoid(), targ),
    )


@wrong("target-range")
def marks_of_what_is_unknown(m):
    shape = (m.many(), m.integer(2, 20), *map_axes(m))
    values = m.pick(m.bits(*shape), m.uniform(*shape).round(decimals=1))
    values.view(-1)[:2] = torch.tensor([0.0, 1.0])
    unknown = m.uniform(*shape) < 0.3
    unknown.view(-1)[2] = True
    targ = torch.where(unknown, m.pick(-1.0, -1.0, -2.0, -100.0, 255.0), values)
    logits = m.logits(*shape)
    return m.pick(
        Pair(sigmoid_loss(m), logits, targ),
        Pair(partial(sigmoid_focal_loss, reduction="mean"), logits, targ),
        Pair(nn.BCELoss(), logits.sigmoid(), targ),
    )


# NaN and infinity


def spoiled(m: Maker, values, number):
    """Put a number in some places, but not everywhere."""
    values = values.clone().float()
    spoil = m.uniform(*values.shape) < 0.3
    spoil.view(-1)[0] = True
    spoil.view(-1)[-1] = False
    return torch.where(spoil, number, values)


@wrong("target-not-finite")
def targets_not_finite(m):
    shape = (m.many(), m.integer(2, 20), *map_axes(m))
    targ = spoiled(m, m.bits(*shape), m.pick(math.nan, math.nan, math.inf, -math.inf))
    logits = m.logits(*shape)
    weight = m.uniform(shape[1], *[1] * (len(shape) - 2)) + 0.5
    return m.pick(
        Pair(sigmoid_loss(m), logits, targ),
        Pair(nn.BCEWithLogitsLoss(pos_weight=weight), logits, targ),
        Pair(nn.BCELoss(), logits.sigmoid(), targ),
        Pair(partial(sigmoid_focal_loss, reduction="mean"), logits, targ),
        Pair(distance(m), logits, targ),
        Pair(nan_mean, logits, torch.where(targ.isfinite(), targ, math.nan)),
    )


@wrong("target-not-finite")
def labels_not_finite(m):
    c = m.integer(3, 12)
    n = m.integer(2 * c, 64)
    places = map_axes(m)
    targ = spoiled(m, m.labels(c, n, *places), m.pick(math.nan, math.inf))
    targ.view(-1)[-1] = c - 1
    logits = m.logits(n, c, *places)
    axis = 1 if places else -1
    return m.pick(
        Pair(softmax_loss(m, axis), logits, targ),
        Pair(nn.NLLLoss(), logits.log_softmax(1), targ),
        Pair(sigmoid_loss(m), logits, targ),
        Pair(sigmoid_loss(m), logits, targ[:, None]),
    )


def nan_mean(pred, targ):
    """Leave NaN out of the loss, and keep it in the gradient."""
    return F.binary_cross_entropy_with_logits(pred, targ, reduction="none").nanmean()


@wrong("prediction-not-finite")
def predictions_not_finite(m):
    shape = (m.many(), m.integer(2, 20))
    logits = spoiled(m, m.logits(*shape), m.pick(math.nan, math.nan, math.inf))
    if m.flip():
        logits = torch.full(shape, math.nan)
    labels = m.labels(shape[1], shape[0])
    return m.pick(
        Pair(sigmoid_loss(m), logits, m.bits(*shape)),
        Pair(distance(m), logits, m.normal(*shape)),
        Pair(nn.CrossEntropyLoss(), logits, labels),
        Pair(CrossEntropyLossFlat(), logits, labels),
    )


def mean_over_known(pred, targ):
    known = targ >= 0
    return F.binary_cross_entropy_with_logits(pred[known], targ[known])


@wrong("loss-not-finite")
def nothing_left(m):
    shape = (m.many(), m.integer(2, 20))
    logits = m.logits(*shape)
    no_weight = nn.CrossEntropyLoss(weight=torch.zeros(shape[1]))
    return m.pick(
        Pair(mean_over_known, logits, torch.full(shape, -1.0), certain=False),
        Pair(no_weight, logits, m.labels(shape[1], shape[0]), certain=False),
    )


def is_silent(pair: Pair):
    """Whether torch accepts a wrong pair."""
    return not raises(*pair.args)
