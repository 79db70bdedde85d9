"""Pairs that people meet, each with the words of the thread it might come from."""

import json
from collections import namedtuple
from pathlib import Path

import fastai.losses
import fastai.metrics
import torch
import torch.nn.functional as F
from fastai.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    DiceLoss,
    FocalLossFlat,
    LabelSmoothingCrossEntropy,
    MSELossFlat,
)
from fastai.metrics import accuracy, accuracy_multi, error_rate
from torch import nn, rand, randn

from multilabel_mnist.labels import BCEOneHotLossFlat

# Reports from public threads with what each should be diagnosed as; the file says how to read it.
REPORTS = json.loads(Path(__file__).with_name("reported.json").read_text(encoding="utf-8"))["cases"]


def build(report):
    """Return the loss, the prediction and the target of a report."""
    torch.manual_seed(0)
    names = dict(torch=torch, nn=nn, F=F)
    exec(report["make"], names)
    losses = vars(fastai.losses) | vars(fastai.metrics) | names
    return eval(report["loss"], losses), names["p"], names["t"]


Case = namedtuple("Case", "cause name make certain")


def case(cause, name, make, certain=True):
    """Enter a pair: `make` returns the loss, the prediction and the target."""
    return Case(cause, name, make, certain)


def integers(n, *shape):
    return torch.randint(0, n, shape)


def bits(*shape):
    return integers(2, *shape).float()


def one_hot(n, *shape):
    return F.one_hot(integers(n, *shape), n)


class OneHotBCE(BCEWithLogitsLossFlat):
    """A loss that is called in a way of its own."""

    def __call__(self, pred, targ):
        return super().__call__(pred, F.one_hot(targ, pred.shape[1]))


class HardCE(nn.CrossEntropyLoss):
    """A softmax loss that takes targets, and makes labels of them."""

    def forward(self, pred, targ):
        return super().forward(pred, targ.argmax(1))


def squeezing_loss(pred, targ):
    return F.binary_cross_entropy_with_logits(pred.squeeze(1), targ)


