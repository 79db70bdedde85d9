"""ExplainMismatch inside fastai's fit: what it stops, what it warns of, what it leaves alone."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explain_cases import MULTI, ROWS, SAYS, Y, caught, learner
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.mixup import MixUp
from fastai.learner import Learner, load_learner
from fastai.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    FocalLossFlat,
    LabelSmoothingCrossEntropyFlat,
    MSELossFlat,
)
from fastai.metrics import (
    APScoreMulti,
    F1Score,
    F1ScoreMulti,
    RocAucMulti,
    accuracy,
    accuracy_multi,
)
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, PILImageBW
from PIL import Image
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from multilabel_mnist import callback
from multilabel_mnist import explain as module
from multilabel_mnist.callback import count_classes, last_weight_rows, stop_fit, validation_targets
from multilabel_mnist.explain import ExplainMismatch, MismatchError, explain
from multilabel_mnist.labels import BCEOneHotLossFlat, exact_match
from multilabel_mnist.mismatch import diagnose


def replace_targets(dl, targets):
    """Give the examples of a DataLoader other targets."""
    inputs = [x for x, _ in dl.dataset]
    dl.dataset[:] = list(zip(inputs, targets, strict=True))


@pytest.mark.parametrize("c", [10, None], ids=["with-vocab", "without"])
def test_the_forums_error_becomes_a_MismatchError(c):
    loss = BCEWithLogitsLossFlat()
    learn = learner(Y, loss=loss, c=c, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    e = info.value
    assert isinstance(e, ValueError)
    assert e.diagnosis.cause == SAYS
    assert str(e) == e.diagnosis.explanation
    assert isinstance(e.__cause__, ValueError)
    assert "torch.Size([640])" in str(e.__cause__)
    assert learn.loss_func is loss
    assert explain(e) is e.diagnosis
    assert len(learn.ran) == (0 if c else 1)
    again = pickle.loads(pickle.dumps(e))
    assert str(again) == str(e)
    assert again.diagnosis.cause == SAYS


@pytest.mark.parametrize("how", ["class", "object", "fit", "add_cb"])
def test_however_it_is_given(how):
    cbs = {"class": ExplainMismatch, "object": ExplainMismatch()}.get(how)
    learn = learner(Y, loss=BCEWithLogitsLossFlat(), cbs=cbs)
    if how == "add_cb":
        learn.add_cb(ExplainMismatch())
    with pytest.raises(MismatchError):
        learn.fit(1, cbs=ExplainMismatch() if how == "fit" else None)


def test_a_later_batch_is_explained_too():
    learn = learner(torch.cat([Y, torch.full((64,), 12)]), cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    assert info.value.diagnosis.cause == "label-out-of-range"
    assert isinstance(info.value.__cause__, IndexError)
    assert len(learn.ran) == 3


def test_an_error_that_is_no_mismatch_passes_untouched():
    class Full(OSError):
        pass

    def loss(pred, targ):
        if len(learn.ran) > 1:
            raise Full("disk")
        return F.cross_entropy(pred, targ)

    learn = learner(Y, loss=loss, cbs=ExplainMismatch())

    def cancels(pred, targ):
        raise CancelFitException

    with pytest.raises(OSError):
        learn.fit(1)
    assert learn.loss_func is loss
    learn.loss_func = cancels
    learn.fit(1)


def test_on_a_gpu_the_call_that_would_end_it_is_not_made():
    class OnGpu(torch.Tensor):
        is_cuda = property(lambda self: True)

    def never(pred, targ):
        pytest.fail("was called")

    pred = torch.randn(4, 3)
    targ = torch.tensor([0, 1, 2, 7])
    diagnosis = diagnose(nn.CrossEntropyLoss(), pred, targ)
    with pytest.raises(MismatchError) as info:
        stop_fit(diagnosis, never, pred.as_subclass(OnGpu), targ)
    assert info.value.diagnosis.cause == "label-out-of-range"
    assert info.value.__cause__ is None


def broken_diagnose(loss_func, pred, targ):
    raise KeyError("axis")


def reports(caught_warnings):
    return [str(w.message) for w in caught_warnings if "ExplainMismatch" in str(w.message)]


def test_if_diagnose_fails_one_warning_names_the_error_and_fit_goes_on(monkeypatch):
    monkeypatch.setattr("multilabel_mnist.explain.diagnose", broken_diagnose)
    learn = learner(Y, cbs=ExplainMismatch())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        learn.fit(2)
    assert len(learn.recorder.losses) == 4
    (text,) = reports(seen)
    assert "could not check CrossEntropyLossFlat: KeyError: 'axis' (explain.py, line" in text
    assert "Please report it" in text
    assert "\n" not in text


def test_if_diagnose_fails_the_error_of_the_loss_is_not_replaced(monkeypatch):
    monkeypatch.setattr("multilabel_mnist.explain.diagnose", broken_diagnose)
    learn = learner(Y, loss=BCEWithLogitsLossFlat(), cbs=ExplainMismatch())
    with pytest.warns(UserWarning, match="Please report it"), pytest.raises(ValueError) as info:
        learn.fit(1)
    assert not isinstance(info.value, MismatchError)
    assert "torch.Size([640])" in str(info.value)


def test_tensors_that_can_not_be_read_any_more_are_not_judged(monkeypatch):
    monkeypatch.setattr(callback, "is_readable", lambda *tensors: False)
    learn = learner(Y, loss=BCEWithLogitsLossFlat(), cbs=ExplainMismatch())
    with warnings.catch_warnings(), pytest.raises(ValueError) as info:
        warnings.simplefilter("error")
        learn.fit(1)
    assert not isinstance(info.value, MismatchError)


def test_a_loss_that_runs_out_of_memory_is_not_explained():
    def loss(pred, targ):
        if len(learn.ran) > 1:
            raise torch.OutOfMemoryError("full")
        return F.cross_entropy(pred, targ)

    learn = learner(Y, loss=loss, cbs=ExplainMismatch())
    with pytest.raises(torch.OutOfMemoryError):
        learn.fit(1)
    assert learn.loss_func is loss


def test_predictions_after_a_failed_fit_are_not_judged():
    learn = learner(MULTI, loss=nn.CrossEntropyLoss(), cbs=ExplainMismatch())
    with pytest.raises(MismatchError):
        learn.fit(1)
    preds, targs = learn.get_preds()
    assert preds.shape == (128, 10)
    assert torch.equal(targs, MULTI)


def test_how_many_classes_and_outputs_there_are():
    learn = learner(Y, c=None)
    assert last_weight_rows(learn.model) == 10
    assert last_weight_rows(nn.Sequential(nn.Linear(5, 3), nn.LazyLinear(10))) is None
    assert last_weight_rows(nn.ReLU()) is None
    for vocab, expected in [(list("abc"), 3), ({"a": 0, "b": 1}, None), (5, None)]:
        learn.dls.vocab = vocab
        assert count_classes(learn.dls, Y) == expected
    assert count_classes(learn.dls, ROWS) == 10
    assert count_classes(learn.dls, Y.float()) is None


def test_a_refusal_that_no_rule_explains_passes_untouched():
    def loss(pred, targ):
        raise ValueError("my own reason")

    with pytest.raises(ValueError, match="my own reason") as info:
        learner(Y, loss=loss, cbs=ExplainMismatch()).fit(1)
    assert not isinstance(info.value, MismatchError)


def test_the_class_is_one_class_and_can_be_pickled():
    assert module.ExplainMismatch is ExplainMismatch
    assert callback.ExplainMismatch is ExplainMismatch
    assert issubclass(ExplainMismatch, Callback)
    assert "ExplainMismatch" in module.__all__
    again = pickle.loads(pickle.dumps(ExplainMismatch(allow="rows")))
    assert type(again) is ExplainMismatch
    assert again.allow == {"rows"}
    assert again.name == "explain_mismatch"
    with pytest.raises(AttributeError, match="no attribute"):
        _ = module.something_else


def test_a_certain_silent_mismatch_stops_the_first_batch():
    learn = learner(MULTI, loss=nn.CrossEntropyLoss(), cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    assert info.value.diagnosis.silent
    assert info.value.diagnosis.cause == "multi-hot-for-softmax"
    assert len(learn.ran) <= 1
    learn = learner(Y.float(), n_out=1, loss=nn.MSELoss(), c=None, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    assert info.value.diagnosis.cause == "silent-broadcast"
    assert len(learn.ran) == 1


def test_and_the_first_batch_of_validation():
    shares = torch.rand(128, 10).softmax(1)
    learn = learner(shares, loss=nn.CrossEntropyLoss(), cbs=ExplainMismatch())
    replace_targets(learn.dls.valid, MULTI)
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    assert info.value.diagnosis.cause == "multi-hot-for-softmax"
    assert len(learn.ran) == 3


def test_a_deliberate_one_passes():
    for allow in ("multi-hot-for-softmax",), "multi-hot-for-softmax", ["multi-hot-for-softmax"]:
        learner(MULTI, loss=nn.CrossEntropyLoss(), cbs=ExplainMismatch(allow=allow)).fit(1)


def test_an_uncertain_one_warns_once():
    learn = learner(Y, loss=CrossEntropyLossFlat(), cbs=ExplainMismatch())
    learn.model = nn.Sequential(learn.model, nn.Softmax(1))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        learn.fit(2)
        learn.fit(1)
    assert len([w for w in seen if "double-activation" in str(w.message)]) == 1


@pytest.mark.parametrize(
    "y,loss,cause",
    [
        (Y, BCEWithLogitsLossFlat(), SAYS),
        (MULTI, CrossEntropyLossFlat(), None),
        (MULTI, nn.CrossEntropyLoss(), None),
    ],
)
def test_a_loss_that_contradicts_the_block_is_told_before_the_model_runs(y, loss, cause):
    learn = learner(y, loss=loss, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    assert learn.ran == []
    assert cause in (None, info.value.diagnosis.cause)


@pytest.mark.parametrize(
    "y,loss,metric",
    [
        (ROWS, BCEWithLogitsLossFlat(), accuracy),
        (Y, CrossEntropyLossFlat(), accuracy_multi),
        (Y, CrossEntropyLossFlat(), partial(accuracy_multi, thresh=0.2)),
        (Y, CrossEntropyLossFlat(), F1ScoreMulti()),
        (ROWS, BCEWithLogitsLossFlat(), F1Score(average="macro")),
    ],
)
@pytest.mark.parametrize("c", [10, None], ids=["with-vocab", "without"])
def test_a_metric_that_contradicts_the_targets_is_told_before_any_pass(y, loss, metric, c):
    learn = learner(y, loss=loss, metrics=metric, c=c, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    assert info.value.__cause__ is not None
    assert info.value.diagnosis.cause == "metric-mismatch"
    knows_classes = c is not None or y is ROWS  # from the vocab, or from the targets
    assert len(learn.ran) == (0 if knows_classes else 1)


def test_a_metric_is_judged_by_the_validation_targets():
    def loss(pred, targ):
        labels = targ if targ.ndim == 1 else targ.argmax(1)
        return F.cross_entropy(pred, labels)

    learn = learner(Y, loss=loss, metrics=accuracy, cbs=ExplainMismatch())
    replace_targets(learn.dls.train, ROWS)
    learn.fit(1)


def test_a_validation_set_that_fails_ends_the_fit_by_itself():
    class Unreadable(list):
        def __getitem__(self, i):
            raise OSError("no such image")

    learn = learner(Y, metrics=accuracy_multi, cbs=ExplainMismatch())
    learn.dls.valid.dataset = Unreadable(learn.dls.valid.dataset)
    with pytest.raises(OSError, match="no such image"):
        learn.fit(1)
    assert len(learn.ran) == 2  # all of training, none of validation


def test_targets_of_a_validation_set():
    learn = learner(Y)
    cpu = torch.device("cpu")
    assert torch.equal(validation_targets(learn, cpu), Y[:64])
    learn.dls.valid.dataset[:] = [(x, {"label": y}) for x, y in learn.dls.valid.dataset]
    assert validation_targets(learn, cpu) is None
    learn.dls.loaders = learn.dls.loaders[:1]
    assert validation_targets(learn, cpu) is None


def test_what_fits_is_left_alone():
    for y, loss, metric, n_out, c in [
        (Y, CrossEntropyLossFlat(), [accuracy, F1Score(average="macro")], 10, 10),
        (MULTI, BCEWithLogitsLossFlat(), [accuracy_multi, F1ScoreMulti()], 10, 10),
        (Y, nn.CrossEntropyLoss(), accuracy, 10, 10),
        ((Y % 2).float(), BCEWithLogitsLossFlat(), None, 1, None),
        (Y % 2, BCEWithLogitsLossFlat(), None, 1, 2),
        (Y.float()[:, None], MSELossFlat(), None, 1, None),
    ]:
        torch.manual_seed(0)
        learn = learner(y, loss=loss, metrics=metric, n_out=n_out, c=c)
        learn.fit(2)
        without = learn.recorder.losses
        torch.manual_seed(0)
        learn = learner(y, loss=loss, metrics=metric, n_out=n_out, c=c, cbs=ExplainMismatch())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            learn.fit(2)
        assert learn.recorder.losses == without
        assert learn.loss_func is loss
        learn.validate()
        learn.get_preds()
        learn.get_preds(with_loss=True)


def test_a_short_last_batch_is_no_mismatch():
    learner(Y[:65], cbs=ExplainMismatch()).fit(1)


def test_other_callbacks_see_the_real_loss():
    seen = set()

    class Looks(Callback):
        def look(self):
            seen.add(id(self.learn.loss_func))

        before_fit = before_batch = after_pred = after_loss = after_batch = after_fit = look

    loss = CrossEntropyLossFlat()
    learner(Y, loss=loss, cbs=[ExplainMismatch(), Looks()]).fit(1)
    assert seen == {id(loss)}


def test_mixup_and_ExplainMismatch():
    learn = learner(Y, cbs=[ExplainMismatch(), MixUp()], metrics=accuracy)
    learn.fit(1)
    assert isinstance(learn.loss_func, CrossEntropyLossFlat)


def test_a_learner_with_it_can_be_exported(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((8, 8), i * 20, "uint8")).save(tmp_path / f"{i}.png")
    block = DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_y=parity)
    dls = block.dataloaders(sorted(tmp_path.glob("*.png")), bs=4, num_workers=0, path=tmp_path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    cb = ExplainMismatch(allow="rows")
    learn = Learner(dls, model, loss_func=BCEWithLogitsLossFlat(), cbs=cb)
    with learn.no_bar():
        assert isinstance(caught(learn.fit, 1), MismatchError)
    learn.loss_func = CrossEntropyLossFlat()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    learn.export(tmp_path / "it.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = load_learner(tmp_path / "it.pkl")
    assert again.explain_mismatch.allow == {"rows"}
    assert isinstance(again.loss_func, CrossEntropyLossFlat)


def parity(file):
    return str(int(file.stem) % 2)


# What is wrong with the loss comes first


WIDER = F.one_hot(Y, 12).float()


@pytest.mark.parametrize("targ", [WIDER, WIDER.long(), F.one_hot(Y % 7, 7).float()])
@pytest.mark.parametrize("metric", [accuracy, exact_match, accuracy_multi, F1Score()])
@pytest.mark.parametrize("c", [10, None], ids=["with-vocab", "without"])
def test_a_metrics_finding_does_not_hide_that_of_our_own_loss(targ, metric, c):
    learn = learner(targ, loss=BCEOneHotLossFlat(), metrics=metric, c=c, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    d = info.value.diagnosis
    assert d.cause == "n-outputs" and d.loss_name == "BCEOneHotLossFlat"
    assert f", {targ.shape[1]})" in d.fixes[0] and "argmax" not in "".join(d.fixes)


def fails_for_a_reason_of_its_own(pred, targ):
    raise ValueError("my own reason")


@pytest.mark.parametrize(
    "loss, y, model, expected",
    [
        (nn.BCELoss(), ROWS, nn.Linear(5, 10), "missing-activation"),
        (nn.NLLLoss(), Y, nn.Linear(5, 10), "missing-activation"),
        (nn.BCEWithLogitsLoss(), Y, nn.Linear(5, 10), SAYS),
        (CrossEntropyLossFlat(), Y + 3, nn.Linear(5, 10), "label-out-of-range"),
        (fails_for_a_reason_of_its_own, ROWS, nn.Linear(5, 10), "my own reason"),
    ],
)
@pytest.mark.parametrize("c", [10, None], ids=["with-vocab", "without"])
def test_a_metrics_finding_does_not_hide_that_of_any_loss(loss, y, model, expected, c):
    wrong_metric = accuracy if y.ndim == 2 else accuracy_multi
    learn = learner(y, loss=loss, metrics=wrong_metric, c=c, cbs=ExplainMismatch())
    learn.model = model
    with pytest.raises(ValueError) as info:
        learn.fit(1)
    found = info.value.diagnosis.cause if isinstance(info.value, MismatchError) else info.value
    assert expected in str(found)


@pytest.mark.parametrize("metric", [exact_match, partial(exact_match, thresh=0.3)])
@pytest.mark.parametrize("y", [Y, Y[:, None], ROWS, MULTI])
def test_our_own_loss_and_metric_are_left_alone(metric, y):
    learn = learner(y, loss=BCEOneHotLossFlat(), metrics=metric, cbs=ExplainMismatch())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn.fit(1)
    assert len(learn.recorder.losses) == 2


@pytest.mark.parametrize("metric", [RocAucMulti(), APScoreMulti(), F1ScoreMulti()])
def test_a_metric_of_probabilities_of_several_labels_is_left_alone(metric):
    learn = learner(MULTI, loss=BCEWithLogitsLossFlat(), metrics=metric, cbs=ExplainMismatch())
    learn.fit(1)
    assert len(learn.recorder.values) == 1


# A loss that is not reduced


def of_each_item(pred, targ):
    return F.cross_entropy(pred, targ, reduction="none")


NOT_REDUCED = {
    "softmax": (nn.CrossEntropyLoss(reduction="none"), Y),
    "softmax flat": (CrossEntropyLossFlat(reduction="none"), Y),
    "partial": (partial(F.cross_entropy, reduction="none"), Y),
    "user's function": (of_each_item, Y),
    "sigmoid flat": (BCEWithLogitsLossFlat(reduction="none"), MULTI),
    "focal": (sigmoid_focal_loss, MULTI),
    "distance": (MSELossFlat(reduction="none"), torch.randn(128, 10)),
    "one-hot": (BCEOneHotLossFlat(reduction="none"), Y),
}


@pytest.mark.parametrize("name", NOT_REDUCED)
@pytest.mark.parametrize("metric", [None, accuracy])
def test_a_loss_that_is_not_reduced_stops_the_first_backward(name, metric):
    loss, y = NOT_REDUCED[name]
    metrics = metric if y is Y else None
    learn = learner(y, loss=loss, metrics=metrics, cbs=ExplainMismatch())
    with pytest.raises(MismatchError) as info:
        learn.fit(1)
    d = info.value.diagnosis
    assert d.cause == "loss-not-reduced" and d.certain and not d.silent
    assert len(learn.ran) == 1 and learn.loss_func is loss
    names = dict(loss_func=loss, nn=nn, F=F)
    kept = getattr(loss, "reduction", None)
    exec(d.fixes[0], names)
    learn = learner(y, loss=names["loss_func"], cbs=ExplainMismatch())
    learn.fit(1)
    assert len(learn.recorder.losses) == 2
    if kept is not None:
        loss.reduction = kept
    elif isinstance(loss, partial):
        loss.keywords["reduction"] = "none"


class TakesMean(Callback):
    """Weighs the losses of a batch before it takes their mean, as hard-example mining does."""

    def __init__(self, event):
        setattr(self, event, self.reduce)

    def reduce(self):
        self.learn.loss_grad = (self.learn.loss_grad * 2).mean()


@pytest.mark.parametrize("event", ["after_loss", "before_backward"])
@pytest.mark.parametrize("name", NOT_REDUCED)
def test_a_loss_that_a_callback_reduces_is_left_alone(name, event):
    loss, y = NOT_REDUCED[name]
    learn = learner(y, loss=loss, cbs=[ExplainMismatch(), TakesMean(event)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn.fit(1)
    assert len(learn.recorder.losses) == 2


@pytest.mark.parametrize(
    "loss", [CrossEntropyLossFlat(), FocalLossFlat(), LabelSmoothingCrossEntropyFlat()]
)
def test_mixup_reduces_the_loss_itself(loss):
    learn = learner(Y, loss=loss, cbs=[ExplainMismatch(), MixUp()])
    learn.fit(1)
    assert len(learn.recorder.losses) == 2


@pytest.mark.parametrize("name", NOT_REDUCED)
def test_losses_of_each_item_after_a_fit(name):
    loss, y = NOT_REDUCED[name]
    reduced = {id(Y): CrossEntropyLossFlat(), id(MULTI): BCEWithLogitsLossFlat()}
    learn = learner(y, loss=reduced.get(id(y), MSELossFlat()), cbs=ExplainMismatch())
    learn.fit(1)
    losses = learn.get_preds(with_loss=True)[2]
    assert losses.numel() >= 128
    learn.loss_func = loss  # nothing calls backward() here
    learn.validate()


# Errors of our own


BROKEN = [
    "multilabel_mnist.callback.assumed_prediction",
    "multilabel_mnist.callback.validation_targets",
    "multilabel_mnist.callback.loss_call",
    "multilabel_mnist.callback.diagnose_call",
    "multilabel_mnist.callback.is_readable",
    "multilabel_mnist.callback.accepts_any_values",
]


def breaks(*args, **kwargs):
    raise RuntimeError("first line\nsecond line")


@pytest.mark.parametrize("place", BROKEN)
@pytest.mark.parametrize(
    "loss, y, metric",
    [
        (CrossEntropyLossFlat(), Y, accuracy_multi),
        (nn.BCEWithLogitsLoss(), MULTI, accuracy_multi),
        (nn.MSELoss(), torch.randn(128, 10), None),
    ],
)
def test_an_error_of_our_own_is_one_line_and_fit_goes_on(monkeypatch, place, loss, y, metric):
    monkeypatch.setattr(place, breaks)
    metrics = None if metric is accuracy_multi and y is Y else metric
    learn = learner(y, loss=loss, metrics=metrics, cbs=ExplainMismatch())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        learn.fit(2)
    assert len(learn.recorder.losses) == 4
    assert learn.loss_func is loss
    texts = reports(seen)
    assert len(texts) == len(set(texts))
    for text in texts:
        assert "RuntimeError: first line" in text and "\n" not in text
        assert "Please report it" in text
    if place.endswith(("loss_call", "diagnose_call", "is_readable", "assumed_prediction")):
        assert texts


@pytest.mark.parametrize("place", BROKEN[2:5])
@pytest.mark.parametrize(
    "loss, y",
    [(BCEWithLogitsLossFlat(), Y), (nn.CrossEntropyLoss(), Y + 5), (nn.BCELoss(), MULTI)],
)
def test_an_error_of_our_own_does_not_replace_that_of_the_loss(monkeypatch, place, loss, y):
    monkeypatch.setattr(place, breaks)
    learn = learner(y, loss=loss, cbs=ExplainMismatch())
    with pytest.warns(UserWarning, match="Please report it"), pytest.raises(Exception) as info:
        learn.fit(1)
    assert not isinstance(info.value, MismatchError)
    assert "first line" not in str(info.value)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction="none"), of_each_item])
def test_an_error_of_our_own_before_backward_leaves_that_of_torch(monkeypatch, loss):
    monkeypatch.setattr("multilabel_mnist.callback.diagnose", breaks)
    learn = learner(Y, loss=loss, cbs=ExplainMismatch())
    with pytest.warns(UserWarning, match="Please report it"), pytest.raises(RuntimeError) as info:
        learn.fit(1)
    assert "scalar outputs" in str(info.value)
