"""A classifier that is tuned, called, saved, loaded and exported as its chapter promises."""

import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.losses import BCELossFlat, BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.torch_core import set_seed
from fastai.vision.augment import (
    CropPad,
    PadMode,
    RandomResizedCrop,
    Resize,
    ResizeMethod,
    aug_transforms,
)
from fastai.vision.core import PILImage
from fastai.vision.data import ImageDataLoaders
from fasttransform import Transform
from PIL import Image
from safetensors.torch import load_file
from small_models import ColorNet, filled
from test_imports import NO_FASTAI
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from conftest import ROOT, run
from multilabel_mnist import classifier as module
from multilabel_mnist.calibrate import SigmoidCalibrator, tune_thresholds
from multilabel_mnist.classifier import SigmoidClassifier, tune
from multilabel_mnist.convert import BCEOneHotLossFlat
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.training import digit_cnn

WORDS = ["<b>blue</b>", "grün", "rouge $x$"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of color images of several sizes, and a table with words as labels, some empty."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        pixels = rng.integers(0, 256, (30 + i % 7, 45 - i % 5, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{i}.png")
        tags = [] if i % 4 == 0 else [word for k, word in enumerate(WORDS) if (i >> k) % 2]
        rows.append({"file": f"{i}.png", "tags": "|".join(tags)})
    return folder, pd.DataFrame(rows)


def color_learner(photos, model=None, **kwargs):
    """A learner of color images that never trained."""
    folder, df = photos
    args = {
        "item_tfms": Resize(32),
        "label_delim": "|",
        "valid_pct": 0.5,
        "bs": 8,
        "num_workers": 0,
    }
    dls = ImageDataLoaders.from_df(df, folder, **(args | kwargs))
    set_seed(1)
    model = ColorNet() if model is None else model
    return Learner(dls, model, loss_func=BCEWithLogitsLossFlat())


@pytest.fixture(scope="module")
def color_clf(photos):
    return tune(color_learner(photos), min_positives=4)


