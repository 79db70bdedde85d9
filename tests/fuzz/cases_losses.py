"""Cases of losses, of what is said about them, and of errors."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.metrics import accuracy, accuracy_multi
from fastai.torch_core import TensorCategory, TensorMultiCategory
from hypothesis import strategies as st
from torch import Tensor, nn

from multilabel_mnist.explain import explain
from multilabel_mnist.labels import BCEOneHotLossFlat, OneHot
from multilabel_mnist.losses import KINDS, loss_kind, probe_loss, read_loss
from multilabel_mnist.mismatch import Diagnosis, diagnose

from .cases_images import as_class
from .cases_values import (
    LABEL_DTYPES,
    case,
    of_size,
    scalar,
    targets_of,
)
from .expected import (
    need,
    need_choice,
    need_count,
    need_labels,
    need_targets,
    need_threshold,
    one_hot,
    softplus,
)
from .judge import UNSURE
from .values import (
    DTYPES,
    NONSENSE,
    Value,
    any_numbers,
    below,
    corrupted,
    no_numbers,
    normal,
    numbers,
    often,
    plain,
    scalars,
    zeros_and_ones,
)

TENSOR_FORMS = ("tensor", "tensor", "with stride", "with gradient", "image", "category")


# BCEOneHotLossFlat


def tensors_of(n, n_classes):
    """Draw logits as a tensor."""
    dtypes = (torch.float32, torch.float32, torch.float64)
    return numbers((n, n_classes), normal, dtypes, TENSOR_FORMS)


def weights_of(n, n_classes):
    """Draw weights per class, or None."""
    good = numbers((n_classes,), lambda rng, shape: rng.random(shape) + 0.5, odd=False)
    return st.one_of(st.just(plain(None)), st.just(plain(None)), good)


def are_on_one_device(arguments):
    """Say whether no tensor is on another device; torch's error for that is explained elsewhere."""
    return not any(isinstance(v.given, Tensor) and v.given.is_meta for v in arguments.values())


def value_of_loss(inp, targ, **settings):
    """Return the value of the loss with some settings, and in what it was computed."""
    return BCEOneHotLossFlat(**settings)(inp, targ), inp.dtype


def assert_same_loss(answer, expected):
    answer, dtype = answer
    assert tuple(answer.shape) == np.shape(expected), (answer.shape, np.shape(expected))
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(dtype, 5e-3)
    answer = answer.detach().double().numpy()
    np.testing.assert_allclose(answer, expected, rtol=tolerance, atol=tolerance)


@case(
    "convert.BCEOneHotLossFlat",
    value_of_loss,
    corrupted(
        of_size(
            inp=tensors_of,
            targ=targets_of,
            weight=weights_of,
            pos_weight=weights_of,
            reduction=lambda n, c: st.sampled_from(("mean", "sum", "none")).map(plain),
            thresh=lambda n, c: st.sampled_from((0.5, 0.2)).map(scalar),
        )
    ).filter(are_on_one_device),
    same=assert_same_loss,
)
def _(inp, targ, weight, pos_weight, reduction, thresh):
    need(isinstance(inp, np.ndarray) and inp.dtype.kind == "f" and inp.ndim == 2)
    need(0 not in inp.shape)
    targets = need_targets(targ, inp.shape)
    need_choice(reduction, ("mean", "sum", "none"))
    if isinstance(thresh, np.ndarray) and thresh.ndim:
        return UNSURE
    need_threshold(thresh, 1)
    n_classes = inp.shape[1]
    values = []
    for m in (weight, pos_weight):
        if m is not None:
            need(isinstance(m, np.ndarray) and m.shape == (n_classes,))
        values.append(np.ones(n_classes) if m is None else m)
    if not all(np.isfinite(m).all() for m in (inp, *values)):
        return UNSURE
    weight, pos_weight = values
    z = inp.astype("float64")
    loss = weight * (pos_weight * targets * softplus(-z) + (1 - targets) * softplus(z))
    reduce = {"mean": np.mean, "sum": np.sum, "none": np.asarray}
    res = reduce[reduction](loss)
    return res if np.isfinite(res).all() and np.abs(res).max() < 1e30 else UNSURE


# OneHot


def labels_are_a_tensor(arguments):
    """Say whether labels come as they do in a batch; `OneHot` leaves anything else alone."""
    return isinstance(arguments["labels"].given, Tensor)


@case(
    "convert.OneHot",
    lambda labels, n_classes: OneHot(n_classes)(as_class(labels, TensorCategory)),
    corrupted(
        of_size(
            labels=lambda n, c: numbers((n,), below(c), LABEL_DTYPES, ("tensor", "with stride")),
            n_classes=lambda n, c: st.just(scalar(c)),
        )
    ).filter(labels_are_a_tensor),
    same=lambda answer, expected: assert_one_hot(answer, expected),
    keeps=True,
)
def _(labels, n_classes):
    n_classes = need_count(n_classes)
    if not isinstance(labels, np.ndarray) or labels.ndim == 0:
        return UNSURE  # what is no tensor is left alone
    return one_hot(need_labels(labels, n_classes), n_classes)


def assert_one_hot(answer, expected):
    if isinstance(answer, Tensor) and type(answer) is TensorMultiCategory:
        assert answer.dtype == torch.float32
        np.testing.assert_array_equal(answer.numpy(), expected)


# What is said about losses