CASES = [
    case(
        "ok",
        "a flat loss that one-hot encodes",
        lambda: (OneHotBCE(), randn(64, 10), integers(10, 64)),
    ),
    case(
        "ok", "this package's own", lambda: (BCEOneHotLossFlat(), randn(64, 10), integers(10, 64))
    ),
    case(
        "ok",
        "the same with rows",
        lambda: (BCEOneHotLossFlat(), randn(64, 10), one_hot(10, 64).float()),
    ),
    case(
        "ok",
        "a softmax loss that takes several ones",
        lambda: (HardCE(), randn(64, 10), bits(64, 10)),
    ),
    case("ok", "a function that squeezes", lambda: (squeezing_loss, randn(64, 1), bits(64))),
    case(
        "class-indices-for-bce",
        "its parent with labels",
        lambda: (BCEWithLogitsLossFlat(), randn(64, 10), integers(10, 64)),
    ),
    case(
        "class-indices-for-bce",
        "bin seg BCE, 2ch out, (N,H,W) float mask",
        lambda: (nn.BCEWithLogitsLoss(), randn(4, 2, 16, 16), integers(2, 4, 16, 16).float()),
    ),
    case(
        "trailing-axis",
        "bin seg BCE, 1ch out, (N,H,W) mask",
        lambda: (nn.BCEWithLogitsLoss(), randn(4, 1, 16, 16), integers(2, 4, 16, 16).float()),
    ),
    case(
        "trailing-axis",
        "bin seg BCE, 1ch out, (N,H,W) long",
        lambda: (nn.BCEWithLogitsLoss(), randn(4, 1, 16, 16), integers(2, 4, 16, 16)),
    ),
    case(
        "target-range",
        "bin seg BCE, 1ch, 0/255 uint8 mask",
        lambda: (
            nn.BCEWithLogitsLoss(),
            randn(4, 1, 16, 16),
            (integers(2, 4, 1, 16, 16) * 255).byte(),
        ),
    ),
    case(
        "trailing-axis",
        "bin seg BCE, 1ch, 0/255 (N,H,W) uint8",
        lambda: (
            nn.BCEWithLogitsLoss(),
            randn(4, 1, 16, 16),
            (integers(2, 4, 16, 16) * 255).byte(),
        ),
    ),
    case(
        "single-logit-softmax",
        "bin seg CE 1ch, mask (N,H,W)",
        lambda: (nn.CrossEntropyLoss(), randn(4, 1, 16, 16), integers(2, 4, 16, 16)),
    ),
    case(
        "single-logit-softmax",
        "bin seg CE 1ch, mask (N,1,H,W) float",
        lambda: (nn.CrossEntropyLoss(), randn(4, 1, 16, 16), integers(2, 4, 1, 16, 16).float()),
    ),
    case(
        "single-logit-softmax",
        "bin seg CE 1ch, mask (N,1,H,W) long",
        lambda: (nn.CrossEntropyLoss(), randn(4, 1, 16, 16), integers(2, 4, 1, 16, 16)),
    ),
    case(
        "extra-target-axis",
        "bin seg CE 2ch, mask (N,1,H,W) float",
        lambda: (nn.CrossEntropyLoss(), randn(4, 2, 16, 16), integers(2, 4, 1, 16, 16).float()),
    ),
    case(
        "target-dtype",
        "bin seg CE 2ch, mask (N,H,W) float",
        lambda: (nn.CrossEntropyLoss(), randn(4, 2, 16, 16), integers(2, 4, 16, 16).float()),
    ),
    case(
        "mask-channels",
        "CE seg rgba mask png",
        lambda: (nn.CrossEntropyLoss(), randn(2, 3, 16, 16), integers(256, 2, 4, 16, 16)),
    ),
    case(
        "multi-hot-for-softmax",
        "CE seg rgb mask float 0..1",
        lambda: (nn.CrossEntropyLoss(), randn(2, 3, 16, 16), rand(2, 3, 16, 16)),
        certain=False,
    ),
    case(
        "mask-channels",
        "CE seg rgb mask, same channel count, long",
        lambda: (nn.CrossEntropyLoss(), randn(2, 3, 16, 16), integers(256, 2, 3, 16, 16)),
    ),
    case(
        "rows",
        "CE seg size differs",
        lambda: (nn.CrossEntropyLoss(), randn(2, 3, 16, 16), integers(3, 2, 32, 32)),
    ),
    case(
        "rows",
        "CE seg size off by one",
        lambda: (nn.CrossEntropyLoss(), randn(2, 3, 15, 15), integers(3, 2, 16, 16)),
    ),
    case(
        "squeezed-batch",
        "CE seg HWC mask without batch",
        lambda: (nn.CrossEntropyLoss(), randn(1, 3, 16, 16), integers(3, 16, 16)),
    ),
    case(
        "label-out-of-range",
        "CE seg label 255 ignore",
        lambda: (
            nn.CrossEntropyLoss(),
            randn(2, 21, 16, 16),
            torch.where(rand(2, 16, 16) < 0.1, 255, integers(21, 2, 16, 16)),
        ),
    ),
    case(
        "ok",
        "CE seg label 255 ignore set",
        lambda: (
            nn.CrossEntropyLoss(ignore_index=255),
            randn(2, 21, 16, 16),
            torch.where(rand(2, 16, 16) < 0.1, 255, integers(21, 2, 16, 16)),
        ),
    ),
    case(
        "label-out-of-range",
        "CE seg labels 0..150 for 150",
        lambda: (
            nn.CrossEntropyLoss(),
            randn(2, 150, 8, 8),
            (torch.arange(128) + 23).view(2, 8, 8),
        ),
    ),
    case(
        "label-out-of-range",
        "CE seg grey levels 0..255 of a 19 class",
        lambda: (nn.CrossEntropyLoss(), randn(2, 19, 8, 8), integers(256, 2, 8, 8)),
    ),
    case(
        "class-axis",
        "token cls (N,T,C) with (N,T)",
        lambda: (nn.CrossEntropyLoss(), randn(8, 12, 9), integers(9, 8, 12)),
    ),
    case(
        "ok",
        "token cls ignore -100",
        lambda: (
            nn.CrossEntropyLoss(),
            randn(8, 12, 9).reshape(-1, 9),
            torch.where(rand(96) < 0.5, -100, integers(9, 96)),
        ),
    ),
    case(
        "rows",
        "LM shift off by one",
        lambda: (nn.CrossEntropyLoss(), randn(8 * 11, 50), integers(50, 8 * 12)),
    ),
    case(
        "class-axis",
        "LM (T,N,C) with (T,N)",
        lambda: (nn.CrossEntropyLoss(), randn(12, 8, 50), integers(50, 12, 8)),
    ),
    case(
        "class-axis",
        "LM (N,T,C) vs (N*T)",
        lambda: (nn.CrossEntropyLoss(), randn(8, 12, 50), integers(50, 96)),
    ),
    case(
        "rows",
        "LM flat pred vs (N,T)",
        lambda: (nn.CrossEntropyLoss(), randn(96, 50), integers(50, 8, 12)),
    ),
    case(
        "rows",
        "seq pred (N,T,C) one label per seq",
        lambda: (nn.CrossEntropyLoss(), randn(8, 12, 5), integers(5, 8)),
    ),
    case(
        "squeezed-batch",
        "BCE last batch of 1 squeezed scalar pred",
        lambda: (nn.BCEWithLogitsLoss(), randn(1, 1).squeeze(), integers(2, 1).float()),
    ),
    case(
        "squeezed-batch",
        "BCE last batch of 1 squeezed vs (1,1)",
        lambda: (nn.BCEWithLogitsLoss(), randn(1, 1).squeeze(), integers(2, 1, 1).float()),
    ),
    case(
        "label-out-of-range",
        "labels 1..C all present",
        lambda: (nn.CrossEntropyLoss(), randn(16, 5), (torch.arange(16) % 5) + 1),
    ),
    case(
        "label-out-of-range",
        "labels 1..C, batch without C",
        lambda: (nn.CrossEntropyLoss(), randn(4, 10), torch.tensor([1, 3, 10, 2])),
    ),
    case(
        "label-out-of-range",
        "labels -1/1 for CE 2",
        lambda: (nn.CrossEntropyLoss(), randn(6, 2), torch.tensor([1, -1, 1, 1, -1, -1])),
    ),
    case(
        "target-range",
        "labels -1/1 for BCE",
        lambda: (
            nn.BCEWithLogitsLoss(),
            randn(6, 1),
            torch.tensor([1.0, -1, 1, 1, -1, -1])[:, None],
        ),
    ),
    case(
        "target-range",
        "labels -1/1 for BCEFlat",
        lambda: (BCEWithLogitsLossFlat(), randn(6, 1), torch.tensor([1.0, -1, 1, 1, -1, -1])),
    ),
    case(
        "target-range",
        "labels 1/2 for BCELoss",
        lambda: (nn.BCELoss(), rand(6, 1), torch.tensor([1.0, 2, 1, 1, 2, 2])[:, None]),
    ),
    case(
        "label-out-of-range",
        "labels 1/2 for CE 2",
        lambda: (nn.CrossEntropyLoss(), randn(6, 2), torch.tensor([1, 2, 1, 1, 2, 2])),
    ),
    case(
        "target-dtype",
        "double labels to BCE",
        lambda: (nn.BCELoss(), rand(8, 1), integers(2, 8, 1).double()),
    ),
    case(
        "target-dtype",
        "double labels BCEwL",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 1), integers(2, 8, 1).double()),
        certain=False,
    ),
    case(
        "target-dtype",
        "double labels MSE",
        lambda: (nn.MSELoss(), randn(8, 1), randn(8, 1).double()),
        certain=False,
    ),
    case(
        "ok",
        "double pred float targ MSE",
        lambda: (nn.MSELoss(), randn(8, 1).double(), randn(8, 1)),
    ),
    case("target-dtype", "int targets BCE", lambda: (nn.BCELoss(), rand(8, 1), integers(2, 8, 1))),
    case(
        "target-dtype",
        "int targets BCEwL (N,)",
        lambda: (nn.BCEWithLogitsLoss(), randn(8), integers(2, 8)),
    ),
    case(
        "target-dtype",
        "bool targets",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 3), integers(2, 8, 3).bool()),
    ),
    case(
        "missing-activation",
        "BCELoss on logits",
        lambda: (nn.BCELoss(), randn(16, 3), integers(2, 16, 3).float()),
    ),
    case(
        "missing-activation",
        "BCELoss on logits >1 only",
        lambda: (nn.BCELoss(), randn(16, 3).abs() * 2, integers(2, 16, 3).float()),
    ),
    case(
        "missing-activation",
        "BCELoss tanh out",
        lambda: (nn.BCELoss(), randn(16, 3).tanh(), integers(2, 16, 3).float()),
    ),
    case(
        "double-activation",
        "CE on softmaxed",
        lambda: (nn.CrossEntropyLoss(), randn(16, 4).softmax(1), integers(4, 16)),
        certain=False,
    ),
    case(
        "double-activation",
        "CE on softmaxed soft targ",
        lambda: (nn.CrossEntropyLoss(), randn(16, 4).softmax(1), rand(16, 4).softmax(1)),
        certain=False,
    ),
    case(
        "double-activation",
        "CE softmaxed wrong dim 0",
        lambda: (nn.CrossEntropyLoss(), randn(16, 4).softmax(0), integers(4, 16)),
        certain=False,
    ),
    case(
        "double-activation",
        "CE on sigmoid",
        lambda: (nn.CrossEntropyLoss(), (randn(64, 4) * 3).sigmoid(), integers(4, 64)),
        certain=False,
    ),
    case(
        "ok",
        "CE on log_softmax",
        lambda: (nn.CrossEntropyLoss(), randn(16, 4).log_softmax(1), integers(4, 16)),
    ),
    case("missing-activation", "NLL raw", lambda: (nn.NLLLoss(), randn(16, 4), integers(4, 16))),
    case(
        "missing-activation",
        "NLL softmax",
        lambda: (nn.NLLLoss(), randn(16, 4).softmax(1), integers(4, 16)),
    ),
    case(
        "missing-activation",
        "NLL log_softmax dim 0",
        lambda: (nn.NLLLoss(), randn(16, 4).log_softmax(0), integers(4, 16)),
        certain=False,
    ),
    case(
        "ok",
        "NLL seg",
        lambda: (nn.NLLLoss(), randn(2, 4, 8, 8).log_softmax(1), integers(4, 2, 8, 8)),
    ),
    case(
        "one-hot-for-softmax",
        "NLL one-hot",
        lambda: (nn.NLLLoss(), randn(16, 4).log_softmax(1), one_hot(4, 16)),
    ),
    case(
        "single-logit-softmax",
        "one logit CE float (N,)",
        lambda: (nn.CrossEntropyLoss(), randn(16, 1), integers(2, 16).float()),
    ),
    case(
        "single-logit-softmax",
        "one logit CE (N,1) float silently 0",
        lambda: (nn.CrossEntropyLoss(), randn(16, 1), integers(2, 16, 1).float()),
    ),
    case(
        "single-logit-softmax",
        "one logit CE (N,1) long",
        lambda: (nn.CrossEntropyLoss(), randn(16, 1), integers(2, 16, 1)),
    ),
    case(
        "single-logit-softmax",
        "1-D logits CE",
        lambda: (nn.CrossEntropyLoss(), randn(16), integers(2, 16)),
    ),
    case(
        "single-logit-softmax",
        "1-D logits CE float",
        lambda: (nn.CrossEntropyLoss(), randn(16), integers(2, 16).float()),
    ),
    case(
        "class-weight-length",
        "CE weight len",
        lambda: (nn.CrossEntropyLoss(weight=torch.ones(3)), randn(16, 4), integers(4, 16)),
    ),
    case(
        "class-weight-length",
        "CE weight len flat",
        lambda: (CrossEntropyLossFlat(weight=torch.ones(3)), randn(16, 4), integers(4, 16)),
    ),
    case(
        "class-weight-dtype",
        "CE weight float64",
        lambda: (nn.CrossEntropyLoss(weight=torch.ones(4).double()), randn(16, 4), integers(4, 16)),
    ),
    case(
        "class-weight-length",
        "CE weight soft",
        lambda: (nn.CrossEntropyLoss(weight=torch.ones(3)), randn(16, 4), rand(16, 4).softmax(1)),
    ),
    case(
        "class-weight-length",
        "CE weight 2-D",
        lambda: (nn.CrossEntropyLoss(weight=torch.ones(1, 4)), randn(16, 4), integers(4, 16)),
    ),
    case(
        "class-weight-length",
        "BCE pos_weight len",
        lambda: (
            nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)),
            randn(16, 4),
            integers(2, 16, 4).float(),
        ),
    ),
    case(
        "class-weight-length",
        "BCE pos_weight len N",
        lambda: (
            nn.BCEWithLogitsLoss(pos_weight=torch.ones(16)),
            randn(16, 1),
            integers(2, 16, 1).float(),
        ),
    ),
    case(
        "class-weight-length",
        "BCE pos_weight 2 one logit",
        lambda: (
            nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 3.0])),
            randn(16, 1),
            integers(2, 16, 1).float(),
        ),
    ),
    case(
        "class-weight-length",
        "BCE weight (2,) one logit",
        lambda: (
            nn.BCELoss(weight=torch.tensor([1.0, 3.0])),
            rand(16, 1),
            integers(2, 16, 1).float(),
        ),
    ),
    case(
        "class-weight-length",
        "BCE pos_weight seg",
        lambda: (
            nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)),
            randn(4, 3, 8, 8),
            integers(2, 4, 3, 8, 8).float(),
        ),
    ),
    case(
        "empty-target",
        "empty batch CE",
        lambda: (nn.CrossEntropyLoss(), randn(0, 4), integers(4, 0)),
    ),
    case(
        "empty-target",
        "empty batch BCE",
        lambda: (nn.BCEWithLogitsLoss(), randn(0, 4), randn(0, 4)),
    ),
    case(
        "empty-target",
        "empty target",
        lambda: (nn.BCEWithLogitsLoss(), randn(4, 4), torch.tensor([])),
    ),
    case(
        "empty-target", "empty target (4,0)", lambda: (nn.MSELoss(), randn(4, 4), torch.zeros(4, 0))
    ),
    case(
        "empty-target",
        "all ignored",
        lambda: (nn.CrossEntropyLoss(ignore_index=0), randn(4, 4), torch.zeros(4).long()),
    ),
    case(
        "metric-mismatch",
        "accuracy on multi-hot",
        lambda: (accuracy, randn(64, 5), integers(2, 64, 5).float()),
    ),
    case(
        "metric-mismatch",
        "accuracy on one-hot long",
        lambda: (accuracy, randn(64, 5), one_hot(5, 64)),
    ),
    case(
        "metric-mismatch",
        "accuracy_multi on labels",
        lambda: (accuracy_multi, randn(64, 5), integers(5, 64)),
    ),
    case(
        "metric-mismatch",
        "accuracy_multi on (N,1)",
        lambda: (accuracy_multi, randn(64, 5), integers(5, 64, 1)),
    ),
    case(
        "metric-mismatch",
        "accuracy binary 1 logit",
        lambda: (accuracy, randn(64, 1), integers(2, 64)),
    ),
    case(
        "metric-mismatch",
        "accuracy binary 1 logit col",
        lambda: (accuracy, randn(64, 1), integers(2, 64, 1).float()),
    ),
    case(
        "metric-mismatch",
        "accuracy seg",
        lambda: (accuracy, randn(2, 5, 8, 8), integers(5, 2, 8, 8)),
    ),
    case(
        "metric-mismatch",
        "accuracy seg 1 ch",
        lambda: (accuracy, randn(2, 5, 8, 8), integers(5, 2, 1, 8, 8)),
    ),
    case(
        "metric-mismatch",
        "error_rate one-hot",
        lambda: (error_rate, randn(64, 5), one_hot(5, 64).float()),
    ),
    case(
        "class-axis",
        "transposed BCE",
        lambda: (nn.BCEWithLogitsLoss(), randn(10, 64), integers(2, 64, 10).float()),
    ),
    case(
        "class-axis",
        "transposed CE",
        lambda: (nn.CrossEntropyLoss(), randn(10, 64), integers(10, 64)),
    ),
    case(
        "rows", "off-by-rows CE", lambda: (nn.CrossEntropyLoss(), randn(64, 10), integers(10, 63))
    ),
    case("silent-broadcast", "MSE (N,1) (N,)", lambda: (nn.MSELoss(), randn(64, 1), randn(64))),
    case("silent-broadcast", "MSE (N,) (N,1)", lambda: (nn.MSELoss(), randn(64), randn(64, 1))),
    case("ok", "MSE (N,) (N,1) N=1", lambda: (nn.MSELoss(), randn(1), randn(1, 1))),
    case(
        "silent-broadcast",
        "L1 (N,1) (N,) int",
        lambda: (nn.L1Loss(), randn(64, 1), integers(9, 64)),
    ),
    case(
        "trailing-axis", "MSE (N,T,1) (N,T)", lambda: (nn.MSELoss(), randn(8, 12, 1), randn(8, 12))
    ),
    case("rows", "MSE (N,T,1) (N,1)", lambda: (nn.MSELoss(), randn(8, 12, 1), randn(8, 1))),
    case("n-outputs", "MSE (N,T) (N,)", lambda: (nn.MSELoss(), randn(8, 12), randn(8))),
    case(
        "silent-broadcast", "MSE (N,N) square (N,)", lambda: (nn.MSELoss(), randn(8, 8), randn(8))
    ),
    case(
        "silent-broadcast",
        "MSE class labels vs softmax (C,) N==C",
        lambda: (nn.MSELoss(), randn(10, 10), integers(10, 10)),
    ),
    case(
        "class-indices-for-bce",
        "MSE one-hot vs labels",
        lambda: (nn.MSELoss(), randn(64, 10), integers(10, 64)),
    ),
    case(
        "extra-target-axis",
        "MSE autoencoder flattened",
        lambda: (nn.MSELoss(), randn(8, 784), randn(8, 1, 28, 28)),
    ),
    case(
        "rows",
        "MSE autoencoder size",
        lambda: (nn.MSELoss(), randn(8, 1, 26, 26), randn(8, 1, 28, 28)),
    ),
    case(
        "silent-broadcast",
        "MSE autoencoder channels",
        lambda: (nn.MSELoss(), randn(8, 1, 28, 28), randn(8, 3, 28, 28)),
        certain=False,
    ),
    case(
        "class-axis",
        "MSE channels-last image",
        lambda: (nn.MSELoss(), randn(8, 3, 28, 28), randn(8, 28, 28, 3)),
    ),
    case(
        "n-outputs", "MSE dqn (N,A) vs (N,)", lambda: (nn.SmoothL1Loss(), randn(32, 4), randn(32))
    ),
    case(
        "silent-broadcast",
        "MSE dqn (N,1) vs (N,)",
        lambda: (nn.SmoothL1Loss(), randn(32, 1), randn(32)),
    ),
    case("n-outputs", "MSEFlat dqn", lambda: (MSELossFlat(), randn(32, 4), randn(32))),
    case(
        "same-count-flattened",
        "BCEFlat (64,10)/(10,64)",
        lambda: (BCEWithLogitsLossFlat(), randn(64, 10), integers(2, 10, 64).float()),
    ),
    case(
        "class-indices-for-bce",
        "BCEFlat (64,2) vs (64,)",
        lambda: (BCEWithLogitsLossFlat(), randn(64, 2), integers(2, 64)),
    ),
    case(
        "same-count-flattened",
        "BCEFlat (64,10) vs (640,)",
        lambda: (BCEWithLogitsLossFlat(), randn(64, 10), integers(2, 640).float()),
        certain=False,
    ),
    case(
        "one-hot-for-softmax",
        "CEFlat one-hot",
        lambda: (CrossEntropyLossFlat(), randn(64, 5), one_hot(5, 64)),
    ),
    case(
        "multi-hot-for-softmax",
        "CEFlat multihot",
        lambda: (CrossEntropyLossFlat(), randn(64, 5), integers(2, 64, 5).float()),
    ),
    case(
        "target-dtype",
        "CEFlat float label",
        lambda: (CrossEntropyLossFlat(), randn(64, 5), integers(5, 64).float()),
    ),
    case(
        "target-dtype",
        "CEFlat reg label",
        lambda: (CrossEntropyLossFlat(), randn(64, 2), randn(64)),
    ),
    case("ok", "MSEFlat reg 1 out (64,1)/(64,)", lambda: (MSELossFlat(), randn(64, 1), randn(64))),
    case(
        "ok",
        "MSEFlat 2 out points (64,2)/(64,1,2)",
        lambda: (MSELossFlat(), randn(64, 2), randn(64, 1, 2)),
    ),
    case(
        "ok",
        "MSEFlat points (64,10)/(64,5,2)",
        lambda: (MSELossFlat(), randn(64, 10), randn(64, 5, 2)),
    ),
    case(
        "one-hot-for-softmax",
        "FocalFlat one-hot",
        lambda: (FocalLossFlat(), randn(64, 5), one_hot(5, 64).float()),
    ),
    case(
        "multi-hot-for-softmax",
        "LabelSmooth multihot",
        lambda: (LabelSmoothingCrossEntropy(), randn(64, 5), integers(2, 64, 5).float()),
    ),
    case(
        "multi-hot-for-softmax",
        "multi-hot to CE long",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), integers(2, 8, 5)),
    ),
    case(
        "multi-hot-for-softmax",
        "multi-hot to CE float",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), integers(2, 8, 5).float()),
    ),
    case(
        "one-hot-for-softmax",
        "one-hot CE long",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), one_hot(5, 8)),
    ),
    case(
        "ok",
        "one-hot CE float ok",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), one_hot(5, 8).float()),
    ),
    case(
        "target-dtype",
        "one-hot CE double",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), one_hot(5, 8).double()),
        certain=False,
    ),
    case(
        "one-hot-for-softmax",
        "one-hot (N,1,C) CE",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), one_hot(5, 8)[:, None].float()),
    ),
    case(
        "n-outputs",
        "one-hot N+1 classes CE float",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), one_hot(6, 8).float()),
    ),
    case(
        "trailing-axis",
        "pred (N,C,1)",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5, 1), integers(5, 8)),
    ),
    case(
        "class-axis",
        "pred (N,1,C)",
        lambda: (nn.CrossEntropyLoss(), randn(8, 1, 5), integers(5, 8)),
    ),
    case(
        "trailing-axis",
        "pred (N,1,C) BCE",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 1, 5), integers(2, 8, 5).float()),
    ),
    case(
        "rows",
        "pred (N,C,H,W) BCE (N,C)",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 5, 4, 4), integers(2, 8, 5).float()),
    ),
    case(
        "rows",
        "patch gan BCE (N,1,4,4) vs (N,1)",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 1, 4, 4), torch.ones(8, 1)),
    ),
    case(
        "trailing-axis", "gan BCE (N,1) vs (N,)", lambda: (nn.BCELoss(), rand(8, 1), torch.ones(8))
    ),
    case("rows", "gan BCE last batch", lambda: (nn.BCELoss(), rand(5, 1), torch.ones(8, 1))),
    case(
        "trailing-axis",
        "gan bce (N,1,1,1)/(N,)",
        lambda: (nn.BCELoss(), rand(8, 1, 1, 1), torch.ones(8)),
    ),
    case(
        "class-indices-for-bce",
        "BCE 2 out vs (N,1)",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 2), integers(2, 8, 1).float()),
    ),
    case(
        "class-indices-for-bce",
        "BCE 2 out vs (N,)",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 2), integers(2, 8).float()),
    ),
    case(
        "n-outputs",
        "BCE 1 out vs (N,2) onehot",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 1), one_hot(2, 8).float()),
    ),
    case(
        "class-indices-for-bce",
        "BCELoss softmax 2 vs (N,)",
        lambda: (nn.BCELoss(), randn(8, 2).softmax(1), integers(2, 8).float()),
    ),
    case(
        "class-indices-for-bce",
        "BCE 1 out vs class idx",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 1), integers(5, 8).float()),
    ),
    case(
        "extra-target-axis",
        "BCE extra time",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 5), integers(2, 8, 12, 5).float()),
    ),
    case(
        "several-outputs",
        "inception tuple",
        lambda: (nn.CrossEntropyLoss(), (randn(8, 5), randn(8, 5)), integers(5, 8)),
    ),
    case(
        "several-outputs",
        "dict out",
        lambda: (nn.CrossEntropyLoss(), {"out": randn(2, 5, 8, 8)}, integers(5, 2, 8, 8)),
    ),
    case(
        "several-outputs",
        "targ list",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), [1, 2, 3, 4, 0, 1, 2, 3]),
    ),
    case(
        "several-outputs",
        "targ list of tensors",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), (integers(5, 8), integers(5, 8))),
    ),
    case(
        "prediction-dtype",
        "pred argmaxed",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5).argmax(1), integers(5, 8)),
    ),
    case(
        "single-logit-softmax",
        "pred argmaxed float",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5).argmax(1).float(), integers(5, 8)),
    ),
    case(
        "prediction-dtype",
        "pred long BCE",
        lambda: (nn.BCELoss(), integers(2, 8, 1), integers(2, 8, 1).float()),
    ),
    case(
        "prediction-dtype",
        "swapped CE",
        lambda: (nn.CrossEntropyLoss(), integers(5, 8), randn(8, 5)),
    ),
    case(
        "target-range",
        "swapped BCE",
        lambda: (nn.BCEWithLogitsLoss(), integers(2, 64, 10).float(), randn(64, 10)),
    ),
    case("ok", "KL", lambda: (nn.KLDivLoss(), randn(8, 5).log_softmax(1), rand(8, 5).softmax(1))),
    case(
        "class-indices-for-soft-targets",
        "KL labels",
        lambda: (nn.KLDivLoss(reduction="batchmean"), randn(8, 5).log_softmax(1), integers(5, 8)),
    ),
    case("silent-broadcast", "GaussNLL", lambda: (nn.L1Loss(), randn(8, 2), randn(8, 1))),
    case("ok", "Dice seg", lambda: (DiceLoss(), randn(2, 5, 8, 8), integers(5, 2, 8, 8))),
    case("ok", "half pred CE", lambda: (nn.CrossEntropyLoss(), randn(8, 5).half(), integers(5, 8))),
    case(
        "ok",
        "half pred, float soft",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5).half(), rand(8, 5).softmax(1)),
    ),
    case(
        "ok",
        "bf16 pred, float targ BCE",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 5).bfloat16(), integers(2, 8, 5).float()),
    ),
    case(
        "target-dtype",
        "half BCELoss f32 targ",
        lambda: (nn.BCELoss(), rand(8, 5).half(), integers(2, 8, 5).float()),
    ),
    case(
        "target-range",
        "percent targ BCE",
        lambda: (nn.BCEWithLogitsLoss(), randn(8, 5), rand(8, 5) * 100),
    ),
    case(
        "target-range",
        "CE soft percent",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), rand(8, 5).softmax(1) * 100),
    ),
    case(
        "target-range",
        "CE soft logits as target (distill)",
        lambda: (nn.CrossEntropyLoss(), randn(8, 5), randn(8, 5)),
    ),
    case(
        "class-axis",
        "CE soft over axis -1 3d",
        lambda: (nn.CrossEntropyLoss(), randn(8, 12, 5), rand(8, 12, 5).softmax(-1)),
    ),
    case(
        "multi-hot-for-softmax",
        "CE multi-hot seg",
        lambda: (nn.CrossEntropyLoss(), randn(2, 3, 8, 8), integers(2, 2, 3, 8, 8).float()),
    ),
    case(
        "n-outputs",
        "BCE multi-hot one extra col",
        lambda: (BCEWithLogitsLossFlat(), randn(64, 10), integers(2, 64, 11).float()),
    ),
    case(
        "silent-broadcast",
        "scalar target",
        lambda: (nn.MSELoss(), randn(8, 1), torch.tensor(1.0)),
        certain=False,
    ),
    case("n-outputs", "RL, one value beside four", lambda: (nn.MSELoss(), randn(32), randn(32, 4))),
]

