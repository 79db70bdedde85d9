"""Cases of reports, unknown targets, composed photographs and saved classifiers."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from fastai.torch_core import TensorImage, TensorMultiCategory
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import nn

from multilabel_mnist.classifier import SigmoidClassifier, tune
from multilabel_mnist.compose_images import ComposeImages, read_background
from multilabel_mnist.masked import MaskedBCEWithLogitsLoss
from multilabel_mnist.onnx_export import export_onnx
from multilabel_mnist.pad import draw
from multilabel_mnist.report import class_frequencies, class_report, overall_scores
from multilabel_mnist.shipped import verdict_model

from .cases_images import FLOATS, as_class, image_shapes, images_of, need_images, seeds
from .cases_losses import TENSOR_FORMS, are_on_one_device, assert_same_loss, tensors_of, weights_of
from .cases_models import no_learners
from .cases_preds import read_vocab, vocab_of
from .cases_values import (
    case,
    labels_of,
    of_size,
    probs_of,
    scalar,
    some_unknown,
    targets_of,
    thresholds_of,
)
from .expected import (
    need,
    need_choice,
    need_count,
    need_labels,
    need_number,
    need_probs,
    need_targets,
    need_threshold,
    softplus,
    too_close,
)
from .judge import UNSURE
from .values import (
    NONSENSE,
    Value,
    anything,
    corrupted,
    no_numbers,
    numbers,
    often,
    plain,
    scalars,
    uniform,
    zeros_and_ones,
)

# Reports

report_arguments = of_size(
    preds=lambda n, c: probs_of((n, c)),
    targs=targets_of,
    vocab=lambda n, c: vocab_of(c),
    threshold=lambda n, c: thresholds_of(c),
)


def read_report(preds, targs, vocab, threshold):
    """Return what a report is made of: what fires, yes, no, and probabilities; or UNSURE."""
    probs = need_probs(preds)
    need(targs is not None)
    targets = need_targets(targs, probs.shape, binary=True, answers=True, unknown=True)
    need(not np.isnan(targets).all())
    if isinstance(vocab, np.ndarray) or vocab is NONSENSE or threshold is None:
        return UNSURE
    read_vocab(vocab, probs.shape[1])
    threshold = need_threshold(threshold, probs.shape[1])
    if too_close(probs, threshold):
        return UNSURE
    return probs > threshold, targets == 1, targets == 0, probs


def divided(a, b):
    """Return a / b; NaN where b is 0."""
    return a / b if b else np.nan


def scores_of(fires, yes, no, probs):
    """Return precision, recall, F1, average precision and error rate of some answers."""
    hits, alarms, misses = (fires & yes).sum(), (fires & no).sum(), (~fires & yes).sum()
    known = yes | no
    ap = average_precision_score(yes[known], probs[known]) if yes.any() else np.nan
    f1 = divided(2 * hits, 2 * hits + alarms + misses)
    precision, recall = divided(hits, hits + alarms), divided(hits, hits + misses)
    return [precision, recall, f1, ap, divided(alarms + misses, known.sum())]


COLUMNS = ["precision", "recall", "f1", "average precision", "error rate"]


def assert_report(answer, parts):
    fires, yes, no, probs = parts
    n_classes = fires.shape[1]
    for c in range(n_classes):
        row = answer.iloc[c]
        expected = scores_of(fires[:, c], yes[:, c], no[:, c], probs[:, c])
        np.testing.assert_allclose(row[COLUMNS].to_numpy(dtype=float), expected, atol=1e-5)
        assert row["support"] == yes[:, c].sum()
    micro = scores_of(*(part.ravel() for part in parts))
    found = answer.iloc[n_classes][COLUMNS].to_numpy(dtype=float)
    np.testing.assert_allclose(found, micro, atol=1e-5)


@case(
    "report.class_report",
    class_report,
    corrupted(report_arguments),
    same=assert_report,
    keeps=False,
    budget=150.0,
)
def _(preds, targs, vocab, threshold):
    return read_report(preds, targs, vocab, threshold)


def assert_overall(answer, parts):
    fires, yes, no, _ = parts
    wrong = np.where(fires, no, yes)
    expected = [1 - wrong.any(1).mean(), wrong.sum() / (yes | no).sum()]
    found = answer.iloc[0][["exact match", "hamming loss"]].to_numpy(dtype=float)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(answer) == 3


@case(
    "report.overall_scores",
    overall_scores,
    corrupted(report_arguments),
    same=assert_overall,
    keeps=False,
    budget=150.0,
)
def _(preds, targs, vocab, threshold):
    return read_report(preds, targs, vocab, threshold)


@case(
    "report.class_frequencies",
    class_frequencies,
    corrupted(
        of_size(
            dls=lambda n, c: st.one_of(
                labels_of(n, c), numbers((n, c), some_unknown), numbers((n, c), zeros_and_ones)
            ),
            n_classes=lambda n, c: st.one_of(st.just(plain(None)), st.just(scalar(c))),
        )
    ),
)
def _(dls, n_classes):
    n = None if n_classes is None else need_count(n_classes)
    need(isinstance(dls, np.ndarray) and dls.ndim in (1, 2) and dls.size > 0)
    if dls.ndim == 1:
        labels = need_labels(dls, 2**31 if n is None else n)
        return np.bincount(labels, minlength=n or 0) / len(labels)
    if n is not None and n != dls.shape[1]:
        return UNSURE  # a column of labels
    targets = need_targets(dls, (len(dls), n or dls.shape[1]), unknown=True)
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(RuntimeWarning)
        return np.nanmean(targets, 0)


# The loss for unknown targets


@case(
    "masked.MaskedBCEWithLogitsLoss",
    lambda inp, targ, **settings: (MaskedBCEWithLogitsLoss(**settings)(inp, targ), inp.dtype),
    corrupted(
        of_size(
            inp=tensors_of,
            targ=lambda n, c: numbers((n, c), some_unknown, FLOATS, TENSOR_FORMS),
            weight=weights_of,
            pos_weight=weights_of,
            reduction=lambda n, c: st.sampled_from(("mean", "sum", "none")).map(plain),
            thresh=lambda n, c: st.sampled_from((0.5, 0.2)).map(scalar),
        )
    ).filter(are_on_one_device),
    same=assert_same_loss,
)
def _(inp, targ, weight, pos_weight, reduction, thresh):
    need(isinstance(inp, np.ndarray) and inp.dtype.kind == "f")
    need(isinstance(targ, np.ndarray) and targ.shape == inp.shape)
    need_choice(reduction, ("mean", "sum", "none"))
    if not isinstance(thresh, np.ndarray) or thresh.ndim:
        return UNSURE
    need_threshold(thresh, 1)
    values = []
    for m in (weight, pos_weight):
        if m is not None:
            need(isinstance(m, np.ndarray) and m.ndim == 1 and inp.shape[-1:] == m.shape)
        values.append(np.ones(inp.shape[-1:]) if m is None else m)
    targ = targ.astype("float64")
    known = ~np.isnan(targ)
    if inp.ndim != 2 or not all(np.isfinite(m).all() for m in (inp, targ[known], *values)):
        return UNSURE
    weight, pos_weight = values
    y, z = np.where(known, targ, 0), inp.astype("float64")
    loss = weight * (pos_weight * y * softplus(-z) + (1 - y) * softplus(z)) * known
    reduce = {"mean": lambda o: o.sum() / max(known.sum(), 1), "sum": np.sum, "none": np.asarray}
    res = reduce[reduction](loss)
    return res if np.abs(res).max(initial=0) < 1e30 else UNSURE


# Composed photographs

IMAGE_SHARES = dict(
    overlapping=0.25,
    side_by_side=0.12,
    mosaic=0.05,
    alone=0.05,
    cut_up=0.03,
    noise=0.05,
    strokes=0.0,
)


@st.composite
def image_settings(draw):
    """Draw arguments of ComposeImages of which a few are not the defaults."""
    bad = st.one_of(no_numbers, scalars)
    given = {}
    for name in draw(st.lists(st.sampled_from((*IMAGE_SHARES, "nudged", "given")), max_size=3)):
        given[name] = draw(often(st.sampled_from((0, 0.1, 1.0)).map(scalar), bad))
    if draw(st.booleans()):
        given["seed"] = draw(often(seeds, bad, odds=2))
    if draw(st.booleans()):
        kinds = st.sampled_from(("dark", "light", "uniform", "photo", "other")).map(plain)
        given["background"] = draw(often(kinds, bad, odds=2))
    if draw(st.integers(0, 3)) == 0:
        given["negatives"] = draw(anything)
    return given


@case("compose_images.ComposeImages", lambda **o: len(ComposeImages(**o).shares), image_settings())
def _(negatives=None, seed=None, background=None, **given):
    if negatives is not None:
        return UNSURE
    need(seed is None or need_count(seed, 0) >= 0)
    if background is not None:
        need_choice(background, ("dark", "light", "uniform", "photo"))
    for name in ("nudged", "given"):
        if name in given:
            need_number(given.pop(name), 0, 1)
    shares = IMAGE_SHARES | {name: need_number(m, 0, 1) for name, m in given.items()}
    need(sum(shares.values()) <= 1 + 1e-9)
    return 8


@st.composite
def photo_batches(draw):
    """Draw a batch of images, and targets of which some are not known."""
    n = draw(st.integers(0, 6))
    sides = st.sampled_from((7, 8, 9, 12))
    shape = (n, draw(st.sampled_from((1, 3))), draw(sides), draw(sides))
    base = draw(st.sampled_from((zeros_and_ones, some_unknown, uniform)))
    return {
        "images": draw(images_of(shape)),
        "targets": draw(numbers((n, 3), base, FLOATS, ("tensor", "with stride"))),
    }


def compose_photos(images, targets):
    """Compose a batch as fastai does: tensors of its classes."""
    images, targets = as_class(images, TensorImage), as_class(targets, TensorMultiCategory)
    return ComposeImages(seed=1).encodes((images, targets))


def assert_photos(answer, expected):
    images, targets = answer
    shape, n_classes = expected
    assert tuple(images.shape) == tuple(shape)
    assert tuple(targets.shape) == (shape[0], n_classes)
    assert type(images) is TensorImage and type(targets) is TensorMultiCategory
    if images.numel():
        assert -1e-3 <= images.min() and images.max() <= 1 + 1e-3


@case(
    "compose_images.ComposeImages (a batch)",
    compose_photos,
    corrupted(photo_batches()),
    same=assert_photos,
)
def _(images, targets):
    need(isinstance(images, np.ndarray) and images.dtype == np.float64 and images.ndim == 4)
    need(isinstance(targets, np.ndarray) and targets.dtype == np.float64 and targets.ndim == 2)
    need(len(targets) == len(images))
    if len(images) == 0:
        return UNSURE
    need(0 not in images.shape and ((images >= 0) & (images <= 1)).all())
    need(min(images.shape[2:]) >= 8)
    return images.shape, targets.shape[1]


@case(
    "compose_images.read_background",
    lambda images: read_background(images).n_images,
    corrupted(image_shapes.flatmap(lambda s: st.fixed_dictionaries({"images": images_of(s)}))),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
)
def _(images):
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        return UNSURE
    images = need_images(images)
    need(len(images) and ((images >= 0) & (images <= 1)).all())
    return len(images)


# Classifiers


def model_and_data():
    """Return a small model and a loader of what it was not trained on."""
    model = nn.Sequential(nn.Linear(3, 2))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.integers(0, 2, (20, 2))
    data = torch.utils.data.TensorDataset(torch.tensor(x).float(), torch.tensor(y).float())
    return model, torch.utils.data.DataLoader(data, batch_size=8)


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    MODEL, HELD_OUT = model_and_data()

not_models = no_learners.filter(lambda v: not isinstance(v.given, nn.Module))
no_loaders = st.one_of(no_numbers, scalars).map(lambda v: Value(v.given, NONSENSE))


@case(
    "classifier.tune",
    lambda model, **others: len(tune(model, **others).vocab),
    corrupted(
        st.fixed_dictionaries(
            {
                "model": often(st.just(plain(MODEL)), not_models),
                "dl": often(st.just(plain(HELD_OUT)), no_loaders),
                "vocab": vocab_of(2),
                "trained_with": st.sampled_from((None, "sigmoid", "softmax")).map(plain),
                "objective": st.sampled_from(("f1", "exact")).map(plain),
                "min_positives": st.integers(0, 3).map(scalar),
            }
        ),
        replacement=st.one_of(no_numbers, scalars),
    ),
    keeps=False,
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    examples=100,
    budget=120.0,
)
def _(model, dl, vocab, trained_with, objective, min_positives):
    if isinstance(model, np.ndarray) or vocab is NONSENSE or isinstance(vocab, np.ndarray):
        return UNSURE
    need(model is not None and not isinstance(model, str))
    if model is NONSENSE:
        return UNSURE  # learners of other data are among these
    need(dl is HELD_OUT)
    read_vocab(vocab, 2)
    need(trained_with is None or trained_with in ("sigmoid", "softmax"))
    need_choice(objective, ("f1", "exact"))
    need_count(min_positives, 0)
    return 2


@case(
    "classifier.SigmoidClassifier",
    lambda model, vocab, threshold, calibrator: len(
        SigmoidClassifier(model, vocab, threshold, calibrator)(torch.zeros(4, 3))
    ),
    corrupted(
        st.fixed_dictionaries(
            {
                "model": often(st.just(plain(MODEL)), not_models),
                "vocab": vocab_of(2),
                "threshold": thresholds_of(2),
                "calibrator": st.just(plain(None)),
            }
        ),
        replacement=st.one_of(no_numbers, scalars).filter(lambda v: not callable(v.given)),
    ),
    keeps=False,
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    examples=100,
)
def _(model, vocab, threshold, calibrator):
    if isinstance(model, np.ndarray) or vocab is NONSENSE or isinstance(vocab, np.ndarray):
        return UNSURE
    if isinstance(model, str) or model is None:
        need(False)
    if model is NONSENSE:
        return UNSURE  # learners of other data are among these
    need(calibrator is None)
    need(isinstance(vocab, list) and len(vocab) == 2)
    need_threshold(threshold, 2)
    return 4


def save_and_load(folder, model):
    """Save a classifier, and load it into another model."""
    SigmoidClassifier(MODEL, ["a", "b"]).save(folder)
    return SigmoidClassifier.load(folder, model).vocab


@case(
    "classifier.SigmoidClassifier.load",
    save_and_load,
    corrupted(
        st.fixed_dictionaries(
            {
                "folder": st.builds(lambda: plain(Path(tempfile.mkdtemp()) / "saved")),
                "model": st.one_of(
                    st.builds(lambda: plain(nn.Sequential(nn.Linear(3, 2)))),
                    st.builds(lambda: Value(nn.Sequential(nn.Linear(3, 4)), NONSENSE)),
                ),
            }
        ),
        replacement=st.one_of(no_numbers, scalars).filter(
            lambda v: not isinstance(v.given, (str, Path)) and not callable(v.given)
        ),
    ),
    keeps=False,
    draws=("torch",),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    examples=60,
)
def _(folder, model):
    need(isinstance(folder, Path) and isinstance(model, nn.Module))
    return ["a", "b"]


@case(
    "onnx_export.export_onnx",
    export_onnx,
    corrupted(
        st.fixed_dictionaries(
            {
                "classifier": st.one_of(no_numbers, scalars, no_learners).map(
                    lambda v: Value(v.given, NONSENSE)
                ),
                "file": st.just(plain(Path(tempfile.gettempdir()) / "model.onnx")),
                "example": st.just(plain(None)),
            }
        ),
        replacement=st.one_of(no_numbers, scalars).map(lambda v: Value(v.given, NONSENSE)),
    ),
    keeps=False,
    examples=60,
)
def _(classifier, file, example):
    need(False)


# Weights that ship


@case("shipped.verdict_model", lambda: verdict_model().vocab, st.just({}), examples=1)
def _():
    return [str(digit) for digit in range(10)]


# The pad in JupyterLab

PIXELS = (np.arange(784) % 256).astype("uint8").reshape(28, 28)
classifiers = st.builds(verdict_model).map(lambda o: Value(o, "classifier"))
drawings = st.sampled_from((PIXELS, torch.tensor(PIXELS))).map(lambda o: Value(o, "image"))


@case(
    "pad.draw",
    lambda model, image: draw(model, image).preds.probs.shape,
    corrupted(
        st.fixed_dictionaries(
            {
                "model": often(classifiers, not_models),
                "image": st.one_of(st.just(plain(None)), drawings),
            }
        )
    ),
    keeps=False,
    same=lambda answer, expected: np.testing.assert_equal(tuple(answer), expected),
    examples=60,
)
def _(model, image):
    need(isinstance(model, str) and model == "classifier")
    need(image is None or (isinstance(image, str) and image == "image"))
    return 1, 10
