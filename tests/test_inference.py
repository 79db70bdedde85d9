"""SigmoidPreds on thresholds and indices that the chapter does not show."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from multilabel_mnist.inference import SigmoidPreds
from multilabel_mnist.labels import exact_match

LOGITS = torch.tensor([[2.0, -1, -3], [1, 1, -2], [-2, -1, 3], [-1, -2, -3]])
LABELS = torch.tensor([0, 1, 2, 0])


BAD_THRESHOLDS = [
    -0.1,
    1.1,
    float("nan"),
    "half",
    [0.1, 0.2],
    [0.1, None, 0.2],
    [[0.1, 0.2, 0.3]],
    {"cat": 0.5},
]


@pytest.mark.parametrize("threshold", BAD_THRESHOLDS, ids=str)
def test_bad_thresholds(threshold):
    for consume in (
        lambda: SigmoidPreds(LOGITS, threshold=threshold),
        lambda: SigmoidPreds(LOGITS).read(threshold=threshold),
        lambda: exact_match(LOGITS, LABELS, threshold),
    ):
        expected = r"expected thresh\w* to be a probability from 0 to 1, or 3 of them"
        with pytest.raises(ValueError, match=expected):
            consume()


GOOD_THRESHOLDS = {
    "list": [0.3, 0.5, 0.7],
    "array": np.array([0.3, 0.5, 0.7]),
    "tensor": torch.tensor([0.3, 0.5, 0.7]).double(),
    "column": pd.Series([0.3, 0.5, 0.7], index=list("xyz")),
}


@pytest.mark.parametrize("threshold", GOOD_THRESHOLDS.values(), ids=GOOD_THRESHOLDS)
def test_thresholds_of_any_kind(threshold):
    preds = SigmoidPreds(LOGITS, threshold=threshold, targs=LABELS)
    assert preds.verdicts.tolist() == ["one", "several", "one", "none"]
    assert exact_match(LOGITS, LABELS, threshold) == preds.exact.float().mean()


def test_items_are_chosen():
    preds = SigmoidPreds(LOGITS)
    indices = [
        [],
        np.array([], int),
        torch.zeros(4).bool(),
        slice(0, 0),
        -1,
        torch.tensor([0, 1]),
        [True, False, True, True],
    ]
    assert [len(preds[idx]) for idx in indices] == [0, 0, 0, 0, 1, 2, 3]
    assert preds[[]].labels == []
    assert preds[[]].to_frame().shape == (0, 6)
    with pytest.raises(IndexError):
        preds[4]


def test_a_selection_keeps_its_images():
    items = [np.full((4, 4), i, "uint8") for i in range(4)]
    preds = SigmoidPreds(LOGITS, items=items)[[3, 1]][1:]
    assert preds.items[0] is items[1]
    assert preds.to_frame()["item"].tolist() == [1]
    preds.show()
    assert (plt.gcf().axes[0].images[0].get_array() == 1).all()
    plt.close("all")


IMAGES = {
    "gray": Image.new("L", (5, 4)),
    "black and white": Image.new("1", (5, 4)),
    "color": Image.new("RGB", (5, 4)),
    "transparent": Image.new("RGBA", (5, 4)),
    "channels first": torch.rand(3, 4, 5),
    "one channel first": torch.rand(1, 4, 5),
    "channels last": np.zeros((4, 5, 3), "uint8"),
    "with a gradient": torch.rand(4, 5, requires_grad=True),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_images_of_any_kind_are_shown(image):
    SigmoidPreds(LOGITS[:1], items=[image]).show()
    shown = plt.gcf().axes[0].images[0].get_array()
    plt.close("all")
    assert shown.shape[:2] == (4, 5)


@pytest.mark.parametrize("item", ["nowhere.png", None, 3, torch.rand(5)], ids=str)
def test_items_that_are_not_images(item):
    preds = SigmoidPreds(LOGITS[:1], items=[item])
    with pytest.raises((ValueError, FileNotFoundError)):
        preds.show()
    assert len(preds.to_frame()) == 1