# The name is the thread, under https://github.com/
THREADS = [
    case(
        "trailing-axis",
        "pytorch/pytorch/issues/25663",
        lambda: (nn.BCEWithLogitsLoss(), randn(1, 491), bits(1, 1, 491)),
    ),
    case(
        "n-outputs",
        "pochih/FCN-pytorch/issues/15",
        lambda: (nn.BCEWithLogitsLoss(), randn(2, 20, 24, 32), bits(2, 32, 24, 32)),
    ),
    case(
        "n-outputs",
        "argusswift/YOLOv4-pytorch/issues/236",
        lambda: (
            nn.BCEWithLogitsLoss(reduction="none"),
            randn(2, 13, 13, 3, 10),
            bits(2, 13, 13, 3, 12),
        ),
    ),
    case(
        "rows",
        "Megvii-BaseDetection/YOLOX/issues/797",
        lambda: (nn.BCEWithLogitsLoss(reduction="none"), randn(16800, 1), bits(8400, 1)),
    ),
    case(
        "squeezed-batch",
        "pytorch/pytorch/issues/111645",
        lambda: (nn.BCELoss(), rand(1, 491), bits(491)),
    ),
    case(
        "rows",
        "pytorch/pytorch/issues/139031",
        lambda: (nn.CrossEntropyLoss(), randn(60, 3), integers(3, 10)),
    ),
    case(
        "rows",
        "gauthierdmn/question_generation/issues/4",
        lambda: (nn.NLLLoss(), randn(1216, 50).log_softmax(1), integers(50, 1280)),
    ),
    case(
        "silent-broadcast",
        "weka511/hpa-scc/issues/38",
        lambda: (nn.MSELoss(), randn(1, 18), bits(8, 18)),
    ),
    case(
        "ok",
        "yandexdataschool/nlp_course/pull/110",
        lambda: (F.mse_loss, randn(1, 128), torch.linspace(-1, 1, 128)),
    ),
    case(
        "silent-broadcast",
        "jiaqingxie/DeepProtein/issues/1",
        lambda: (nn.MSELoss(), randn(66, 3, 1), randn(66)),
    ),
    case(
        "silent-broadcast",
        "andrewgcodes/xlstm/issues/4",
        lambda: (nn.MSELoss(), randn(10, 1), randn(1, 1)),
        certain=False,
    ),
    case(
        "ok",
        "DeepReinforcementLearning/DeepReinforcementLearningInAction/issues/15",
        lambda: (nn.MSELoss(), randn(()), randn(1)),
    ),
    case(
        "silent-broadcast",
        "sunwuzhou03/reinforcement-learning-lab/issues/1",
        lambda: (F.mse_loss, randn(64, 1), randn(64, 4)),
    ),
    case(
        "silent-broadcast",
        "hustvl/DiffusionDriveV2/issues/29",
        lambda: (F.l1_loss, randn(64, 80, 8, 3), randn(64, 1, 8, 3)),
        certain=False,
    ),
    case(
        "silent-broadcast",
        "Photon-AI-Research/NeuralSolvers/issues/20",
        lambda: (F.mse_loss, randn(50, 1), randn(50)),
    ),
    case(
        "ok",
        "AIStream-Peelout/flow-forecast/issues/246",
        lambda: (nn.MSELoss(), randn(1, 1, 1), randn(1, 1)),
    ),
    case(
        "rows",
        "surajdakua/Crowd-Counting-Using-Pytorch/issues/4",
        lambda: (nn.MSELoss(), randn(1, 1, 12, 16), rand(1, 1, 96, 128)),
    ),
    case(
        "class-weight-dtype",
        "pytorch/pytorch/issues/101213",
        lambda: (
            nn.CrossEntropyLoss(weight=torch.LongTensor([1, 2, 3])),
            randn(3, 3),
            integers(3, 3),
        ),
    ),
    case(
        "target-dtype",
        "pytorch/pytorch/issues/103813",
        lambda: (nn.CrossEntropyLoss(), randn(4, 59, 16, 16), randn(4, 16, 16)),
    ),
    case(
        "empty-target",
        "Google-Health/medgemma/issues/12",
        lambda: (nn.CrossEntropyLoss(), randn(1324, 50), integers(50, 0)),
    ),
    case(
        "trailing-axis",
        "Arctanxy/W-Net-PyTorch/issues/15",
        lambda: (nn.BCELoss(), rand(46, 1), bits(46)),
    ),
    case(
        "target-dtype",
        "qubvel-org/segmentation_models.pytorch/issues/197",
        lambda: (nn.CrossEntropyLoss(), randn(2, 12, 16, 16), integers(12, 2, 16, 16).float()),
    ),
    case(
        "extra-target-axis",
        "WinnieLaugh/StructuredTriplet/issues/1",
        lambda: (nn.CrossEntropyLoss(), randn(32, 5), integers(5, 32, 16, 16)),
    ),
    case(
        "rows",
        "dxli94/WLASL/issues/18",
        lambda: (F.binary_cross_entropy_with_logits, randn(1, 100, 75), integers(75, 1)),
    ),
    case(
        "single-logit-softmax",
        "pytorch/pytorch/issues/5554",
        lambda: (nn.CrossEntropyLoss(), torch.tensor([0.0174, 0.0166]), torch.tensor([0, 1])),
    ),
]