LOSSES = (
    (nn.CrossEntropyLoss(), "softmax"),
    (F.cross_entropy, "softmax"),
    (nn.NLLLoss(), "nll"),
    (nn.BCEWithLogitsLoss(), "sigmoid"),
    (F.binary_cross_entropy_with_logits, "sigmoid"),
    (nn.BCELoss(), "probs"),
    (nn.MSELoss(), "distance"),
    (BCEWithLogitsLossFlat(), "sigmoid"),
    (CrossEntropyLossFlat(), "softmax"),
    (BCEOneHotLossFlat(), "sigmoid"),
    (functools.partial(F.cross_entropy, label_smoothing=0.1), "softmax"),
    (accuracy, "accuracy"),
    (accuracy_multi, "accuracy_multi"),
    (lambda p, t: F.cross_entropy(p, t), "softmax"),
    (lambda p, t: F.binary_cross_entropy_with_logits(p, t), "sigmoid"),
    (lambda p, t: None, UNSURE),
    (lambda p, t: "loss", UNSURE),
    (lambda: 0, UNSURE),
    (print, UNSURE),
    (int, UNSURE),
)
TABLED = 13  # the first ones, which the table knows
loss_functions = st.sampled_from(LOSSES).map(lambda pair: Value(*pair))
not_functions = no_numbers.filter(lambda v: not callable(v.given)).map(
    lambda v: Value(v.given, NONSENSE)
)


def losses_or_anything(name):
    """Draw a loss, or sometimes what is none, as the argument of a name."""
    bad = st.one_of(not_functions, any_numbers.map(lambda v: Value(v.given, NONSENSE)), bad_scalars)
    return often(loss_functions, bad, odds=3).map(lambda value: {name: value})


bad_scalars = scalars.map(lambda v: Value(v.given, NONSENSE))


@case(
    "losses.read_loss",
    lambda loss_func: read_loss(loss_func).kind,
    losses_or_anything("loss_func"),
    same=lambda answer, expected: assert_kind(answer, expected, allow_none=True),
)
def _(loss_func):
    need(loss_func is not NONSENSE)
    return loss_func


def assert_kind(answer, expected, allow_none=False):
    assert answer == expected or (allow_none and answer is None)


def with_classes(extra=()):
    """Draw a loss and a number of classes."""
    return corrupted(
        st.fixed_dictionaries(
            {
                "loss_func": loss_functions,
                "n_classes": st.integers(1, 4).map(scalar),
                **dict(extra),
            }
        ),
        replacement=st.one_of(not_functions, scalars),
    )


def kind_case(name, function):
    """Enter the case of a function that names the kind of a loss."""

    @case(
        name,
        function,
        with_classes(),
        same=lambda answer, expected: assert_kind(answer, expected, allow_none=True),
        budget=120.0,
        examples=100,
    )
    def _(loss_func, n_classes):
        need(loss_func is not NONSENSE and not isinstance(loss_func, np.ndarray))
        n = need_count(n_classes)
        if n > 50 or n == 1 or loss_func in ("nll", "distance", "accuracy", "accuracy_multi"):
            return UNSURE  # a probe sees no difference to others there
        return loss_func


kind_case("losses.loss_kind", loss_kind)
kind_case("losses.probe_loss", probe_loss)


# diagnose


@st.composite
def calls(draw):
    """Draw a call of a loss."""
    n, c = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    shapes = ((n, c), (n,), (n, 1), (n, c, 2), (), (n, 2, 2, c))
    pred = numbers(draw(st.sampled_from(shapes[:1] * 3 + shapes)), normal, DTYPES, TENSOR_FORMS)
    targ = st.one_of(
        numbers(draw(st.sampled_from(shapes)), zeros_and_ones, DTYPES, TENSOR_FORMS),
        numbers((n,), below(c), DTYPES, TENSOR_FORMS),
    )
    return {"loss_func": draw(loss_functions), "pred": draw(pred), "targ": draw(targ)}


class Said:
    """What is known of a diagnosis without its causes: whether the call raises an error."""

    def __init__(self, is_known):
        self.is_known = is_known

    def check(self, answer):
        d, error = answer
        assert isinstance(d, Diagnosis) and str(d) and d._repr_html_()
        assert d.explanation.endswith((".", '"', "`")) or d.explanation, d.explanation
        assert (d.cause == "ok") == d.ok
        if error is not None and self.is_known:
            assert not d.ok and not d.silent, d.cause


def diagnose_and_call(loss_func, pred, targ):
    """Return a diagnosis, and the error that the call raises."""
    d = diagnose(loss_func, pred, targ)
    try:
        with torch.random.fork_rng(devices=[]):
            loss_func(pred, targ)
    except Exception as error:
        return d, error
    return d, None


@case(
    "mismatch.diagnose",
    diagnose_and_call,
    corrupted(calls()),
    same=lambda answer, expected: expected.check(answer),
    budget=300.0,
    examples=150,
)
def _(loss_func, pred, targ):
    if loss_func is NONSENSE:
        return UNSURE  # some of these can be called
    need(isinstance(loss_func, str) and loss_func in KINDS)
    is_known = all(isinstance(m, np.ndarray) for m in (pred, targ))
    return Said(is_known and isinstance(loss_func, str))


# explain


def raised(make):
    """Return an error with a traceback."""
    try:
        make()
    except Exception as error:
        return error


ERRORS = (
    raised(lambda: F.cross_entropy(torch.zeros(4, 3), torch.zeros(5).long())),
    raised(lambda: nn.BCEWithLogitsLoss()(torch.zeros(4, 3), torch.zeros(4))),
    raised(lambda: torch.zeros(3, requires_grad=True).backward()),
    raised(lambda: 1 / 0),
    ValueError("never raised"),
)


@case(
    "explain.explain",
    explain,
    often(
        st.sampled_from(ERRORS).map(plain),
        st.one_of(no_numbers, scalars, any_numbers),
        odds=2,
    ).map(lambda value: {"exc": value}),
    same=lambda answer, expected: expected.check((answer, None)),
    keeps=False,
)
def _(exc):
    return Said(False)
