"""Thresholds, margins and calibrators on the kinds of input that the chapters do not show."""

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import TensorImageBW

from multilabel_mnist.calibrate import (
    SigmoidCalibrator,
    margins,
    targets_like,
    tune_thresholds,
)
from multilabel_mnist.inference import SigmoidPreds
from multilabel_mnist.labels import one_hot

LOGITS = torch.tensor([[2.0, -1, -3], [1, 1, -2], [-2, -1, 3], [-1, -2, -3]])
LABELS = torch.tensor([0, 1, 2, 0])
TARGETS = one_hot(LABELS, 3)

GOOD_TARGETS = {
    "labels": LABELS,
    "array": LABELS.numpy(),
    "list": LABELS.tolist(),
    "column": pd.Series(LABELS.numpy(), index=[7, 5, 3, 1]),
    "column of labels": LABELS[:, None],
    "targets": TARGETS,
    "table": pd.DataFrame(TARGETS.numpy(), index=list("abcd")),
    "bool": TARGETS.bool(),
    "double": TARGETS.double(),
}
BAD_TARGETS = {
    "names": list("abca"),
    "negative": LABELS - 1,
    "too large": LABELS + 1,
    "halves": LABELS + 0.5,
    "of another length": LABELS[:2],
    "none": LABELS[:0],
    "transposed": TARGETS.T,
    "NaN": TARGETS * torch.nan,
    "twos": TARGETS * 2,
    "fractions": TARGETS * 0.4,
}


def consumers(targs):
    probs = LOGITS.sigmoid()
    yield lambda: tune_thresholds(probs, targs)
    yield lambda: tune_thresholds(probs, targs, per_class=True, objective="exact")
    yield lambda: SigmoidCalibrator().fit(LOGITS, targs)
    yield lambda: SigmoidCalibrator("softmax").fit(LOGITS, targs)


@pytest.mark.parametrize("targs", GOOD_TARGETS.values(), ids=GOOD_TARGETS)
def test_good_targets(targs):
    torch.testing.assert_close(targets_like(LOGITS, targs), TARGETS)
    torch.testing.assert_close(SigmoidPreds(LOGITS, targs=targs).targs, TARGETS)
    for consume, consume_targets in zip(consumers(targs), consumers(TARGETS), strict=True):
        assert str(consume()) == str(consume_targets())


@pytest.mark.parametrize("targs", BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_bad_targets(targs):
    for consume in consumers(targs):
        with pytest.raises(ValueError, match="^expected (targets|labels) .*got"):
            consume()


BAD_LOGITS = {
    "text": "a",
    "None": None,
    "one image": LOGITS[0],
    "3-d": LOGITS[None],
    "empty": LOGITS[:0],
    "NaN": LOGITS * torch.nan,
}


@pytest.mark.parametrize("logits", BAD_LOGITS.values(), ids=BAD_LOGITS)
def test_bad_logits(logits):
    for consume in (
        lambda: SigmoidPreds(logits),
        lambda: tune_thresholds(logits, LABELS),
        lambda: SigmoidCalibrator().fit(logits, LABELS),
    ):
        with pytest.raises(ValueError, match="^expected (logits|probs) .*got"):
            consume()


LOGITS_OF_ANY_KIND = {
    "array": torch.Tensor.numpy,
    "list": torch.Tensor.tolist,
    "table": lambda z: pd.DataFrame(z.numpy()),
    "double": torch.Tensor.double,
    "strided": lambda z: z.T.contiguous().T,
    "grad": lambda z: z.clone().requires_grad_(),
    "subclass": TensorImageBW,
}


@pytest.mark.parametrize("kind", LOGITS_OF_ANY_KIND.values(), ids=LOGITS_OF_ANY_KIND)
def test_logits_of_any_kind(kind):
    logits = kind(LOGITS)
    torch.testing.assert_close(SigmoidPreds(logits).probs, LOGITS.sigmoid())
    found = margins(logits).float().detach()
    torch.testing.assert_close(found.as_subclass(torch.Tensor), margins(LOGITS))
    calibrated = SigmoidCalibrator().fit(logits, LABELS)(logits)
    torch.testing.assert_close(calibrated, SigmoidCalibrator().fit(LOGITS, LABELS)(LOGITS))


def test_margins_of_whole_numbers_are_floats():
    whole = LOGITS.long()
    torch.testing.assert_close(margins(whole), margins(whole.float()))


def test_margins_keep_their_gradient():
    logits = LOGITS.clone().requires_grad_()
    margins(logits).sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("answers", [[1, 0, 0, 1], np.array([True, False, False, True])], ids=str)
def test_a_single_class_takes_answers(answers):
    column = torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    logits = LOGITS[:, :1]
    torch.testing.assert_close(targets_like(logits, answers), column)
    fitted = SigmoidCalibrator().fit(logits, answers)
    torch.testing.assert_close(fitted.scale, SigmoidCalibrator().fit(logits, column).scale)
    probs = logits.sigmoid()
    assert tune_thresholds(probs, answers) == tune_thresholds(probs, column)
