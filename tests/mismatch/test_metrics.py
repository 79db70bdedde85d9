"""Metrics, and the losses and metrics of this package, given to `diagnose` in every form."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.learner import AvgLoss, AvgMetric
from fastai.metrics import (
    APScoreMulti,
    BalancedAccuracy,
    Dice,
    F1Score,
    F1ScoreMulti,
    JaccardMulti,
    R2Score,
    RocAuc,
    RocAucMulti,
    accuracy,
    accuracy_multi,
    error_rate,
    skm_to_fastai,
)
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, hamming_loss

from multilabel_mnist.labels import BCEOneHotLossFlat, exact_match
from multilabel_mnist.losses import read_loss
from multilabel_mnist.mismatch import diagnose

from .maker import STEADY, Maker

C = 5
LABELS = torch.arange(8) % C
ONE_HOT = F.one_hot(LABELS, C)
SEVERAL = torch.arange(8 * C).reshape(8, C) % 3 == 0
LOGITS = torch.randn(8, C, generator=torch.Generator().manual_seed(0))


def name(o):
    return read_loss(o).name


def in_every_form(func):
    """Return a function as people pass it as a metric."""
    return [func, partial(func), AvgMetric(func), AvgMetric(partial(func))]


TAKE_LABELS = [
    *in_every_form(accuracy),
    *in_every_form(error_rate),
    F1Score(average="macro"),
    BalancedAccuracy(),
    RocAuc(),
    skm_to_fastai(f1_score, average="macro"),
    Dice(),
]
TAKE_TARGETS = [
    *in_every_form(accuracy_multi),
    partial(accuracy_multi, thresh=0.2),
    F1ScoreMulti(),
    JaccardMulti(),
    RocAucMulti(),
    APScoreMulti(),
    skm_to_fastai(hamming_loss, thresh=0.5),
]
OURS = [*in_every_form(exact_match), partial(exact_match, thresh=0.4)]


@pytest.mark.parametrize("metric", TAKE_LABELS, ids=name)
def test_a_metric_of_labels_in_every_form(metric):
    assert diagnose(metric, LOGITS, LABELS).ok
    for targ in (ONE_HOT, ONE_HOT.float(), SEVERAL.float()):
        d = diagnose(metric, LOGITS, targ)
        assert d.cause == "metric-mismatch" and d.certain, d


@pytest.mark.parametrize("metric", TAKE_TARGETS, ids=name)
def test_a_metric_of_targets_in_every_form(metric):
    for targ in (ONE_HOT, SEVERAL, SEVERAL.float()):
        assert diagnose(metric, LOGITS, targ).ok
    for targ in (LABELS, LABELS[:, None]):
        d = diagnose(metric, LOGITS, targ)
        assert d.cause == "metric-mismatch" and d.certain, d


@pytest.mark.parametrize("metric", OURS, ids=name)
def test_exact_match_takes_labels_and_targets(metric):
    for targ in (LABELS, LABELS[:, None], LABELS.float(), ONE_HOT, SEVERAL.float()):
        assert diagnose(metric, LOGITS, targ).ok
    for targ in (LABELS + 1, LABELS[:, None] + 1, LABELS.float() + 1):
        assert diagnose(metric, LOGITS, targ).cause == "label-out-of-range"
    assert diagnose(metric, LOGITS, ONE_HOT[:, :3]).cause == "metric-mismatch"
    assert diagnose(metric, LOGITS, LABELS[:6]).cause == "rows"


@pytest.mark.parametrize("metric", [*TAKE_LABELS, *TAKE_TARGETS, *OURS, R2Score()], ids=name)
def test_a_fix_for_a_metric_never_changes_the_loss(metric):
    for targ in (LABELS, ONE_HOT, SEVERAL.float(), LABELS + 1, F.one_hot(LABELS, 7), ONE_HOT * 2):
        for fix in diagnose(metric, LOGITS, targ).fixes:
            assert "loss_func" not in fix


@pytest.mark.parametrize(
    "metric, targ, right",
    [
        (accuracy, SEVERAL.float(), accuracy_multi(LOGITS, SEVERAL)),
        (accuracy_multi, LABELS, accuracy(LOGITS, LABELS)),
        (AvgMetric(accuracy_multi), LABELS, accuracy(LOGITS, LABELS)),
        (F1ScoreMulti(), LABELS, accuracy(LOGITS, LABELS)),
        (Dice(), SEVERAL, accuracy_multi(LOGITS, SEVERAL)),
    ],
)
def test_the_fix_is_a_metric_that_a_learner_takes(metric, targ, right):
    fix = diagnose(metric, LOGITS, targ).fixes[0]
    assert "learn.metrics = metrics" in fix
    names = dict(pred=LOGITS, targ=targ)
    exec(fix, names)
    assert names["metrics"](LOGITS, targ) == right


@pytest.mark.parametrize("not_a_metric", [AvgLoss(), None, 3, "accuracy"])
def test_what_takes_no_prediction_is_an_error(not_a_metric):
    with pytest.raises(TypeError, match="expected a loss or metric"):
        diagnose(not_a_metric, LOGITS, LABELS)


# The loss of this package


@STEADY
@given(data=st.data())
def test_our_own_loss_with_targets_of_another_width(data):
    m = Maker(data.draw)
    n = m.batch()
    c = m.classes()
    width = m.other(c, 2, 30)
    targ = m.hot(width, n) if m.flip() else m.bits(n, width)
    targ = m.pick(targ, targ.float(), targ.bool())
    loss = m.pick(BCEOneHotLossFlat(), partial(BCEOneHotLossFlat()), BCEOneHotLossFlat(thresh=0.3))
    d = diagnose(loss, m.logits(n, c), targ)
    assert d.cause == "n-outputs" and not d.silent, d
    assert f", {width})" in d.fixes[0] and "argmax" not in "".join(d.fixes)


@STEADY
@given(data=st.data())
def test_our_own_loss_with_labels_out_of_range(data):
    m = Maker(data.draw)
    n = m.many()
    c = m.classes()
    pred = m.logits(n, c)
    labels = m.labels(c, n)
    labels[0] = c - 1
    labels = labels + 1
    column = m.flip()
    targ = labels[:, None] if column else labels
    targ = m.pick(targ, targ.float(), targ.int())
    d = diagnose(m.pick(BCEOneHotLossFlat(), partial(BCEOneHotLossFlat())), pred, targ)
    assert d.cause == "label-out-of-range" and not d.silent, d
    names = dict(torch=torch, F=F, pred=pred, targ=targ, loss_func=BCEOneHotLossFlat())
    if "model" not in d.fixes[0]:
        exec(d.fixes[0], names)
        right = F.binary_cross_entropy_with_logits(pred, F.one_hot(labels - 1, c).float())
        torch.testing.assert_close(
            names["loss_func"](names["pred"], names["targ"]).as_subclass(torch.Tensor), right
        )


@pytest.mark.parametrize("marked", [-1, -100, 255])
@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_our_own_loss_has_no_label_that_it_ignores(marked, shape):
    targ = torch.where(LABELS == 2, marked, LABELS).reshape(shape)
    d = diagnose(BCEOneHotLossFlat(), LOGITS, targ)
    assert d.cause == "label-out-of-range" and d.fixes, d
    names = dict(torch=torch, F=F, pred=LOGITS, targ=targ, loss_func=BCEOneHotLossFlat())
    exec(d.fixes[0], names)
    assert names["loss_func"](names["pred"], names["targ"]).isfinite()
