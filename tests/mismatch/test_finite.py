"""NaN and infinity are looked at first, and stop a fit at its first batch."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback  # noqa: F401, gives Learner its no_bar
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.metrics import accuracy, accuracy_multi
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.loss import BinaryCrossEntropy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.ops import sigmoid_focal_loss

from multilabel_mnist.explain import ExplainMismatch, MismatchError
from multilabel_mnist.losses import read_loss
from multilabel_mnist.masked import MaskedBCEWithLogitsLoss
from multilabel_mnist.mismatch import diagnose

from .maker import STEADY, Maker
from .right import RIGHT, leaves_out_nan, leaves_out_negative
from .wrong import WRONG

NAN, INF = math.nan, math.inf
LOSSES = {
    "sigmoid": nn.BCEWithLogitsLoss(),
    "sigmoid, flat": BCEWithLogitsLossFlat(),
    "sigmoid, not reduced": nn.BCEWithLogitsLoss(reduction="none"),
    "focal": sigmoid_focal_loss,
    "timm": BinaryCrossEntropy(target_threshold=0.2),
    "square": nn.MSELoss(),
    "square, flat": MSELossFlat(),
    "absolute": F.l1_loss,
    "Huber": nn.HuberLoss(),
    "softmax": nn.CrossEntropyLoss(),
    "metric": accuracy_multi,
}
SHAPES = [(8, 3), (2, 3, 4, 5), (8, 1)]
DTYPES = [torch.float32, torch.float64, torch.float16]
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@every_loss
@every_shape
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("number", [NAN, INF])
def test_a_target_that_is_not_finite_is_told_first(loss, shape, dtype, number):
    pred = torch.randn(shape, dtype=dtype)
    targ = torch.randint(0, 2, shape).to(dtype)
    targ[0] = number
    d = diagnose(loss, pred, targ)
    assert d.cause == "target-not-finite" and d.certain and not d.ok
    assert f"{targ.isfinite().logical_not().sum()} of the {targ.numel()} numbers" in d.explanation


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), F.cross_entropy, nn.NLLLoss(), accuracy])
@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize("shape", [(8,), (8, 1)], ids=str)
def test_labels_that_are_missing_are_told_first(loss, number, shape):
    labels = torch.tensor([0, 1, 2, number, 2, 1, 0, 1]).reshape(shape)
    assert diagnose(loss, torch.randn(8, 3), labels).cause == "target-not-finite"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_nan_that_was_cast_to_a_whole_number_is_recognized(dtype):
    labels = torch.tensor([0, 1, 2, torch.iinfo(dtype).min], dtype=dtype)
    for loss in (nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()):
        d = diagnose(loss, torch.randn(4, 3), labels)
        assert d.cause == "label-out-of-range" and "stores NaN" in d.explanation


@every_loss
@every_shape
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_prediction_that_is_nan_is_told_first(loss, shape, dtype):
    pred = torch.randn(shape, dtype=dtype)
    pred[0, 0] = NAN
    d = diagnose(loss, pred, torch.randint(0, 2, shape).to(dtype))
    assert d.cause == "prediction-not-finite" and d.certain and d.silent
    assert ("65504" in d.explanation) == (dtype == torch.float16)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), CrossEntropyLossFlat(), nn.NLLLoss()])
def test_a_class_that_is_forbidden_by_minus_infinity_is_no_mistake(loss):
    pred = torch.randn(6, 3)
    pred[:, 2] = -INF
    pred = pred.log_softmax(1)
    assert diagnose(loss, pred, torch.tensor([0, 1, 0, 1, 0, 1])).ok
    assert diagnose(loss, pred, torch.tensor([0, 1, 2, 1, 0, 1])).cause == "prediction-not-finite"


class MaskedMSE(nn.Module):
    """A loss that leaves out what is NaN or negative."""

    def forward(self, pred, targ):
        known = targ.isfinite() & (targ > -9)
        return (pred[known] - targ[known]).square().mean()


class MaskedFlat(BCEWithLogitsLossFlat):
    """The same as a loss of fastai's with a call of its own."""

    def __call__(self, pred, targ):
        known = targ.isfinite() & (targ >= 0)
        return super().__call__(pred[known], targ[known])


def weighed(pred, targ):
    """Give a weight of 0 to what is not known."""
    known = targ.isfinite()
    targ = targ.nan_to_num(0, 0, 0)
    return F.binary_cross_entropy_with_logits(pred, targ, weight=known.float())


MASKED = {
    "ours": MaskedBCEWithLogitsLoss(),
    "function": leaves_out_nan,
    "module": MaskedMSE(),
    "flat": MaskedFlat(),
    "weight": weighed,
    "partial": partial(leaves_out_nan),
}


@pytest.mark.parametrize("loss", MASKED.values(), ids=MASKED.keys())
@settings(STEADY, max_examples=25)
@given(data=st.data())
def test_a_loss_that_leaves_out_what_is_not_known_is_right(loss, data):
    m = Maker(data.draw)
    shape = (m.batch(), m.classes(), *m.places())
    unknown = m.uniform(*shape) < 0.3
    unknown.view(-1)[0] = False
    targ = torch.where(unknown, NAN, m.bits(*shape))
    pred = m.logits(*shape)
    if m.flip():
        pred.requires_grad_()
    assert diagnose(loss, pred, targ).ok
    if pred.numel() > 1:  # nothing is known of these, and the mean is NaN
        assert not diagnose(leaves_out_negative, pred, torch.full(shape, -1.0)).ok