def plain_data(n=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(n, 3, generator=generator)
    y = (x + torch.randn(n, 3, generator=generator) > 1).float()
    return x, y


def identity():
    """A model whose logits are its inputs."""
    model = nn.Linear(3, 3, bias=False)
    model.weight.data = torch.eye(3)
    return model


@pytest.fixture
def plain_clf():
    x, y = plain_data()
    return tune(identity(), DataLoader(TensorDataset(x, y), batch_size=32), ["a", "b", "c"])


def messages(function, *args, **kwargs):
    """What a call warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*args, **kwargs)
    return " ".join(str(w.message) for w in caught)


def linear(n_out):
    return nn.Linear(3, n_out, bias=False)


# Tuning


def best_f1_threshold(probs, targs):
    """The set of answers of the best threshold, found by trying all of them."""
    best, fires = -1, None
    for cut in [-1, *sorted(set(probs.tolist()))]:
        now = probs > cut
        score = 2 * (now & targs).sum() / max(1, now.sum() + targs.sum())
        if score > best + 1e-12:
            best, fires = score, now
    return best, fires


def test_tune_has_a_threshold_per_class_that_no_other_beats(plain_clf):
    x, y = plain_data()
    preds = plain_clf(x)
    for c in range(3):
        probs, targs = preds.probs[:, c].numpy(), y[:, c].numpy() > 0
        fires = preds.fires[:, c].numpy()
        f1 = 2 * (fires & targs).sum() / (fires.sum() + targs.sum())
        assert f1 == pytest.approx(best_f1_threshold(probs, targs)[0])
    assert plain_clf.threshold.shape == (3,)


def test_a_class_with_few_positives_shares_its_threshold():
    x, y = plain_data()
    y[:, 2] = 0
    y[:5, 2] = 1
    clf = tune(identity(), DataLoader(TensorDataset(x, y), batch_size=32))
    probs = clf.calibrator(x)
    f1, fires = best_f1_threshold(probs.flatten().numpy(), y.flatten().numpy() > 0)
    assert (probs.flatten().numpy() > clf.threshold[2].item()).tolist() == fires.tolist()
    assert f1 > 0.5


def test_unknown_targets_are_left_out():
    x, y = plain_data()
    masked = y.clone()
    masked[::3, 1] = torch.nan
    known = torch.arange(len(x)) % 3 > 0
    clf = tune(identity(), DataLoader(TensorDataset(x, masked), batch_size=32))
    of_known = tune(identity(), DataLoader(TensorDataset(x[known], y[known]), batch_size=32))
    assert_close(clf.calibrator.scale[1], of_known.calibrator.scale[1])
    assert_close(clf.threshold[1], of_known.threshold[1])
    of_all = tune(identity(), DataLoader(TensorDataset(x, y), batch_size=32))
    assert_close(clf.calibrator.scale[[0, 2]], of_all.calibrator.scale[[0, 2]])


def test_tune_uses_the_held_out_part_of_a_learner(photos):
    learn = color_learner(photos)
    clf = tune(learn, min_positives=4)
    logits, targs = learn.get_preds(act=lambda x: x)
    calibrator = SigmoidCalibrator().fit(logits, targs)
    assert_close(clf.calibrator.scale, calibrator.scale)
    assert_close(clf.calibrator.bias, calibrator.bias)
    expected = tune_thresholds(calibrator(logits), targs, per_class=True, min_positives=4)
    assert_close(clf.threshold, expected)
    assert clf.vocab == list(learn.dls.vocab) == WORDS


def test_tune_takes_another_held_out_loader(photos):
    learn = color_learner(photos)
    dl = learn.dls.test_dl(photos[1].head(30), with_labels=True)
    clf = tune(learn, dl=dl, min_positives=4)
    logits, targs = learn.get_preds(dl=dl, act=lambda x: x)
    assert_close(clf.calibrator.bias, SigmoidCalibrator().fit(logits, targs).bias)


def test_a_softmax_learner_gets_the_calibrator_of_the_margins():
    dls = DigitDataLoaders.from_folder(digits_path("embedded"), n_train=100)
    clf = tune(Learner(dls, digit_cnn(), loss_func=CrossEntropyLossFlat()))
    assert clf.calibrator.trained_with == "softmax"
    clf = tune(Learner(dls, digit_cnn(), loss_func=BCEOneHotLossFlat()))
    assert clf.calibrator.trained_with == "sigmoid"


def test_tune_leaves_the_learner_as_it_was(photos):
    learn = color_learner(photos)
    learn.model.train()
    learn.model.out.eval()
    weights = deepcopy(learn.model.state_dict())
    modes = [m.training for m in learn.model.modules()]
    tune(learn)(photos[1].head(3))
    assert [m.training for m in learn.model.modules()] == modes
    assert_close(learn.model.state_dict(), weights)


def test_tune_says_what_is_missing(photos):
    learn = color_learner(photos)
    with pytest.raises(ValueError, match="got a learner without a validation split; pass dl="):
        tune(Learner(DataLoaders(learn.dls.train), learn.model, loss_func=BCEWithLogitsLossFlat()))
    no_labels = learn.dls.test_dl(photos[1].head(9))
    with pytest.raises(ValueError, match="expected held-out data with targets, got none"):
        tune(learn, dl=no_labels)
    none = photos[1].head(9).assign(tags="")
    with pytest.raises(ValueError, match="at least one positive among 9 held-out items, got none"):
        tune(learn, dl=learn.dls.test_dl(none, with_labels=True))
    with pytest.raises(ValueError, match="expected a Learner or an nn.Module, got 'model'"):
        tune("model")
    with pytest.raises(ValueError, match="expected held-out data beside Linear, got none"):
        tune(identity())
    with pytest.raises(ValueError, match="expected trained_with .*, got ''"):
        tune(identity(), dl=[(torch.eye(3), torch.eye(3))], trained_with="")


def test_tune_asks_for_targets_before_it_runs_the_model():
    model = identity()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    for batches in ([torch.eye(3)], [(torch.eye(3),)], DataLoader(TensorDataset(torch.eye(3)))):
        with pytest.raises(ValueError, match="expected held-out data with targets, got none"):
            tune(model, dl=batches)


def test_tune_warns_of_training_data_and_of_classes_without_positives(photos):
    learn = color_learner(photos)
    assert "got the training data" in messages(tune, learn, dl="train")
    assert "got the training data" in messages(tune, learn, dl=learn.dls.train)
    one = photos[1].head(20).assign(tags=WORDS[1])
    dl = learn.dls.test_dl(one, with_labels=True)
    text = messages(tune, learn, dl=dl)
    assert f"no held-out item has {WORDS[0]}, {WORDS[2]}" in text
    assert messages(tune, learn, min_positives=1) == ""


# Calling


def test_every_kind_of_item_gives_the_same(photos, color_clf):
    folder, df = photos
    some = df.head(5)
    probs = color_clf(some).probs
    files = [folder / name for name in some["file"]]
    images = [Image.open(file) for file in files]
    arrays = [np.asarray(image) for image in images]
    for items in (files, [str(f) for f in files], images, arrays, some[["file"]]):
        assert_close(color_clf(items).probs, probs)
    for single in (files[0], images[0], arrays[0], some.iloc[0]):
        assert_close(color_clf(single).probs, probs[:1])
    batch = torch.from_numpy(np.stack([a[:30, :40] for a in arrays])).permute(0, 3, 1, 2)
    assert_close(color_clf(batch).probs, color_clf([a[:30, :40] for a in arrays]).probs)


def test_new_items_need_no_labels_and_unseen_labels_do_not_matter(photos, color_clf):
    some = photos[1].head(5)
    probs = color_clf(some).probs
    for tags in ("", "violet", None):
        assert_close(color_clf(some.assign(tags=tags)).probs, probs)
    assert color_clf(some[["file"]]).targs is None


def test_predictions_carry_items_names_thresholds_and_calibration(photos, color_clf):
    folder, df = photos
    preds = color_clf(df.head(5))
    assert [Path(item).name for item in preds.items] == df["file"].head(5).tolist()
    assert preds.vocab == WORDS
    assert torch.equal(preds.threshold, color_clf.threshold)
    assert_close(preds.probs, color_clf.calibrator(preds.logits))
    assert preds.to_frame().columns.tolist() == ["item", "verdict", "labels", *WORDS]
    assert color_clf(dl="valid").targs.shape == (24, 3)


def test_a_call_takes_items_or_a_loader(color_clf, plain_clf):
    for clf in (color_clf, plain_clf):
        for kwargs in ({}, {"items": [], "dl": []}):
            with pytest.raises(ValueError, match="expected items or dl, got both or neither"):
                clf(**kwargs)


def test_a_plain_model_takes_tensors_and_loaders(plain_clf):
    x, y = plain_data(40)
    expected = plain_clf.calibrator(x)
    assert_close(plain_clf(x).probs, expected)
    assert_close(plain_clf(x.numpy()).probs, expected)
    assert_close(plain_clf(list(x)).probs, expected)
    preds = plain_clf(dl=DataLoader(TensorDataset(x, y), batch_size=7))
    assert_close(preds.probs, expected)
    assert_close(preds.targs, y)
    for items in (["a.png"], pd.DataFrame({"a": [1]}), "a.png", torch.zeros(0, 3), []):
        with pytest.raises(ValueError, match="expected"):
            plain_clf(items)


def test_a_vocab_of_another_length_than_the_outputs_is_an_error():
    x, _ = plain_data(4)
    with pytest.raises(ValueError, match="got 4 items and 2 class names"):
        SigmoidClassifier(identity(), ["a", "b"])(x)
    with pytest.raises(ValueError, match="or 2 of them"):
        SigmoidClassifier(identity(), ["a", "b"], [0.5] * 3)
    calibrator = SigmoidCalibrator().fit(*plain_data())
    with pytest.raises(ValueError, match="expected a calibrator of 2 classes, got one of 3"):
        SigmoidClassifier(identity(), ["a", "b"], calibrator=calibrator)


# Saving and loading


FRESH = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from multilabel_mnist.classifier import SigmoidClassifier
from multilabel_mnist.training import digit_cnn
from small_models import ColorNet
clf = SigmoidClassifier.load({folder!r}, {model}, path={path!r})
np.save({out!r}, clf({files!r}).probs.numpy())
"""


def probs_of_a_fresh_process(folder, model, files, tmp_path, path=""):
    out = tmp_path / "probs.npy"
    code = FRESH.format(
        tests=str(ROOT / "tests"),
        folder=str(folder),
        model=model,
        path=str(path),
        files=[str(f) for f in files],
        out=str(out),
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout[-3000:]
    return torch.from_numpy(np.load(out))


def test_the_folder_gives_the_same_probabilities_in_a_fresh_process_in_color(
    photos, color_clf, tmp_path
):
    files = [photos[0] / name for name in photos[1]["file"]]
    color_clf.save(tmp_path / "saved")
    probs = probs_of_a_fresh_process(tmp_path / "saved", "ColorNet", files, tmp_path)
    assert_close(probs, color_clf(files).probs, atol=1e-6, rtol=0)


def test_the_folder_gives_the_same_probabilities_in_a_fresh_process_in_gray(photos, tmp_path):
    dls = DigitDataLoaders.from_folder(digits_path("embedded"), n_train=100)
    set_seed(2)
    clf = tune(Learner(dls, digit_cnn(), loss_func=BCEOneHotLossFlat()))
    clf.save(tmp_path / "saved")
    # 28x28 digits, and color images of other sizes, which the learner reads in gray
    files = [*dls.test_ds.items[:20], *(photos[0] / name for name in photos[1]["file"][:5])]
    probs = probs_of_a_fresh_process(tmp_path / "saved", "digit_cnn", files, tmp_path)
    assert_close(probs, clf(files).probs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "args",
    [
        {"item_tfms": Resize((24, 40))},
        {"item_tfms": Resize(32, ResizeMethod.Squish)},
        {"item_tfms": Resize(32, ResizeMethod.Pad, PadMode.Zeros)},
        {"item_tfms": Resize(32, ResizeMethod.Pad, PadMode.Border)},
        {"item_tfms": Resize(32, resamples=(Image.Resampling.BICUBIC, Image.Resampling.NEAREST))},
        {"item_tfms": RandomResizedCrop(32, min_scale=0.4)},
        {"item_tfms": CropPad(40)},
        {"item_tfms": Resize(40), "batch_tfms": aug_transforms(size=24)},
        {"batch_tfms": aug_transforms()},
        {"batch_tfms": Normalize.from_stats([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])},
        {"batch_tfms": Normalize()},  # from the first batch
    ],
)
def test_every_known_transform_is_rebuilt(photos, tmp_path, args):
    learn = color_learner(photos, **args)
    clf = SigmoidClassifier(learn, learn.dls.vocab)
    clf.save(tmp_path)
    again = SigmoidClassifier.load(tmp_path, ColorNet, path=photos[0])
    assert_close(again(photos[1]).logits, clf(photos[1]).logits, atol=1e-6, rtol=0)
    assert clf(photos[1]).logits.std(0).min() > 0  # not the same for all images


class Sharpen(Transform):
    def encodes(self, x: PILImage):
        return x


class MyResize(Resize):
    pass


@pytest.mark.parametrize(
    "args, name",
    [
        ({"item_tfms": [Resize(32), Sharpen()]}, "Sharpen"),
        ({"item_tfms": MyResize(32)}, "MyResize"),
        ({"batch_tfms": [Sharpen()]}, "Sharpen"),
    ],
)
def test_any_other_transform_of_validation_images_is_named(photos, tmp_path, args, name):
    learn = color_learner(photos, **args)
    clf = SigmoidClassifier(learn, learn.dls.vocab)
    with pytest.raises(ValueError, match=f"got {name}, which also runs on validation images"):
        clf.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


class Blacken(Callback):
    def before_batch(self):
        self.learn.xb = (torch.zeros_like(self.x),)


def test_a_callback_that_changes_the_logits_is_named(photos, tmp_path):
    learn = color_learner(photos)
    learn.model.out.weight.data *= 100  # black and noise are far apart
    learn.add_cb(Blacken())
    with pytest.raises(ValueError, match="without the learner's callbacks .*Blacken"):
        SigmoidClassifier(learn, learn.dls.vocab).save(tmp_path)


def test_a_model_that_ends_in_a_sigmoid(photos, tmp_path):
    learn = color_learner(photos, model=nn.Sequential(ColorNet(), nn.Sigmoid()))
    learn.loss_func = BCELossFlat()
    clf = tune(learn, min_positives=4)
    clf.save(tmp_path)
    again = SigmoidClassifier.load(tmp_path, lambda c: nn.Sequential(ColorNet(c), nn.Sigmoid()))
    files = [photos[0] / name for name in photos[1]["file"]]
    assert_close(again(files).probs, clf(files).probs, atol=1e-6, rtol=0)
    x = torch.rand(5, 3, 32, 32)
    plain = SigmoidClassifier(learn.model, clf.vocab, outputs="probs")
    assert_close(plain(x).probs, learn.model.eval()(x).detach(), atol=1e-6, rtol=0)


def test_names_keep_their_type(tmp_path):
    vocab = [
        "ü",
        '"',
        "<script>",
        "日本",
        "a\nb",
        "\udcff",
        None,
        3,
        2.5,
        True,
        np.int64(7),
        np.str_("n"),
    ]
    model = nn.Linear(3, len(vocab), bias=False)
    SigmoidClassifier(model, vocab).save(tmp_path)
    again = SigmoidClassifier.load(tmp_path, linear)
    assert again.vocab == vocab
    types = [type(name) for name in again.vocab]
    assert types == [str] * 6 + [type(None), int, float, bool, int, str]
    assert "日本" in (tmp_path / "classifier.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [pd.Timestamp("2024-01-01"), ("a", "b"), float("nan"), b"a"], ids=repr
)
def test_a_name_that_json_cannot_hold_is_an_error(tmp_path, name):
    with pytest.raises(ValueError, match="expected class names that JSON can hold"):
        SigmoidClassifier(nn.Linear(3, 1), [name]).save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_numbers_are_exact(tmp_path):
    rng = torch.Generator().manual_seed(0)
    threshold = torch.rand(200, generator=rng)
    threshold[:3] = torch.tensor([0.0, 1.0, 1e-45])
    calibrator = SigmoidCalibrator("softmax")
    calibrator.scale = torch.randn(200, generator=rng, dtype=torch.float64) / 3
    calibrator.bias = torch.randn(200, generator=rng, dtype=torch.float64) * 1e-9
    SigmoidClassifier(linear(200), range(200), threshold, calibrator).save(tmp_path)
    again = SigmoidClassifier.load(tmp_path, linear)
    assert torch.equal(again.threshold, threshold) and again.threshold.dtype == torch.float32
    for name in ("scale", "bias"):
        found, expected = getattr(again.calibrator, name), getattr(calibrator, name)
        assert torch.equal(found, expected) and found.dtype == torch.float64
    assert again.calibrator.trained_with == "softmax"
    SigmoidClassifier(linear(3), "abc".split() * 3, 0.3).save(tmp_path)
    again = SigmoidClassifier.load(tmp_path, linear(3))
    assert again.threshold == SigmoidClassifier(linear(3), ["a"] * 3, 0.3).threshold
    assert again.calibrator is None


def test_a_calibrator_of_ones_own_is_an_error(tmp_path):
    for calibrator in (torch.sigmoid, SigmoidCalibrator()):
        with pytest.raises(ValueError, match="expected a fitted SigmoidCalibrator or None"):
            SigmoidClassifier(linear(3), list("abc"), calibrator=calibrator).save(tmp_path)


class Tied(nn.Module):
    """A model with tied weights, a buffer, and one that is not kept."""

    def __init__(self, n_out=3):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.out = nn.Linear(3, n_out)
        self.register_buffer("shift", torch.zeros(3))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, x):
        return self.out(self.second(self.first(x)) + self.shift)


def test_tied_weights_and_buffers(tmp_path):
    model = Tied()
    model.shift += 5
    SigmoidClassifier(model, list("abc")).save(tmp_path)
    again = SigmoidClassifier.load(tmp_path, Tied)
    x, _ = plain_data(9)
    assert torch.equal(again(x).logits, model(x).detach())
    assert again.model.second.weight is again.model.first.weight


def test_weights_in_another_order_in_memory(tmp_path):
    model = digit_cnn(4)
    weight = model[1][0].weight
    assert not weight.is_contiguous()  # channels last
    SigmoidClassifier(model, list("abcd")).save(tmp_path)
    again = SigmoidClassifier.load(tmp_path, digit_cnn)
    assert not again.model[1][0].weight.is_contiguous()
    x = torch.rand(5, 1, 28, 28)
    assert torch.equal(again(x).logits, SigmoidClassifier(model, list("abcd"))(x).logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_precision(tmp_path, dtype):
    model = linear(3).to(dtype)
    SigmoidClassifier(model, list("abc")).save(tmp_path)
    x = plain_data(9)[0].to(dtype)
    again = SigmoidClassifier.load(tmp_path, linear(3).to(dtype))
    assert torch.equal(again(x).logits, model(x).detach().float())
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        ValueError, match=f"'weight' is a {name} tensor .* in the folder, and a float32"
    ):
        SigmoidClassifier.load(tmp_path, linear(3))


def test_wrapped_models(tmp_path):
    model = linear(3)
    SigmoidClassifier(torch.compile(model), list("abc")).save(tmp_path)
    again = SigmoidClassifier.load(tmp_path, nn.DataParallel(linear(3)))
    assert torch.equal(again.model.module.weight, model.weight)
    assert load_file(tmp_path / "model.safetensors").keys() == {"weight"}


def test_what_is_no_plain_tensor_is_named(tmp_path):
    with pytest.raises(ValueError, match="got Sequential with lazy layers"):
        SigmoidClassifier(nn.Sequential(nn.LazyLinear(3)), list("abc")).save(tmp_path / "saved")
    with pytest.raises(ValueError, match="'weight', which safetensors cannot hold"):
        SigmoidClassifier(linear(3).to("meta"), list("abc")).save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_model_that_does_not_fit_is_named_and_left_as_it_was(tmp_path, plain_clf):
    plain_clf.save(tmp_path)
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    before = deepcopy(model.state_dict())
    fragment = "'weight' is in the folder, not in the model; '0.weight' is in the model"
    with pytest.raises(ValueError, match=fragment):
        SigmoidClassifier.load(tmp_path, model)
    assert_close(model.state_dict(), before)
    with pytest.raises(ValueError, match=r"\(3, 3\) in the folder, and .* \(4, 3\) in the model"):
        SigmoidClassifier.load(tmp_path, linear(4))
    with pytest.raises(ValueError, match="expected model to be an nn.Module of the saved"):
        SigmoidClassifier.load(tmp_path, "digit_cnn")
    with pytest.raises(ValueError, match="or a function that builds one"):
        SigmoidClassifier.load(tmp_path, lambda n: None)


def test_loading_reads_in_evaluation_mode(tmp_path):
    def build(n_out):
        return nn.Sequential(nn.Linear(3, n_out), nn.BatchNorm1d(n_out), nn.Dropout(0.5)).train()

    SigmoidClassifier(build(3), list("abc")).save(tmp_path)
    assert not any(m.training for m in SigmoidClassifier.load(tmp_path, build).model.modules())


# What a stranger may have put there


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def rewrite(folder, **changes):
    """Change fields of a saved classifier."""
    file = folder / "classifier.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | changes), encoding="utf-8")


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_loading_runs_no_pickle(tmp_path, plain_clf, write):
    folder = plain_clf.save(tmp_path / "saved")
    trace = tmp_path / "ran"
    file = folder / "model.safetensors"
    with open(file, "wb") as f:
        write({"weight": Payload(str(trace))}, f)
    rewrite(
        folder,
        weights={
            "file": "model.safetensors",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        },
    )
    with pytest.raises(ValueError, match="expected weights as safetensors"):
        SigmoidClassifier.load(folder, linear)
    assert not trace.exists()


def test_loading_imports_nothing_from_the_folder(tmp_path, color_clf, plain_clf):
    for clf, model in ((color_clf, "ColorNet"), (plain_clf, "linear")):
        folder = clf.save(tmp_path / model)
        for name in ("model", "classifier", "Resize", "torch", "safetensors", "__init__"):
            (folder / f"{name}.py").write_text(
                f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8"
            )
        SigmoidClassifier.load(folder, globals()[model])
    assert not (tmp_path / "ran").exists()


def test_a_weights_file_elsewhere_is_not_read(tmp_path, plain_clf):
    folder = plain_clf.save(tmp_path / "saved")
    data = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    rewrite(folder, weights=data["weights"] | {"file": "../other.safetensors"})
    with pytest.raises(ValueError, match="expected weights to be a file and its sha256"):
        SigmoidClassifier.load(folder, linear)


JUNK = [
    None,
    True,
    -1,
    2**70,
    1.5,
    "os.system",
    "",
    [],
    {},
    [None],
    ["a"] * 3,
    [[1]],
    {"name": "eval"},
]


def places(data, path=()):
    """The paths of all values in nested lists and dictionaries."""
    yield path
    if isinstance(data, (dict, list)):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*path, key))


