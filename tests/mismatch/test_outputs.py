"""Predictions that are no tensor: dictionaries, tuples and objects, with the gradients of a model.

A loss that takes them is judged by the prediction in them; one that does not is told which part it
needs.
"""

import pytest
import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.metrics import accuracy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from mismatch.containers import (
    CONTAINERS,
    DICTS,
    OBJECTS,
    both_heads,
    cross_entropy,
    dice,
    focal,
    main_logits,
)
from mismatch.frozen import frozen, same
from mismatch.maker import STEADY, Maker
from multilabel_mnist.explain import ExplainMismatch, MismatchError, explain
from multilabel_mnist.mismatch import diagnose
from multilabel_mnist.mismatch.parts import find_parts, main_part
from multilabel_mnist.trial import copy_data

all_containers = pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS.keys())
N_CLASSES = 4
PLACES = {"rows": (), "words": (6,), "pixels": (5, 7)}
all_places = pytest.mark.parametrize("places", PLACES.values(), ids=PLACES.keys())


def with_gradients(make, *shape):
    """Return two heads in the middle of a graph, in a container."""
    weight = torch.ones(shape[1:], requires_grad=True)
    return make(torch.randn(shape) * weight, torch.randn(shape) * weight)


def run(fix, loss, pred, targ):
    names = dict(torch=torch, nn=nn, F=F, loss_func=loss, pred=copy_data(pred), targ=targ)
    exec(fix, names)
    return names["loss_func"](names["pred"], names["targ"])


@all_containers
def test_a_copy_is_of_the_same_class_and_shares_no_tensor(make):
    outputs = with_gradients(make, 3, N_CLASSES)
    before = [part.tensor for part in find_parts(outputs)]
    copied = copy_data(outputs, "cpu")
    assert type(copied) is type(outputs)
    after = [part.tensor for part in find_parts(copied)]
    assert_close(before, after)
    # A copy of the parts has the same ways to each of them.
    codes = [part.code for part in find_parts(copied)]
    assert codes == [part.code for part in find_parts(outputs)]
    if not hasattr(outputs, "__deepcopy__"):
        assert not any(a is b for a, b in zip(before, after, strict=True))
    assert all(t.is_leaf or not t.grad_fn or t.requires_grad for t in after)


# A loss that takes them


@all_places
@all_containers
@pytest.mark.parametrize("loss", [cross_entropy, focal])
def test_a_loss_of_several_heads_that_computes_a_number_is_right(make, places, loss):
    pred = with_gradients(make, 3, N_CLASSES, *places)
    targ = torch.randint(0, N_CLASSES, (3, *places))
    d = diagnose(both_heads(loss), pred, targ)
    assert d.ok and d.certain and not d.fixes, d
    assert d.pred_shape == (3, N_CLASSES, *places)


@all_places
@all_containers
@pytest.mark.parametrize("loss", [F.binary_cross_entropy_with_logits, dice])
def test_labels_for_a_sigmoid_loss_of_several_heads_are_told(make, places, loss):
    pred = with_gradients(make, 3, N_CLASSES, *places)
    targ = torch.randint(0, N_CLASSES, (3, *places))
    targ.view(-1)[:2] = torch.tensor([0, N_CLASSES - 1])
    d = diagnose(both_heads(loss), pred, targ)
    assert d.cause == "class-indices-for-bce" and d.certain and not d.silent, d
    one_hot = F.one_hot(targ, N_CLASSES).movedim(-1, 1).float()
    expected = both_heads(loss)(pred, one_hot)
    assert_close(run(d.fixes[0], both_heads(loss), pred, targ), expected)


@all_containers
@pytest.mark.parametrize("loss", [cross_entropy, focal])
def test_classes_on_the_last_axis_are_moved_in_every_head(make, loss):
    pred = with_gradients(make, 3, 6, N_CLASSES)
    targ = torch.randint(0, N_CLASSES, (3, 6))
    d = diagnose(both_heads(loss), pred, targ)
    assert d.cause == "class-axis", d
    moved = make(*[head.movedim(2, 1) for head in (main_logits(pred), _second(pred))])
    assert_close(run(d.fixes[0], both_heads(loss), pred, targ), both_heads(loss)(moved, targ))


def _second(outputs):
    """Return the second head, or a stand-in where the model returned one only."""
    heads = [part.tensor for part in find_parts(outputs)]
    alike = [t for t in heads if t.shape == main_logits(outputs).shape]
    others = [t for t in alike if t is not main_logits(outputs)]
    return others[0] if others else main_logits(outputs)


