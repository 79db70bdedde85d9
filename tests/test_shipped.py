"""The weights that the package ships: their scores, their format, the command that makes them."""

import json
import re

import numpy as np
import pytest
import torch
from chains import in_use, residual_network, some_images
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import safe_open
from torch import nn

from conftest import PACKAGE
from multilabel_mnist.classifier import SigmoidClassifier
from multilabel_mnist.compose import verdict_cnn
from multilabel_mnist.shipped import WEIGHTS, pack_network, read_network, verdict_model
from multilabel_mnist.training import digit_cnn
from tools import weights
from tools.draw.__main__ import read_samples

DIGITS = [str(digit) for digit in range(10)]
NORMALIZE = (0.13, 0.31)
FILES = sorted(weights.FILES.values())
NETWORKS = {"lessons": digit_cnn, "recipe": verdict_cnn, "residual": residual_network}


# An interpreter of the format that knows nothing of torch


def windows_of(x, size, stride):
    """Return all windows of images (n, c, h, w), shape (n, c, rows, columns, size, size)."""
    return sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride]


def compute(layer, x, tensors):
    """Return what one layer makes of x, in float64."""
    kind = layer["kind"]
    if kind == "normalize":
        return (x / 255 - layer["mean"]) / layer["std"]
    if kind == "residual":
        return x + compute_all(layer["layers"], x, tensors)
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "flatten":
        return x.reshape(len(x), -1)
    if kind == "maxpool":
        return windows_of(x, layer["size"], layer["stride"]).max((4, 5))
    if kind == "avgpool":
        return windows_of(x, layer["size"], layer["stride"]).mean((4, 5))
    weight, scale, bias = (tensors[f"{layer['number']}.{part}"] for part in PARTS)
    weight = np.einsum("o...,o->o...", weight.astype(float), scale)
    if kind == "linear":
        return x @ weight.T + bias
    assert kind == "conv"
    sides = (layer["padding"], layer["padding"])
    seen = windows_of(np.pad(x, ((0, 0), (0, 0), sides, sides)), weight.shape[2], layer["stride"])
    return np.einsum("nchwyx,ocyx->nohw", seen, weight, optimize=True) + bias[:, None, None]


PARTS = ("weight", "scale", "bias")


def compute_all(layers, x, tensors):
    for layer in layers:
        x = compute(layer, x, tensors)
    return x


def numpy_logits(file, images):
    """Return the logits of images, uint8 (n, 28, 28), as a file describes them."""
    with safe_open(file, "numpy") as f:
        layers = json.loads(f.metadata()["network"])["layers"]
        tensors = {name: f.get_tensor(name) for name in f.keys()}
    return compute_all(layers, images[:, None].astype(float), tensors)


def logits_of(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images))


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_all_that_is_needed_to_compute(name):
    images = some_images()
    model, vocab = read_network(WEIGHTS / name)
    assert vocab == DIGITS and not model.training
    found = numpy_logits(WEIGHTS / name, images)
    np.testing.assert_allclose(logits_of(model, images).numpy(), found, atol=1e-3)


# Writing and reading


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_but_for_rounding(name, tmp_path):
    model = in_use(NETWORKS[name])
    images = some_images(100)
    file = tmp_path / "network.safetensors"
    file.write_bytes(pack_network(model, *NORMALIZE, DIGITS))
    again, vocab = read_network(file)
    mean, std = NORMALIZE
    with torch.no_grad():
        expected = model((torch.from_numpy(images)[:, None] / 255 - mean) / std)
    found = logits_of(again, images)
    assert vocab == DIGITS
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    np.testing.assert_allclose(found.numpy(), numpy_logits(file, images), atol=1e-4)
    file.unlink()
    assert torch.equal(logits_of(again, images), found), "the network needs its file no more"


def test_packing_leaves_the_model_as_it_was():
    model = in_use(verdict_cnn).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = pack_network(model, *NORMALIZE, DIGITS)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert pack_network(model, *NORMALIZE, DIGITS) == first


def test_rounding_keeps_weights_that_have_one_byte_already(tmp_path):
    linear = nn.Linear(784, 10)
    rng = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (10, 784), generator=rng).float()
    weight[:, 0] = 127
    linear.weight.data = weight * torch.logspace(-6, 2, 10)[:, None]
    model = nn.Sequential(nn.Flatten(), linear)
    file = tmp_path / "network.safetensors"
    file.write_bytes(pack_network(model, 0.0, 1.0, DIGITS))
    again, _ = read_network(file)
    torch.testing.assert_close(again[2].weight, linear.weight, rtol=1e-6, atol=0)
    torch.testing.assert_close(again[2].bias, linear.bias)


