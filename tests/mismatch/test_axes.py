"""Classes along any axis, classes folded into rows, and classes as colors, with the right value.

Each has controls beside it: what looks alike and is something else, or is right.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from torch import nn
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss

from mismatch.containers import dice, focal
from multilabel_mnist.mismatch import diagnose


def computed(d, loss, pred, targ):
    """Return what the loss computes after the first fix."""
    names = dict(torch=torch, nn=nn, F=F, loss_func=loss, pred=pred, targ=targ)
    exec(d.fixes[0], names)
    return torch.as_tensor(names["loss_func"](names["pred"], names["targ"]))


def name(loss):
    """Return a name that is the same in every process, as those of tests have to be."""
    function = getattr(loss, "func", loss)
    return getattr(function, "__name__", str(loss))


# Classes along any axis


SHAPES = [(4, 6, 7), (2, 6, 50), (4, 9), (3, 2, 5, 6)]
SOFTMAX = {
    "module": (nn.CrossEntropyLoss(), F.cross_entropy),
    "function": (F.cross_entropy, F.cross_entropy),
    "weight": (
        nn.CrossEntropyLoss(weight=torch.linspace(1, 2, 13)),
        partial(F.cross_entropy, weight=torch.linspace(1, 2, 13)),
    ),
    "focal": (focal, focal),
    "nll": (nn.NLLLoss(), F.nll_loss),
}


def along(axis, pred):
    """Return a prediction whose classes lie along axis 1 with the classes along another one."""
    return pred.movedim(1, axis)


@pytest.mark.parametrize("form", SOFTMAX)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_classes_are_found_along_any_axis(form, shape, dtype):
    loss, by_hand = SOFTMAX[form]
    right = torch.randn(shape[0], 13, *shape[1:], dtype=dtype).log_softmax(1)
    targ = torch.arange(torch.Size(shape).numel()).reshape(shape) % 13
    if form == "weight" and dtype == torch.float64:
        loss = nn.CrossEntropyLoss(weight=torch.linspace(1, 2, 13, dtype=dtype))
        by_hand = partial(F.cross_entropy, weight=torch.linspace(1, 2, 13, dtype=dtype))
    for axis in (0, *range(2, right.ndim)):
        pred = along(axis, right)
        d = diagnose(loss, pred, targ)
        assert d.cause == "class-axis" and d.certain and not d.silent, d
        assert f"the 13 classes lie along axis {axis}" in d.explanation
        assert_close(computed(d, loss, pred, targ), by_hand(right, targ))


def test_a_movedim_is_what_it_takes():
    pred, targ = torch.randn(2, 6, 50, 7), torch.randint(0, 50, (2, 6, 7))
    assert diagnose(F.cross_entropy, pred, targ).fixes[0] == "pred = pred.movedim(2, 1)"


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_flattened_loss_is_told_the_axis(axis):
    right = torch.randn(4, 13, 6, 7)
    targ = torch.arange(4 * 6 * 7).reshape(4, 6, 7) % 13
    loss = CrossEntropyLossFlat(axis=1 if axis != 1 else -1)
    pred = along(axis, right)
    d = diagnose(loss, pred, targ)
    assert d.cause == "class-axis" and f"loss_func.axis = {axis if axis < 3 else -1}" in d.fixes
    assert_close(computed(d, loss, pred, targ), F.cross_entropy(right, targ))


@pytest.mark.parametrize("axis", [2, 3])
def test_class_indices_for_a_sigmoid_are_one_hot_encoded_along_any_axis(axis):
    right = torch.randn(4, 13, 6, 7)
    targ = torch.arange(4 * 6 * 7).reshape(4, 6, 7) % 13
    pred = along(axis, right)
    d = diagnose(nn.BCEWithLogitsLoss(), pred, targ)
    assert d.cause == "class-indices-for-bce", d
    one_hot = F.one_hot(targ, 13).movedim(-1, 1).float()
    expected = F.binary_cross_entropy_with_logits(right, one_hot)
    assert_close(computed(d, nn.BCEWithLogitsLoss(), pred, targ), expected)


@pytest.mark.parametrize(
    "pred, targ, cause",
    [
        ((2, 6, 50, 7), (2, 50, 7), "ok"),
        ((2, 6, 50, 7), (2, 25, 14), "rows"),
        ((2, 6, 50, 7), (2, 1, 50, 7), "extra-target-axis"),
        ((64, 10), (32,), "rows"),
    ],
    ids=str,
)
def test_other_shapes_are_no_matter_of_the_axis(pred, targ, cause):
    d = diagnose(nn.CrossEntropyLoss(), torch.randn(pred), torch.randint(0, 6, targ))
    assert d.cause == cause, d


# Classes folded into rows


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), CrossEntropyLossFlat(), focal], ids=name)
@pytest.mark.parametrize("n, new, old", [(32, 100, 1), (16, 6, 3), (9, 30, 27), (24, 5, 20)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_folded_classes_are_viewed_back(loss, n, new, old, dtype):
    right = torch.randn(n, new)
    targ = torch.arange(n) * 7 % new
    targ[0] = new - 1
    pred = right.view(-1, old)
    d = diagnose(loss, pred, targ.to(dtype))
    assert d.cause == "folded-classes" and d.certain and not d.silent, d
    assert_close(computed(d, loss, pred, targ.to(dtype)), loss(right, targ))


def test_labels_of_words_beside_folded_classes_are_flattened():
    right, targ = torch.randn(4, 6, 12), torch.arange(24).reshape(4, 6) % 12
    d = diagnose(nn.CrossEntropyLoss(), right.view(-1, 3), targ)
    assert d.cause == "folded-classes", d
    expected = F.cross_entropy(right.movedim(2, 1), targ)
    assert_close(computed(d, nn.CrossEntropyLoss(), right.view(-1, 3), targ), expected)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), F.mse_loss, dice], ids=name)
@pytest.mark.parametrize("n, new, old", [(32, 100, 1), (16, 6, 3), (9, 30, 27)])
def test_targets_beside_folded_outputs_fit_once_they_have_the_same_rows(loss, n, new, old):
    pred, targ = torch.randn(n, new), torch.randint(0, 2, (n, new)).float()
    for a, b in ((pred.view(-1, old), targ), (pred, targ.view(-1, old))):
        d = diagnose(loss, a, b)
        assert d.cause in ("folded-classes", "silent-broadcast") and not d.ok, d
        if d.cause == "folded-classes":
            assert_close(computed(d, loss, a, b), loss(pred, targ))


@pytest.mark.parametrize(
    "pred, targ",
    [
        (torch.randn(500, 12), torch.ones(1).long()),  # one label for 500 words
        (torch.randn(8, 4), torch.arange(32) % 4),  # four labels for each row
        (torch.randn(16, 4), torch.arange(8) % 4),  # two rows for each label
        (torch.randn(49, 2), torch.arange(21) % 2),
    ],
    ids=lambda t: str(tuple(t.shape)),
)
def test_other_rows_are_not_called_folded(pred, targ):
    assert diagnose(nn.CrossEntropyLoss(), pred, targ).cause == "rows"


@pytest.mark.parametrize("old", [1, 5])
def test_a_flattened_loss_of_folded_outputs_is_not_called_wrong_with_certainty(old):
    """It compares each number with its own target: only axes in another order change that."""
    pred, targ = torch.randn(32, 10), torch.randint(0, 2, (32, 10)).float()
    loss = BCEWithLogitsLossFlat()
    d = diagnose(loss, pred.view(-1, old), targ)
    assert not (d.certain and d.silent) and "probably right" in d.explanation, d
    assert diagnose(loss, pred.T, targ).certain


# Classes as colors


PALETTES = {
    "black, green, red": [[0, 0, 0], [0, 128, 0], [255, 0, 0]],
    "pure colors": [[0, 255, 255], [255, 255, 0], [255, 255, 255]],
    "with transparency": [[70, 70, 70, 255], [128, 64, 128, 255], [0, 0, 142, 255]],
}
SCALES = {
    "bytes": lambda colors: colors.byte(),
    "whole floats": lambda colors: colors.float(),
    "floats up to 1": lambda colors: colors / 255,
}
SIGMOID = [
    nn.BCEWithLogitsLoss(),
    BCEWithLogitsLossFlat(),
    partial(sigmoid_focal_loss, reduction="mean"),
    dice,
]


@pytest.mark.parametrize("loss", SIGMOID, ids=name)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize("n_maps", [5, 18])
def test_colors_become_one_map_per_class(loss, scale, palette, n_maps):
    mask = torch.arange(2 * 9 * 8).reshape(2, 9, 8) % 3
    palette = torch.tensor(PALETTES[palette])
    pred = torch.randn(2, n_maps, 9, 8)
    # The numbers are those of the colors in ascending order.
    order = palette.unique(dim=0, return_inverse=True)[1]
    one_hot = F.one_hot(order[mask], n_maps).movedim(-1, 1).float()
    colors = SCALES[scale](palette[mask])
    for targ in (colors, colors.movedim(-1, 1)):
        d = diagnose(loss, pred, targ)
        assert d.cause == "mask-channels" and d.certain, d
        assert "Number its colors" in d.explanation
        assert_close(computed(d, loss, pred, targ), loss(pred, one_hot))


def test_more_colors_than_maps_need_more_maps():
    colors = torch.tensor([[0, 0, 0], [0, 128, 0], [255, 0, 0]])
    targ = colors[torch.arange(2 * 9 * 8).reshape(2, 9, 8) % 3]
    d = diagnose(nn.BCEWithLogitsLoss(), torch.randn(2, 2, 9, 8), targ)
    assert "model[-1] = nn.Conv2d(model[-1].in_channels, 3, 1)" in d.fixes[0]


@pytest.mark.parametrize(
    "loss, targ, said",
    [
        (nn.MSELoss(), torch.rand(2, 3, 9, 8), "Give the network 3 maps"),  # an image to rebuild
        (nn.BCEWithLogitsLoss(), torch.rand(2, 3, 9, 8), "Give the network 3 maps"),
        (
            nn.BCEWithLogitsLoss(),
            F.one_hot(torch.arange(144).reshape(2, 9, 8) % 3, 3).movedim(-1, 1).float(),
            "Give the network 3 maps",  # one map of each of three classes
        ),
        (
            nn.BCEWithLogitsLoss(),
            torch.ones(2, 3, 9, 8) * (torch.arange(8) % 5),
            "one channel of class indices",  # a grey mask, saved in color
        ),
    ],
    ids=["image", "image for a sigmoid", "one-hot", "grey"],
)
def test_other_channels_are_no_colors(loss, targ, said):
    d = diagnose(loss, torch.randn(2, 5, 9, 8), targ)
    assert d.cause == "mask-channels" and said in d.explanation, d


def test_maps_in_another_order_are_no_colors():
    targ = torch.randint(0, 2, (2, 9, 8, 3)).float()
    d = diagnose(nn.BCEWithLogitsLoss(), torch.randn(2, 3, 9, 8), targ)
    assert d.cause == "class-axis", d


@pytest.mark.parametrize(
    "shape", [(2, 3, 9, 8), (2, 9, 8, 4), (2, 5, 9, 8), (2, 1, 9, 8), (2, 9, 8)]
)
@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(), nn.MSELoss(), dice]
)
def test_a_complex_mask_is_no_reason_to_raise_an_error(loss, shape):
    for n_maps in (1, 5):
        d = diagnose(loss, torch.randn(2, n_maps, 9, 8), torch.randn(shape, dtype=torch.complex64))
        assert d.explanation


# One distribution for all items


@pytest.mark.parametrize("n", [1, 5, 8])
@pytest.mark.parametrize("loss", [nn.KLDivLoss(reduction="batchmean"), nn.KLDivLoss(), F.kl_div])
def test_a_prior_for_all_items_is_no_silent_broadcast(loss, n):
    pred, prior = torch.randn(n, 5).log_softmax(1), torch.rand(5).softmax(0)
    for targ in (prior, prior[None], prior.expand(n, 5)):
        assert diagnose(loss, pred, targ).ok
    assert diagnose(nn.KLDivLoss(log_target=True), pred, prior.log()).ok
    maps = torch.randn(n, 5, 7, 7).log_softmax(1)
    assert diagnose(loss, maps, prior.view(1, 5, 1, 1)).ok


def test_a_vector_that_is_no_distribution_is_a_silent_broadcast():
    pred = torch.randn(8, 5).log_softmax(1)
    assert diagnose(nn.KLDivLoss(), pred, torch.rand(5) * 5).cause == "silent-broadcast"
    assert diagnose(nn.MSELoss(), pred, torch.rand(5).softmax(0)).cause == "silent-broadcast"