@all_places
@all_containers
def test_a_void_label_in_a_loss_of_several_heads_is_told(make, places):
    pred = with_gradients(make, 3, N_CLASSES, *places)
    targ = torch.randint(0, N_CLASSES, (3, *places))
    targ.view(-1)[-1] = 255
    d = diagnose(both_heads(cross_entropy), pred, targ)
    assert d.cause == "label-out-of-range" and d.certain, d


def test_auxiliary_heads_of_other_sizes_are_no_reason_to_call_a_loss_wrong():
    def deep_supervision(outputs, targ):
        sized = [F.interpolate(maps, targ.shape[-2:]) for maps in outputs]
        return sum(F.cross_entropy(maps, targ) for maps in sized)

    maps = torch.randn(2, 3, 16, 16, requires_grad=True) * 2
    pyramid = [maps, maps[..., ::2, ::2], maps[..., ::4, ::4]]
    targ = torch.randint(0, 3, (2, 16, 16))
    assert diagnose(deep_supervision, pyramid, targ).ok
    d = diagnose(deep_supervision, pyramid, targ[:, None])
    assert d.cause == "extra-target-axis", d


# A loss of one tensor


SOFTMAX = [nn.CrossEntropyLoss(), F.cross_entropy, CrossEntropyLossFlat(), focal, accuracy]


@all_containers
@pytest.mark.parametrize("loss", SOFTMAX, ids=lambda loss: getattr(loss, "__name__", str(loss)))
def test_a_loss_of_one_tensor_is_told_to_take_the_prediction(make, loss):
    pred = with_gradients(make, 5, N_CLASSES)
    targ = torch.arange(5) % N_CLASSES
    d = diagnose(loss, pred, targ)
    assert d.cause == "several-outputs" and d.certain and not d.silent, d
    assert_close(run(d.fixes[0], loss, pred, targ), loss(main_logits(pred), targ))


@all_places
@all_containers
@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), BCEWithLogitsLossFlat(), dice])
def test_what_is_wrong_with_the_prediction_itself_is_fixed_as_well(make, places, loss):
    pred = with_gradients(make, 5, N_CLASSES, *places)
    targ = torch.randint(0, N_CLASSES, (5, *places))
    targ.view(-1)[:2] = torch.tensor([0, N_CLASSES - 1])
    d = diagnose(loss, pred, targ)
    assert d.cause == "several-outputs", d
    one_hot = F.one_hot(targ, N_CLASSES).movedim(-1, 1).float()
    assert_close(run(d.fixes[0], loss, pred, targ), loss(main_logits(pred), one_hot))
    assert "; then one-hot encode the labels" in d.explanation


@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS.keys())
def test_an_attribute_is_read_as_an_attribute(make):
    outputs = with_gradients(make, 5, N_CLASSES)
    d = diagnose(nn.CrossEntropyLoss(), outputs, torch.arange(5) % N_CLASSES)
    assert d.fixes == ("pred = pred.logits",)
    assert "[5, 4] is the prediction pred.logits" in d.explanation


@pytest.mark.parametrize("make", DICTS.values(), ids=DICTS.keys())
def test_a_key_is_read_as_a_key(make):
    outputs = with_gradients(make, 5, N_CLASSES)
    d = diagnose(nn.CrossEntropyLoss(), outputs, torch.arange(5) % N_CLASSES)
    assert d.fixes == ("pred = pred['out']",)


def test_the_part_that_fits_is_taken_where_no_name_tells():
    pred = {"states": torch.randn(5, 9, 9), "scores": torch.randn(5, N_CLASSES)}
    d = diagnose(nn.CrossEntropyLoss(), pred, torch.arange(5) % N_CLASSES)
    assert d.fixes == ("pred = pred['scores']",)


@pytest.mark.parametrize(
    "pred", [None, "a text", [], {}, object()], ids=["None", "text", "list", "dict", "object"]
)
def test_what_holds_no_tensor_is_told_without_a_fix_that_raises(pred):
    d = diagnose(nn.CrossEntropyLoss(), pred, torch.arange(5))
    assert d.cause == "several-outputs" and not d.ok
    assert not [fix for fix in d.fixes if "as_tensor" in fix and pred != []]