class Reuse(nn.Module):
    """Add what was made inside of a residual block to what comes after it."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        inside = self.one(x)
        return inside + (x + self.two(inside))


@pytest.mark.parametrize(
    "model, message",
    [
        (Reuse(), "expected layers one after the other, and residual blocks, got"),
        (nn.Sequential(nn.GELU()), r"got GELU\("),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), r"got Conv2d\(2, 2"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2)), r"got Conv2d\(1, 2"),
        (nn.Sequential(nn.Conv2d(1, 2, (3, 1))), r"expected a square kernel, got \(3, 1\)"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, stride=(1, 2))), r"expected a square stride, got \(1, 2"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same")), "expected a square padding, got same"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding_mode="reflect", padding=1)), "got Conv2d"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), "got MaxPool2d"),
        (nn.Sequential(nn.MaxPool2d(2, dilation=2)), "got MaxPool2d"),
        (nn.Sequential(nn.AvgPool2d(2, padding=1)), "got AvgPool2d"),
        (nn.Sequential(nn.Flatten(2)), "got Flatten"),
        (nn.Sequential(nn.BatchNorm2d(1)), "expected a convolution before a batch norm"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784)), "expected a linear layer before"),
    ],
    ids=lambda o: o if isinstance(o, str) else "",
)
def test_what_a_file_cannot_describe(model, message):
    with pytest.raises(ValueError, match=message):
        pack_network(model.eval(), *NORMALIZE, DIGITS)


# What ships


def test_verdict_model_takes_images_and_says_none_one_and_several():
    before = torch.get_rng_state()
    classifier = verdict_model()
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(classifier, SigmoidClassifier) and not classifier.model.training
    assert classifier.vocab == DIGITS and classifier.threshold == 0.5
    samples, _ = read_samples()
    seven, _, ten, _, _, blank = samples
    for images in (np.stack([blank, seven, ten]), torch.from_numpy(np.stack([blank, seven, ten]))):
        preds = classifier(images)
        assert preds.verdicts.tolist() == ["none", "one", "several"]
        assert preds.labels == [[], ["7"], ["0", "1"]]
        torch.testing.assert_close(classifier(images[:, None]).logits, preds.logits)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 28, 28), "float32"),
        np.zeros((2, 27, 28), "uint8"),
        np.zeros((2, 3, 28, 28), "uint8"),
        np.zeros((28, 28), "uint8"),
    ],
    ids=lambda images: f"{images.dtype} {images.shape}",
)
def test_other_images_are_refused(images):
    expected = r"expected uint8 images of shape \(N, 28, 28\) or \(N, 1, 28, 28\), white on black"
    with pytest.raises(ValueError, match=expected):
        verdict_model()(images)


def tables_of(card):
    """Return the tables of a card, {title: {row: {column: percent}}}."""
    found = {}
    for title, text in re.findall(r"^### (.*)\n\n((?:\|.*\n)+)", card, re.M):
        head, _, *lines = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
        ]
        rows = {line[0]: map(float, line[1:]) for line in lines}
        found[title] = {name: dict(zip(head[1:], row, strict=True)) for name, row in rows.items()}
    return found


CARD_TEXT = (WEIGHTS / weights.CARD).read_text(encoding="utf-8")


def test_the_card_tells_scores_and_their_baselines():
    tables = tables_of(CARD_TEXT)
    assert len(tables) == 2
    for rows in tables.values():
        assert list(rows)[:2] == list(weights.FILES) and len(rows) == 4
    mnist = next(rows for title, rows in tables.items() if "MNIST" in title)
    assert mnist["the recipe"]["exact"] > 98 and mnist["the recipe"]["overlapping"] > 90
    assert mnist["softmax"]["top-1"] > 98.5
    for word in ("python -m tools.weights", "CC BY-SA 3.0", "Apache License 2.0"):
        assert word in CARD_TEXT


def test_the_card_has_the_scores_on_the_embedded_digits():
    title, told = next((t, rows) for t, rows in tables_of(CARD_TEXT).items() if "embedded" in t)
    scores, n = weights.scores_on("embedded", WEIGHTS)
    assert f"{n:,}" in title
    for name, row in scores.items():
        for column, score in row.items():
            # Pairs and letters are drawn, and may differ a little with the versions of packages.
            assert abs(told[name][column] - 100 * score) < 0.5, (name, column)


def test_the_command_trains_and_writes_both_networks_and_the_card(tmp_path, capfd):
    weights.main(["--source", "embedded", "--epochs", "1", "--out", str(tmp_path)])
    assert {p.name for p in tmp_path.iterdir()} == {*FILES, weights.CARD}
    for name in FILES:
        model, vocab = read_network(tmp_path / name)
        assert vocab == DIGITS and logits_of(model, some_images()).shape == (20, 10)
    card = (tmp_path / weights.CARD).read_text(encoding="utf-8")
    assert "python -m tools.weights --source embedded --seed 0 --epochs 1" in card
    assert card.partition(weights.MARK)[0] == CARD_TEXT.partition(weights.MARK)[0]
    assert "README.md" in capfd.readouterr().out


def test_the_files_are_small():
    sizes = {p.name: p.stat().st_size for p in (PACKAGE / "weights").iterdir()}
    assert sizes.keys() == {*FILES, weights.CARD}
    assert sum(sizes.values()) < 1_200_000


def test_predictions_of_images_can_be_shown():
    from matplotlib import pyplot as plt

    images = np.zeros((3, 28, 28), dtype=np.uint8)
    preds = verdict_model()(images)
    preds.show()
    assert len(plt.gcf().axes) >= 3
    plt.close("all")
    assert list(preds.to_frame()["verdict"]) == ["none"] * 3
