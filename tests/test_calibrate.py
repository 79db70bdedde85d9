"""Thresholds, margins and calibrators on the kinds of input that the chapters do not show."""

import time

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import TensorImageBW
from hypothesis import example, given, settings
from hypothesis import strategies as st

from multilabel_mnist import calibrate
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


def n_exact(probs, targets, thresholds):
    """Count the images whose answers are all right."""
    return int(((probs > thresholds) == targets.bool()).all(1).sum())


def candidates(probs):
    """Return a threshold from every interval in which no answer changes, both ends included."""
    edges = torch.cat([torch.tensor([0.0, 1.0]), probs.flatten()]).unique()
    return torch.cat([edges, (edges[1:] + edges[:-1]) / 2])


# The same examples in every run, however slow the machine is.
STEADY = settings(derandomize=True, deadline=None)


@st.composite
def probs_and_targets(draw):
    """Small tables with many ties, zeros and ones among the probabilities."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 3)))
    n_values = shape[0] * shape[1]
    tenths = draw(
        st.lists(st.sampled_from([0, 1, 4, 5, 9, 10]), min_size=n_values, max_size=n_values)
    )
    answers = draw(st.lists(st.booleans(), min_size=n_values, max_size=n_values))
    probs = torch.tensor(tenths).reshape(shape) / 10
    return probs, torch.tensor(answers).reshape(shape).float()


ALL_ONES = (torch.ones(2, 1), torch.zeros(2, 1))
ONE_AMONG_OTHERS = (torch.tensor([[1.0, 0.2], [0.3, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))


@settings(STEADY)
@given(probs_and_targets())
@example(ALL_ONES)
@example(ONE_AMONG_OTHERS)
def test_the_shared_threshold_is_as_good_as_brute_force(case):
    probs, targets = case
    best = max(n_exact(probs, targets, t) for t in candidates(probs))
    found = tune_thresholds(probs, targets, objective="exact")
    assert n_exact(probs, targets, found) == best
    if probs.shape[1] == 1:
        own = tune_thresholds(probs, targets, True, "exact", min_positives=0)
        assert n_exact(probs, targets, own) == best


@settings(STEADY)
@given(probs_and_targets())
@example(ALL_ONES)
@example(ONE_AMONG_OTHERS)
def test_no_change_of_one_class_gets_more_images_right(case):
    probs, targets = case
    found = tune_thresholds(probs, targets, True, "exact", min_positives=0)
    shared = tune_thresholds(probs, targets, objective="exact")
    n_right = n_exact(probs, targets, found)
    assert n_right >= n_exact(probs, targets, shared)
    for c in range(probs.shape[1]):
        for t in candidates(probs[:, c]):
            changed = found.clone()
            changed[c] = t
            assert n_exact(probs, targets, changed) <= n_right


@settings(STEADY)
@given(probs_and_targets())
@example(ALL_ONES)
def test_f1_thresholds_are_as_good_as_brute_force(case):
    probs, targets = case

    def f1(p, y, threshold):
        fires = p > threshold
        return 2 * (fires & y.bool()).sum() / (fires.sum() + y.sum()).clamp(min=1)

    found = tune_thresholds(probs, targets)
    assert f1(probs, targets, found) == max(f1(probs, targets, t) for t in candidates(probs))
    per_class = tune_thresholds(probs, targets, per_class=True, min_positives=1)
    for p, y, threshold in zip(probs.T, targets.T, per_class, strict=True):
        if y.any():
            assert f1(p, y, threshold) == max(f1(p, y, t) for t in candidates(p))
        else:
            assert threshold == found


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 1), (5, 3), (40, 12)])
@pytest.mark.parametrize("per_class", [False, True])
def test_a_class_that_always_says_one_can_be_silenced(shape, dtype, per_class):
    probs = torch.ones(shape, dtype=dtype)
    found = tune_thresholds(probs, torch.zeros(shape), per_class, "exact")
    assert n_exact(probs, torch.zeros(shape), found) == shape[0]


def rare_classes(rng, n, n_positives, shift):
    """Made-up probabilities of classes with so many positives; `shift` moves their logits."""
    n_classes = len(shift)
    targets = np.zeros((n, n_classes))
    for c in range(n_classes):
        targets[rng.choice(n, n_positives, replace=False), c] = 1
    logits = rng.normal(4 * targets - 3 + shift, 1.5)
    return torch.from_numpy(1 / (1 + np.exp(-logits))), torch.from_numpy(targets)


@pytest.mark.parametrize("objective", ["f1", "exact"])
@pytest.mark.parametrize("n, n_classes", [(60, 4), (200, 6), (200, 20)])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_classes_with_two_positives_do_no_worse_than_one_threshold(objective, n, n_classes, spread):
    gains = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shift = rng.normal(0, spread, n_classes)
        tuned_on = rare_classes(rng, n, 2, shift)
        probs, targets = rare_classes(rng, 10 * n, 20, shift)
        shared = tune_thresholds(*tuned_on, objective=objective)
        per_class = tune_thresholds(*tuned_on, True, objective)
        score = micro_f1 if objective == "f1" else n_exact
        gains.append(score(probs, targets, per_class) - score(probs, targets, shared))
    assert np.mean(gains) >= 0


def micro_f1(probs, targets, thresholds):
    fires = probs > thresholds
    return float(2 * (fires & targets.bool()).sum() / (fires.sum() + targets.sum()))


def test_rare_classes_keep_the_shared_threshold_and_others_their_own():
    rng = np.random.default_rng(0)
    shift = np.array([-3.0, 0.0, 3.0])
    probs, targets = rare_classes(rng, 400, 40, shift)
    targets[targets[:, 0].nonzero()[9:, 0], 0] = 0  # nine of the first class are left
    for objective in ("f1", "exact"):
        shared = tune_thresholds(probs, targets, objective=objective)
        found = tune_thresholds(probs, targets, True, objective)
        assert found[0] == np.float32(shared)
        assert found[1] < found[2]
        own = tune_thresholds(probs, targets, True, objective, min_positives=9)
        assert own[0] != np.float32(shared)


@pytest.mark.parametrize("min_positives", [-1, 2.5, "two", True])
def test_a_minimum_that_is_no_count(min_positives):
    with pytest.raises(ValueError, match="expected min_positives to be a whole number"):
        tune_thresholds(LOGITS.sigmoid(), LABELS, True, min_positives=min_positives)


def test_exact_thresholds_per_class_take_time_in_proportion_to_the_classes():
    """Eight times as many classes take no more than eight times as long, and not 64 times."""

    def seconds(n_classes):
        rng = np.random.default_rng(0)
        targets = rng.random((2000, n_classes)) < 2 / n_classes
        probs = np.where(targets, 0.9, 0.05) * rng.random(targets.shape)
        times = []
        for _ in range(2):
            start = time.process_time()
            tune_thresholds(probs, targets, True, "exact", min_positives=0)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(800) < 10 * seconds(100)


def log_posterior_gradient(calibrator, z, targets):
    """Return the gradients of the log posterior, in units in which 1 image is 1."""
    z = z.double()
    error = (calibrator.scale * z + calibrator.bias).sigmoid() - targets
    largest = z.abs().amax(0).clamp(min=1)
    by_scale = (error * z).sum(0) + (calibrator.scale - 1) / 0.3**2
    return by_scale / largest, error.sum(0) + calibrator.bias


HUGE = [1.0, 1e3, 1e6, 1e8, 1e12, 1e20, 1e30]


@pytest.mark.parametrize("factor", HUGE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(50, 1), (400, 3), (60, 12)])
def test_the_calibrator_converges_at_any_size_of_logits(factor, dtype, shape):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=generator, dtype=dtype)
    # Answers that follow the logits, with an offset and with errors that no scale can explain.
    targets = (z + torch.randn(shape, generator=generator) > 0.7).double()
    fitted = SigmoidCalibrator().fit(z * factor, targets)
    for gradient in log_posterior_gradient(fitted, z * factor, targets):
        assert gradient.abs().max() < 1e-6 * shape[0]
    if factor >= 1e3:  # the prior of the scale no longer counts, so the probabilities are the same
        relative = SigmoidCalibrator().fit(z * 1e3, targets)
        torch.testing.assert_close(fitted.bias, relative.bias, atol=1e-2, rtol=1e-2)
        torch.testing.assert_close(fitted(z * factor), relative(z * 1e3), atol=1e-2, rtol=0)


@pytest.mark.parametrize("factor", HUGE)
def test_logits_that_are_right_keep_their_scale(factor):
    z = torch.tensor([[-2.0], [-1.0], [1.0], [3.0]] * 10) * factor
    fitted = SigmoidCalibrator().fit(z, (z > 0).float())
    assert 0.9 < fitted.scale.item() < 1.5
    assert fitted.bias.abs().item() < 0.1


@pytest.mark.parametrize("factor", [1e6, 1e12])
def test_margins_of_huge_logits_are_calibrated(factor):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn((300, 4), generator=generator)
    labels = (z + torch.randn(z.shape, generator=generator)).argmax(1)
    fitted = SigmoidCalibrator("softmax").fit(z * factor, labels)
    mean = fitted(z * factor).mean(0).double()
    torch.testing.assert_close(mean, one_hot(labels, 4).mean(0).double(), atol=0.05, rtol=0)


def test_a_fit_that_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr(calibrate, "_MAX_STEPS", 1)
    with pytest.warns(UserWarning, match="did not converge for 1 of 3 classes"):
        SigmoidCalibrator().fit(LOGITS * 1e6, LABELS)