def test_a_loss_that_takes_no_form_of_it_is_not_explained():
    def own(outputs, targ):
        return outputs["scores"].mean() + outputs["missing"]

    d = diagnose(own, {"scores": torch.randn(4, 3)}, torch.arange(4) % 3)
    assert d.cause == "unexplained" and not d.certain


# Nothing changes


@all_containers
@pytest.mark.parametrize("loss", [both_heads(F.cross_entropy), nn.BCEWithLogitsLoss()])
def test_the_outputs_and_their_graph_stay_as_they_were(make, loss):
    weight = torch.ones(N_CLASSES, requires_grad=True)
    pred = make(torch.randn(3, N_CLASSES) * weight, torch.randn(3, N_CLASSES) * weight)
    before = [frozen(part.tensor) for part in find_parts(pred)]
    diagnose(loss, pred, torch.arange(3))
    assert same(before, [frozen(part.tensor) for part in find_parts(pred)])
    main_part(pred).tensor.sum().backward()
    assert weight.grad is not None


@all_containers
@settings(STEADY, max_examples=25)
@given(data=st.data())
def test_any_right_pair_in_a_container_is_right(make, data):
    m = data.draw(st.composite(Maker)())
    n_classes, places = m.integer(2, 12), m.places()
    logits = m.logits(m.integer(1, 9), n_classes, *places).requires_grad_() * 1
    pred = make(logits, logits * 2)
    if m.flip():
        loss, targ = F.cross_entropy, m.labels(n_classes, len(logits), *places)
    else:
        loss, targ = F.binary_cross_entropy_with_logits, m.bits(*logits.shape)
    d = diagnose(both_heads(loss), pred, targ)
    assert d.ok and not d.fixes, d


# In a traceback and in a fit


def error_of(loss, pred, targ):
    """Return the error that a loss raises."""
    with pytest.raises((TypeError, AttributeError, ValueError, RuntimeError)) as caught:
        loss(pred, targ)
    return caught.value


@all_containers
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.cross_entropy, CrossEntropyLossFlat()])
def test_explain_finds_the_call_whatever_the_model_returned(make, loss):
    pred = with_gradients(make, 5, N_CLASSES)
    targ = torch.arange(5) % N_CLASSES
    d = explain(error_of(loss, pred, targ))
    assert d.cause == "several-outputs", d
    assert d.fixes == diagnose(loss, pred, targ).fixes


class Network(nn.Module):
    """A model that returns two heads in a container."""

    def __init__(self, make):
        super().__init__()
        self.make = make
        self.linear = nn.Linear(3, N_CLASSES)

    def forward(self, x):
        logits = self.linear(x)
        return self.make(logits, logits * 2)


def fit(make, loss, metrics=()):
    """Train for an epoch, with the callback; return nothing."""
    items = [(torch.randn(3), torch.tensor(i % N_CLASSES)) for i in range(16)]
    loaders = [DataLoader(items, bs=8, num_workers=0) for _ in range(2)]
    learn = Learner(
        DataLoaders(*loaders),
        Network(make),
        loss_func=loss,
        cbs=ExplainMismatch(),
        metrics=list(metrics),
    )
    learn.logger = lambda *args: None
    if hasattr(learn, "progress"):
        learn.remove_cb(learn.progress)
    learn.fit(1)


@all_containers
@pytest.mark.filterwarnings("error:ExplainMismatch could not check")
def test_a_fit_with_a_loss_that_takes_several_outputs_runs(make):
    fit(make, both_heads(F.cross_entropy))


@all_containers
@pytest.mark.filterwarnings("error:ExplainMismatch could not check")
def test_a_fit_with_several_outputs_and_a_wrong_loss_is_explained(make):
    with pytest.raises(MismatchError) as caught:
        fit(make, nn.CrossEntropyLoss())
    assert caught.value.diagnosis.cause == "several-outputs"
    with pytest.raises(MismatchError) as caught:
        fit(make, both_heads(F.binary_cross_entropy_with_logits))
    assert caught.value.diagnosis.cause == "class-indices-for-bce"


@all_containers
def test_a_metric_of_one_tensor_is_explained_before_the_epoch_ends(make):
    with pytest.raises(MismatchError) as caught:
        fit(make, both_heads(F.cross_entropy), [accuracy])
    assert caught.value.diagnosis.cause == "several-outputs"
    assert caught.value.diagnosis.loss_name == "accuracy"