def where_known(pred, targ):
    losses = F.binary_cross_entropy_with_logits(pred, targ, reduction="none")
    return torch.where(targ.isnan(), 0.0, losses).mean()


def nan_sum(pred, targ):
    return (pred - targ).square().nansum()


@pytest.mark.parametrize("loss", [where_known, nan_sum])
@every_shape
def test_a_finite_loss_whose_gradient_is_not_is_told(loss, shape):
    targ = torch.randint(0, 2, shape).float()
    targ[0] = NAN
    pred = torch.randn(shape, requires_grad=True)
    value = loss(pred, targ)
    value.backward()
    assert value.isfinite() and pred.grad.isnan().any()
    d = diagnose(loss, pred.detach(), targ)
    assert d.cause == "target-not-finite" and "its gradient is not" in d.explanation


def test_a_masked_loss_that_fails_for_another_reason_is_told_that_reason():
    targ = torch.tensor([[0, NAN, 1]]).repeat(8, 1)
    d = diagnose(leaves_out_nan, torch.randn(8, 4), targ)
    assert d.cause == "n-outputs"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_loss_that_float32_could_hold_is_not_told(dtype):
    pred = torch.full((4, 3), 3e4, dtype=dtype)
    assert diagnose(nn.MSELoss(), pred, torch.zeros(4, 3, dtype=dtype)).ok


def with_numbers_spoiled(m: Maker, values):
    """Return a copy with NaN or infinity in some places, if the dtype can hold them."""
    if not values.is_floating_point() or not values.numel():
        return values
    values = values.detach().clone()
    numbers = torch.tensor([NAN, INF, -INF])[m.integers(3, *values.shape)].to(values.dtype)
    return torch.where(m.uniform(*values.shape) < m.pick(0.1, 0.5, 1), numbers, values)


PAIRS = {name: kind.pairs for name, kind in WRONG.items()} | RIGHT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", PAIRS)
@settings(STEADY, max_examples=15)
@given(data=st.data())
def test_numbers_that_are_not_finite_never_crash_diagnose(kind, data):
    pair = data.draw(PAIRS[kind])
    m = Maker(data.draw)
    pred, targ = pair.pred, pair.targ
    if m.flip():
        pred = with_numbers_spoiled(m, pred)
    if m.flip():
        targ = with_numbers_spoiled(m, targ)
    d = diagnose(pair.loss, pred, targ)
    known = read_loss(pair.loss).kind is not None
    if known and not targ.isfinite().all():
        assert d.cause == "target-not-finite", d
    assert not (known and pred.isnan().any() and d.ok), d


# In a fit


class StepCounter(Callback):
    """Count the batches whose step is taken."""

    def before_fit(self):
        self.steps = 0

    def after_step(self):
        self.steps += 1


def learner(x, y, loss, n_outputs=3):
    data = TensorDataset(x, y)
    dls = DataLoaders(DataLoader(data, batch_size=8), DataLoader(data, batch_size=8))
    model = nn.Sequential(nn.Linear(5, n_outputs))
    return Learner(dls, model, loss_func=loss, cbs=[StepCounter(), ExplainMismatch()])


def stopped(learn, cause):
    """Check that a fit stops at the first batch, before any weight changes."""
    before = [p.detach().clone() for p in learn.model.parameters()]
    with learn.no_bar(), learn.no_logging(), pytest.raises(MismatchError) as caught:
        learn.fit(1)
    assert caught.value.diagnosis.cause == cause
    assert learn.step_counter.steps == 0
    same = [torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True)]
    assert all(same)


@pytest.mark.parametrize("number", [NAN, INF])
@pytest.mark.parametrize(
    "loss", [BCEWithLogitsLossFlat(), nn.BCEWithLogitsLoss(), nn.MSELoss(), sigmoid_focal_loss]
)
def test_a_fit_stops_at_the_first_batch_with_a_target_that_is_not_finite(loss, number):
    y = torch.randint(0, 2, (32, 3)).float()
    y[::3, 1] = number
    stopped(learner(torch.randn(32, 5), y, loss), "target-not-finite")


def test_a_fit_stops_at_the_first_batch_with_a_label_that_is_missing():
    y = torch.randint(0, 3, (32,)).float()
    y[2] = NAN
    stopped(learner(torch.randn(32, 5), y, CrossEntropyLossFlat()), "target-not-finite")


@pytest.mark.parametrize("loss", [BCEWithLogitsLossFlat(), nn.MSELoss()])
def test_a_fit_stops_at_the_first_batch_with_an_input_that_is_nan(loss):
    x = torch.randn(32, 5)
    x[1, 1] = NAN
    stopped(learner(x, torch.randint(0, 2, (32, 3)).float(), loss), "prediction-not-finite")


@pytest.mark.parametrize("loss", [leaves_out_nan, MaskedFlat(), weighed])
def test_a_fit_with_a_loss_that_leaves_out_nan_runs(loss):
    y = torch.randint(0, 2, (32, 3)).float()
    y[::3, 1] = NAN
    learn = learner(torch.randn(32, 5), y, loss)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert learn.step_counter.steps == 4
    assert all(p.isfinite().all() for p in learn.model.parameters())


def test_a_fit_warns_of_a_batch_of_which_nothing_is_known():
    learn = learner(torch.randn(32, 5), torch.full((32, 3), -1.0), leaves_out_negative)
    with learn.no_bar(), learn.no_logging(), pytest.warns(UserWarning, match="left all of them"):
        with pytest.raises(MismatchError, match="in the prediction are NaN"):  # in validation
            learn.fit(1)