def replaced(data, path, value):
    """A copy with another value in one place."""
    if not path:
        return value
    data = deepcopy(data)
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


@pytest.mark.parametrize("which", ["color", "plain"])
def test_any_damaged_field_is_an_error_or_harmless(tmp_path, color_clf, plain_clf, which):
    clf, model = {"color": (color_clf, ColorNet), "plain": (plain_clf, linear)}[which]
    folder = clf.save(tmp_path)
    file = folder / "classifier.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    n_errors = n_loaded = 0
    built = model(3)
    for path in places(data):
        for junk in JUNK:
            file.write_text(json.dumps(replaced(data, path, junk)), encoding="utf-8")
            try:
                SigmoidClassifier.load(folder, built)
                n_loaded += 1
            except ValueError as e:
                assert str(e).startswith(f"in {folder}: expected") or "in images: " in str(e)
                n_errors += 1
    assert n_errors > 3 * n_loaded > 0


def test_missing_and_additional_fields_are_named(tmp_path, plain_clf):
    folder = plain_clf.save(tmp_path)
    file = folder / "classifier.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    for key in data:
        file.write_text(json.dumps({k: v for k, v in data.items() if k != key}), encoding="utf-8")
        with pytest.raises(ValueError, match="expected"):
            SigmoidClassifier.load(folder, linear)
    rewrite(folder)
    file.write_text(json.dumps(data | {"run": "me"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"got others: \['run'\]"):
        SigmoidClassifier.load(folder, linear)


def test_clear_errors_for_a_wrong_version_a_missing_and_a_damaged_file(tmp_path, plain_clf):
    with pytest.raises(ValueError, match="with classifier.json in it, got none that can be read"):
        SigmoidClassifier.load(tmp_path / "nowhere", linear)
    folder = plain_clf.save(tmp_path)
    rewrite(folder, version=2)
    with pytest.raises(ValueError, match="expected version 1 of the format, got 2; install"):
        SigmoidClassifier.load(folder, linear)
    rewrite(folder, format="other")
    with pytest.raises(ValueError, match="expected a dictionary with the format"):
        SigmoidClassifier.load(folder, linear)
    for text in ("", "{", "[" * 100_000, '{"a": NaN}', "\x00"):
        (folder / "classifier.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="expected JSON, got a damaged file"):
            SigmoidClassifier.load(folder, linear)
    (folder / "classifier.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="expected text in UTF-8"):
        SigmoidClassifier.load(folder, linear)
    plain_clf.save(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="expected model.safetensors beside classifier.json"):
        SigmoidClassifier.load(folder, linear)
    with pytest.raises(ValueError, match="expected a folder to write into, got the file"):
        plain_clf.save(folder / "classifier.json")


def test_a_file_that_was_cut_off_never_loads(tmp_path, plain_clf):
    folder = plain_clf.save(tmp_path)
    for name in ("model.safetensors", "classifier.json"):
        whole = (folder / name).read_bytes()
        for n in range(0, len(whole) - 1, max(1, len(whole) // 40)):
            (folder / name).write_bytes(whole[:n])
            with pytest.raises(ValueError, match="expected"):
                SigmoidClassifier.load(folder, linear)
        (folder / name).write_bytes(whole)
    assert SigmoidClassifier.load(folder, linear).vocab == ["a", "b", "c"]


def test_safetensors_that_are_cut_off_with_a_fitting_checksum(tmp_path, plain_clf):
    folder = plain_clf.save(tmp_path)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for n in (0, 4, 8, 20, len(whole) - 1):
        file.write_bytes(whole[:n])
        sha = hashlib.sha256(whole[:n]).hexdigest()
        rewrite(folder, weights={"file": "model.safetensors", "sha256": sha})
        with pytest.raises(ValueError, match="expected weights as safetensors"):
            SigmoidClassifier.load(folder, linear)


# Whole files or none


def which_is_there(folder):
    """The number of the classifier in a folder; None if `load` says that there is none."""
    model = nn.Linear(300, 3)
    try:
        clf = SigmoidClassifier.load(folder, model)
    except ValueError:
        return None
    (value,) = {p.mean().item() for p in model.parameters()}
    assert clf.vocab == [str(int(value))] * 3 and clf.threshold == pytest.approx(value / 10)
    return int(value)


@pytest.mark.parametrize("fails_at, expected", [(1, 1), (2, None)])
def test_a_save_that_is_interrupted_leaves_the_old_one_or_an_error(
    tmp_path, monkeypatch, fails_at, expected
):
    filled(1).save(tmp_path)
    calls = []

    def replace(*args):
        calls.append(args)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        return os.rename(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", replace)
        with pytest.raises(OSError, match="No space left"):
            filled(2).save(tmp_path)
    assert which_is_there(tmp_path) == expected
    if expected is None:
        with pytest.raises(ValueError, match="or the two are from different saves"):
            SigmoidClassifier.load(tmp_path, nn.Linear(300, 3))
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "classifier.json"}
    filled(3).save(tmp_path)
    assert which_is_there(tmp_path) == 3


SAVE_ON_AND_ON = """
import sys
sys.path.insert(0, {tests!r})
from small_models import filled
pair = filled(1), filled(2)
pair[0].save({folder!r})
print("started", flush=True)
while True:
    for clf in pair:
        clf.save({folder!r})
"""


def test_a_killed_save_leaves_no_wrong_weights(tmp_path):
    code = SAVE_ON_AND_ON.format(tests=str(ROOT / "tests"), folder=str(tmp_path / "saved"))
    rng = random.Random(0)
    found = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, cwd=ROOT
        )
        process.stdout.readline()
        for _ in range(8):  # looks while it is being written
            time.sleep(rng.random() / 50)
            process.send_signal(signal.SIGSTOP)
            found.append(which_is_there(tmp_path / "saved"))
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        process.stdout.close()
        found.append(which_is_there(tmp_path / "saved"))
    assert set(found) <= {1, 2, None}
    assert set(found) & {1, 2}


# Without fastai


PLAIN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from multilabel_mnist.classifier import SigmoidClassifier, tune

x = torch.randn(80, 4)
y = (x[:, :3] > 0).float()
clf = tune(nn.Linear(4, 3), DataLoader(TensorDataset(x, y), batch_size=32), vocab=list("abc"))
clf.save({folder!r})
again = SigmoidClassifier.load({folder!r}, lambda n: nn.Linear(4, n))
assert torch.equal(again(x).probs, clf(x).probs)
assert SigmoidClassifier(nn.Linear(4, 3), list("abc"))(x).verdicts.shape == (80,)
print("done", [m for m in ("fastai", "pandas", "sklearn", "matplotlib") if m in sys.modules])
"""


def test_a_plain_model_needs_no_fastai(tmp_path):
    done = run(sys.executable, "-W", "ignore", "-c", NO_FASTAI + PLAIN.format(folder=str(tmp_path)))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "done []" in done.stdout


# ONNX


def runtime():
    """onnxruntime, with what the export needs."""
    pytest.importorskip("onnx", reason="the export needs onnx: pip install multilabel_mnist[onnx]")
    pytest.importorskip("onnxscript", reason="pip install multilabel_mnist[onnx]")
    return pytest.importorskip("onnxruntime", reason="pip install multilabel_mnist[onnx]")


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", None])
def test_onnx_gives_the_same_probabilities_for_a_plain_model(tmp_path, kind):
    ort = runtime()
    x, y = plain_data()
    calibrator = None if kind is None else SigmoidCalibrator(kind).fit(x, y)
    clf = SigmoidClassifier(identity(), ["ü", None, 3], [0.2, 0.5, 0.7], calibrator)
    file = clf.to_onnx(tmp_path / "new" / "model.onnx", example=x[:1])
    session = ort.InferenceSession(file)
    for n in (1, 2, 5, 120):
        (probs,) = session.run(["probs"], {"inputs": x[:n].numpy()})
        assert_close(torch.from_numpy(probs), clf(x[:n]).probs, atol=1e-4, rtol=0)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["vocab"]) == ["ü", None, 3]
    assert_close(torch.tensor(json.loads(about["threshold"])), clf.threshold)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.onnx"]


def test_onnx_takes_pixels_in_color(photos, tmp_path):
    ort = runtime()
    batch_tfms = [*aug_transforms(), Normalize.from_stats([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])]
    clf = tune(color_learner(photos, batch_tfms=batch_tfms), min_positives=4)
    file = clf.to_onnx(tmp_path / "model.onnx")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (7, 32, 32, 3), "uint8")  # of the size that is resized to
    session = ort.InferenceSession(file)
    given = {"pixels": pixels.transpose(0, 3, 1, 2).astype("float32")}
    (probs,) = session.run(["probs"], given)
    assert_close(torch.from_numpy(probs), clf(list(pixels)).probs, atol=1e-4, rtol=0)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["images"])["item_transforms"][0]["size"] == [32, 32]


def test_onnx_leaves_the_model_as_it_was(plain_clf, tmp_path):
    runtime()
    plain_clf.model.train()
    plain_clf.to_onnx(tmp_path / "model.onnx", example=torch.zeros(2, 3))
    assert plain_clf.model.training
    with pytest.raises(ValueError, match="a plain model does not say what it takes"):
        plain_clf.to_onnx(tmp_path / "model.onnx")


def test_onnx_names_the_package_that_is_missing(plain_clf, tmp_path, monkeypatch):
    from multilabel_mnist import onnx_export

    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    fragment = r'got no onnx and no onnxscript; run: pip install "multilabel_mnist\[onnx\]"'
    with pytest.raises(ImportError, match=fragment):
        plain_clf.to_onnx(tmp_path / "model.onnx", example=torch.zeros(2, 3))
