"""`evaluate` against numbers counted by hand, and what it refuses."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from multilabel_mnist.training import conv_block, digit_cnn, evaluate

PROBS = tensor([[0.9, 0.2], [0.8, 0.6], [0.1, 0.4]])
TARGETS = tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def test_by_hand():
    metrics = evaluate(PROBS, TARGETS)
    assert list(metrics) == ["top-1", "exact", "none fires", "several fire", "Brier"]
    brier = (0.1**2 + 0.2**2 + 0.2**2 + 0.6**2 + 0.1**2 + 0.6**2) / 6
    expected = [1.0, 1 / 3, 1 / 3, 1 / 3, brier]
    assert_close(list(metrics.values()), expected, atol=1e-6, rtol=0)


def test_labels_are_taken_like_targets():
    assert evaluate(PROBS, tensor([0, 0, 1])) == evaluate(PROBS, TARGETS)


def test_a_threshold_per_class():
    assert evaluate(PROBS, TARGETS, 0.7)["exact"] == pytest.approx(2 / 3)
    assert evaluate(PROBS, TARGETS, tensor([0.5, 0.3]))["exact"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "probs, targets, threshold, message",
    [
        (PROBS, TARGETS[:2], 0.5, "for predictions (3, 2), got shape (2, 2)"),
        (PROBS, tensor([0, 0, 2]), 0.5, "expected labels from 0 to 1"),
        (PROBS[:0], TARGETS[:0], 0.5, "with at least one row"),
        (PROBS[0], TARGETS[0], 0.5, "expected probs of shape (N, C)"),
        (PROBS.logit(), TARGETS, 0.5, "take the sigmoid if these are logits"),
        (PROBS, TARGETS, 2.0, "expected threshold"),
    ],
)
def test_what_cannot_be_evaluated(probs, targets, threshold, message):
    with pytest.raises(ValueError) as error:
        evaluate(probs, targets, threshold)
    assert message in str(error.value)


def test_conv_block_pads_only_where_told():
    x = torch.zeros(1, 3, 9, 9)
    assert conv_block(3, 5)(x).shape == (1, 5, 7, 7)
    assert conv_block(3, 5, padding=1)(x).shape == (1, 5, 9, 9)
    assert conv_block(3, 5, kernel_size=5, stride=2, padding=2)(x).shape == (1, 5, 5, 5)
    assert digit_cnn(4)(torch.zeros(2, 1, 28, 28)).shape == (2, 4)
