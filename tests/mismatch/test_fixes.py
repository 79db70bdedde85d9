"""Every fix is run as it stands, and what the loss then computes is compared or diagnosed again."""

import copy
import re
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from multilabel_mnist.losses import read_loss
from multilabel_mnist.mismatch import diagnose
from multilabel_mnist.mismatch.facts import Facts
from multilabel_mnist.mismatch.fixes import changes_the_model, tried
from multilabel_mnist.mismatch.table import CAUSES, find

from .cases import CASES, REPORTS, THREADS, build
from .fix_cases import FIX_CASES, LABELS, LOGITS, ONE_HOT
from .maker import STEADY
from .wrong import WRONG

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size")
NAMES = dict(torch=torch, nn=nn, F=F)


def quietly_diagnosed(loss, pred, targ):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return diagnose(loss, pred, targ)


def run_fix(fix, loss, pred, targ, model=None, x=None):
    """Return the names after a fix; a model that the fix changed computes its prediction anew."""
    names = NAMES | dict(loss_func=loss, pred=pred, targ=targ, model=model, x=x)
    exec(fix, names)
    if "model[" in fix or "model = " in fix:
        names["pred"] = names["model"](x)
    return names


def function_after(names):
    """Return the loss after a fix, or the metric that it made."""
    return names.get("metrics", names["loss_func"])


def loss_after(names):
    return torch.as_tensor(function_after(names)(names["pred"], names["targ"]))


def own(loss):
    """Return a copy, since a fix may set the weights of a loss."""
    if type(loss).__name__ == "function":
        return loss
    if isinstance(loss, partial) and not isinstance(loss.func, nn.Module):
        return partial(loss.func, *loss.args, **loss.keywords)
    return copy.deepcopy(loss)


# The first fix


@pytest.mark.parametrize("case", FIX_CASES, ids=lambda case: f"{case.cause}: {case.name}")
def test_the_first_fix_gives_what_is_right(case):
    model = own(case.model) if case.model is not None else None
    loss = own(case.loss)
    pred = model(case.inputs).detach() if case.pred is None else case.pred
    d = quietly_diagnosed(loss, pred, case.targ)
    assert d.cause == case.cause, d
    names = run_fix(d.fixes[0], loss, pred, case.targ, model, case.inputs)
    right = case.right
    if callable(right):
        right = right() if model is None else right(names["model"])
    value = loss_after(names).detach().as_subclass(Tensor)
    assert_close(value, right.detach().float(), rtol=1e-4, atol=1e-5)


def test_there_is_a_case_for_every_cause():
    tried = {case.cause for case in FIX_CASES}
    # One needs a second device, and one to be told of backward(): each has tests of its own.
    assert {cause.slug for cause in CAUSES} - tried == {"other-device", "loss-not-reduced"}


def says_which_layer(fix):
    """Whether a fix that changes the model says which layer, or asks the model again."""
    return re.search(r"\bmodel\[-\d\]|\bmodel\[:-\d\]|\bmodel\(x\)", fix)


def check_first_fix(loss, pred, targ):
    """Run the first fix on the tensors it was offered for, if there is one."""
    d = quietly_diagnosed(loss, pred, targ)
    assert d.ok or d.fixes or d.cause == "rows", d
    if not d.fixes:
        return
    if changes_the_model(d.fixes[0]):
        assert says_which_layer(d.fixes[0]), d
    else:
        value = loss_after(run_fix(d.fixes[0], own(loss), pred, targ))
        assert value.isfinite().all(), d


@pytest.mark.parametrize("case", CASES + THREADS, ids=lambda case: case.name)
def test_the_first_fix_of_a_case_computes_a_finite_loss(case):
    for seed in range(3):
        torch.manual_seed(seed)
        check_first_fix(*case.make())


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report["id"])
def test_the_first_fix_of_a_report_computes_a_finite_loss(report):
    check_first_fix(*build(report))


# Any fix


def last_activation(loss, cause):
    """Return what a model ends with whose prediction goes into this loss."""
    kind = read_loss(loss).kind
    if cause == "double-activation":
        return [nn.Sigmoid() if kind == "sigmoid" else nn.Softmax(1)]
    if kind == "probs":
        return [nn.Sigmoid()]
    if kind == "nll":
        return [nn.LogSoftmax(1)]
    return []


def model_like(loss, pred, cause):
    """Return a model that could have made this prediction, and an input for it."""
    n_outputs = pred.shape[1] if pred.ndim > 1 else 1
    if pred.ndim < 3:
        layer = nn.Linear(6, n_outputs)
    else:
        convolution = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[pred.ndim]
        layer = convolution(6, n_outputs, 1)
    model = nn.Sequential(layer, *last_activation(loss, cause))
    return model, torch.randn(pred.shape[:1] + (6,) + pred.shape[2:])


@pytest.mark.parametrize("kind", WRONG)
@settings(STEADY, max_examples=12)
@given(data=st.data())
def test_after_any_fix_the_loss_is_finite_and_nothing_is_wrong(kind, data):
    pair = data.draw(WRONG[kind].pairs)
    torch.manual_seed(0)
    d = quietly_diagnosed(*pair.args)
    for fix in d.fixes:
        if changes_the_model(fix):
            assert says_which_layer(fix), d
        model, x = model_like(pair.loss, pair.pred, WRONG[kind].cause)
        names = run_fix(fix, own(pair.loss), pair.pred, pair.targ, model, x)
        assert loss_after(names).isfinite().all(), f"{pair}\n{d}"
        after = quietly_diagnosed(function_after(names), names["pred"], names["targ"])
        assert after.ok, f"{pair}\n{d}\n\nthen {after}"


# Fixes that raise an error


@pytest.mark.parametrize("kind", WRONG)
@settings(STEADY, max_examples=12)
@given(data=st.data())
def test_a_fix_that_raises_an_error_is_not_offered(kind, data):
    pair = data.draw(WRONG[kind].pairs)
    torch.manual_seed(0)
    for fix in quietly_diagnosed(*pair.args).fixes:
        if not changes_the_model(fix):
            loss_after(run_fix(fix, own(pair.loss), pair.pred, pair.targ))


RAISES = ["targ = targ.reshape(3, 5, 7)", "pred = pred.no_such_method()", "loss_func = 1 / 0"]
RIGHT_CODE = {
    "sigmoid": (nn.BCEWithLogitsLoss(), LABELS, "targ = F.one_hot(targ, 3).float()"),
    "softmax": (nn.CrossEntropyLoss(), ONE_HOT.long(), "targ = targ.argmax(1)"),
    "distance": (nn.MSELoss(), ONE_HOT[:, :2], "targ = F.pad(targ, (0, 1))"),
}


@pytest.mark.parametrize("raises", RAISES)
@pytest.mark.parametrize("name", RIGHT_CODE)
def test_code_that_raises_an_error_is_dropped(name, raises):
    loss, targ, right = RIGHT_CODE[name]
    f = Facts(loss, LOGITS, targ)
    assert tried(f, [raises, right]) == (right,)
    assert tried(f, [raises]) == ()


@pytest.mark.parametrize(
    "loss, shape",
    [
        (nn.CrossEntropyLoss(), (4, 1)),
        (F.cross_entropy, (1, 4)),
        (nn.CrossEntropyLoss(label_smoothing=0.1), (4, 1, 1)),
        (nn.NLLLoss(), (4, 1)),
        (partial(F.nll_loss), (4, 1)),
    ],
)
def test_a_fix_that_helps_in_part_is_completed(loss, shape):
    """Two things are wrong: the shape of the labels, and that they are counted from 1."""
    pred = LOGITS.log_softmax(1)
    targ = LABELS.reshape(shape) + 1
    d = quietly_diagnosed(loss, pred, targ)
    value = loss_after(run_fix(d.fixes[0], loss, pred, targ))
    assert_close(value, loss(pred, LABELS))


@pytest.mark.parametrize("n_outputs", [2, 5, 12])
@pytest.mark.parametrize(
    "loss, shape, layer",
    [
        (nn.BCEWithLogitsLoss(), (4,), "model[-1] = nn.Linear(model[-1].in_features"),
        (nn.BCELoss(), (4,), "model[-2] = nn.Linear(model[-2].in_features"),
        (nn.BCEWithLogitsLoss(), (4, 6, 6), "model[-1] = nn.Conv2d(model[-1].in_channels"),
        (nn.MSELoss(), (4,), "model[-1] = nn.Linear(model[-1].in_features"),
    ],
)
def test_a_fix_that_needs_the_model_names_the_layer(loss, shape, layer, n_outputs):
    pred = torch.rand(shape[0], 3, *shape[1:])
    targ = (torch.rand(shape[0], n_outputs, *shape[1:]) > 0.5).float()
    (fix,) = quietly_diagnosed(loss, pred, targ).fixes
    assert fix.startswith(f"{layer}, {n_outputs}")
    place = "in front of the activation" if "-2" in layer else "the last layer"
    assert place in fix.splitlines()[0]
    assert not find(Facts(loss, targ * 0.5 + 0.25, targ))
