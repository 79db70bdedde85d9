"""sigmoid_preds on items, containers, learners and mistakes that the chapters do not show."""

import random
import warnings
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm.loss
import torch
import torch.nn.functional as F
import torchvision
from fastai.losses import BCEWithLogitsLossFlat
from fastai.text.all import (
    AWD_LSTM,
    TextDataLoaders,
    awd_lstm_clas_config,
    text_classifier_learner,
)
from fastai.vision.all import (
    Callback,
    CategoryBlock,
    DataBlock,
    DataLoaders,
    EarlyStoppingCallback,
    ImageBlock,
    L,
    Learner,
    PILImage,
    PILImageBW,
    RandomSplitter,
    ReduceLROnPlateau,
    Resize,
    SaveModelCallback,
    TensorImageBW,
    accuracy,
    get_image_files,
    nn,
    noop,
    parent_label,
)
from PIL import Image

from multilabel_mnist.calibrate import SigmoidCalibrator
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.inference import sigmoid_preds
from multilabel_mnist.labels import BCEOneHotLossFlat, to_multilabel


@pytest.fixture(scope="module")
def digits():
    return DigitDataLoaders.from_folder(digits_path("embedded"), bs=64)


def linear(n_in=28 * 28, n_out=10):
    torch.manual_seed(42)
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, n_out))


@pytest.fixture(scope="module")
def learner(digits):
    return Learner(digits, linear(), loss_func=BCEOneHotLossFlat())


@pytest.fixture(scope="module")
def array(digits):
    return np.stack([np.asarray(Image.open(f)) for f in digits.test_ds.items[:6]])


MONITORS = {
    "saves the best": SaveModelCallback,
    "stops early": EarlyStoppingCallback,
    "lowers the learning rate": ReduceLROnPlateau,
}


@pytest.mark.parametrize("kind", MONITORS.values(), ids=MONITORS)
def test_a_learner_that_monitors_a_metric_and_was_not_fitted(digits, learner, kind):
    monitor = kind(monitor="accuracy")
    other = Learner(digits, linear(), loss_func=BCEOneHotLossFlat(), metrics=accuracy, cbs=monitor)
    probs = sigmoid_preds(other, dl="valid").probs
    torch.testing.assert_close(probs, sigmoid_preds(learner, dl="valid").probs)
    assert monitor in list(other.cbs)
    twin = sigmoid_preds(to_multilabel(other), dl="valid").probs
    torch.testing.assert_close(twin, probs)


CONTAINERS = {
    "L": L,
    "tuple": tuple,
    "generator": iter,
    "column of pandas": lambda fs: pd.Series(map(str, fs), index=range(9, 3, -1)),
    "array of names": lambda fs: np.array(list(map(str, fs))),
    "fastai's images": lambda fs: [PILImageBW.create(f) for f in fs],
    "color images": lambda fs: [PILImage.create(f) for f in fs],
}


@pytest.mark.parametrize("kind", CONTAINERS.values(), ids=CONTAINERS)
def test_containers_of_items(learner, digits, kind):
    files = digits.test_ds.items[:6]
    probs = sigmoid_preds(learner, kind(files)).probs
    torch.testing.assert_close(probs, sigmoid_preds(learner, files).probs)


PIXELS = {
    "columns first": np.asfortranarray,
    "mirrored twice": lambda a: a[:, :, ::-1].copy()[:, :, ::-1],
    "a channel": lambda a: a[:, None],
    "three channels": lambda a: np.stack([a] * 3, -1),
    "tensor": torch.from_numpy,
    "fastai's tensor": lambda a: TensorImageBW(torch.from_numpy(a)[:, None]),
    "not contiguous": lambda a: torch.from_numpy(a).mT.contiguous().mT,
}


@pytest.mark.parametrize("kind", PIXELS.values(), ids=PIXELS)
def test_pixels_in_memory(learner, array, kind):
    probs = sigmoid_preds(learner, kind(array)).probs
    torch.testing.assert_close(probs, sigmoid_preds(learner, array).probs)


BAD_ITEMS = [
    ([None], "expected items to be files, PIL images or uint8 arrays, got None"),
    (
        torch.zeros(2, 28, 28, dtype=torch.bfloat16),
        "expected uint8 pixels .*, got a bfloat16 tensor of shape",
    ),
    ([["a.png"]], "got a list of 1"),
    ({0: 1}, "got 0"),
    (np.zeros((2, 28, 28), "int64"), "expected uint8 .*int64"),
    (np.zeros((2, 28, 28), bool), "expected uint8 .*bool"),
    (np.zeros((2, 3, 28, 28), "uint8"), "expected uint8 "),
    ((), "expected at least one item"),
]


@pytest.mark.parametrize("items, message", BAD_ITEMS)
def test_items_that_are_not_images(learner, items, message):
    with pytest.raises(ValueError, match=message):
        sigmoid_preds(learner, items)


@pytest.mark.parametrize("names", [["no", "yes"], ["cat", "dog", "owl"]], ids=len)
@pytest.mark.parametrize("image", [PILImage, PILImageBW])
def test_words_as_labels_color_and_gray(tmp_path, names, image):
    rng = np.random.default_rng(42)
    pixels = rng.integers(0, 256, (10 * len(names), 20, 30, 3), "uint8")
    for i, px in enumerate(pixels):
        folder = tmp_path / names[i % len(names)]
        folder.mkdir(exist_ok=True)
        mode = "RGB" if i % 4 else "RGBA"
        Image.fromarray(px).convert(mode).save(folder / f"{i}.png")
    block = DataBlock(
        (ImageBlock(image), CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=RandomSplitter(seed=42),
        item_tfms=Resize(16),
    )
    dls = block.dataloaders(tmp_path, bs=4, num_workers=0)
    model = linear(256 * (3 if image is PILImage else 1), len(names))
    for learn in (
        to_multilabel(Learner(dls, model)),
        Learner(dls, model, loss_func=BCEOneHotLossFlat()),
    ):
        preds = sigmoid_preds(learn)
        assert preds.vocab == names
        assert preds.targs.sum(1).tolist() == [1.0] * len(dls.valid_ds)
        assert [names[i] for i in preds.targs.argmax(1)] == [f.parent.name for f in preds.items]
        any_mode = [Image.new(mode, (40, 30)) for mode in ("RGBA", "L", "1", "P")]
        assert sigmoid_preds(learn, any_mode).probs.shape == (4, len(names))


def test_text():
    texts = ["a b c d", "x y z", "u v"] * 20
    df = pd.DataFrame({"text": texts, "label": ["p", "q", "r"] * 20})
    dls = TextDataLoaders.from_df(
        df, text_col="text", label_col="label", valid_pct=0.2, seq_len=8, bs=8
    )
    config = {**awd_lstm_clas_config, "n_hid": 12, "emb_sz": 6}
    learn = text_classifier_learner(dls, AWD_LSTM, pretrained=False, config=config)
    learn = to_multilabel(learn)
    frame = sigmoid_preds(learn, ["a b c", "x y"]).to_frame()
    assert list(frame.columns) == ["item", "verdict", "labels", "p", "q", "r"]
    assert list(frame["item"]) == ["a b c", "x y"]
    assert len(sigmoid_preds(learn, "a b c")) == 1
    assert sigmoid_preds(learn, df[:3]).vocab == ["p", "q", "r"]


class Changed(nn.Module):
    """A linear model whose outputs are changed by a function."""

    def __init__(self, change):
        super().__init__()
        self.model = linear()
        self.change = change

    def forward(self, x):
        return self.change(self.model(x))


STRANGE_OUTPUTS = {
    "two": (lambda z: (z, z), r"expected the model to return one tensor .*got a tuple of 2"),
    "one column": (lambda z: z[:, 0], r"expected logits of shape \(N, C\).*got \(6,\)"),
    "NaN": (lambda z: z * torch.nan, "got NaN in 6 of 6 rows"),
}


@pytest.mark.parametrize("change, message", STRANGE_OUTPUTS.values(), ids=STRANGE_OUTPUTS)
def test_models_that_return_something_else(digits, array, change, message):
    learn = Learner(digits, Changed(change), loss_func=BCEOneHotLossFlat())
    with pytest.raises(ValueError, match=message):
        sigmoid_preds(learn, array)


def test_too_few_outputs(digits):
    learn = Learner(digits, linear(n_out=3), loss_func=BCEOneHotLossFlat())
    with pytest.raises(ValueError, match="expected labels from 0 to 2 .*got 0 to 9"):
        sigmoid_preds(learn)


def test_loaders_of_plain_torch(learner):
    images = torch.rand(5, 1, 28, 28)

    def predict(*label):
        dataset = [(image, *label) for image in images]
        return sigmoid_preds(learner, dl=torch.utils.data.DataLoader(dataset, 2))

    bare = predict()
    assert bare.targs is None
    assert bare.exact is None
    assert predict(3).targs.argmax(1).tolist() == [3] * 5
    with pytest.raises(ValueError, match="expected labels from 0 to 9 .*got 13 to 13"):
        predict(13)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_bare_forward_pass_gives_what_get_preds_gives(learner, split):
    ours = sigmoid_preds(learner, dl=split)
    dl = learner.dls.loaders[["train", "valid", "test"].index(split)]
    in_order = dl.new(shuffle=False, drop_last=False)
    with learner.no_bar():
        logits, targs = learner.get_preds(dl=in_order, act=noop)
    torch.testing.assert_close(ours.logits, logits)
    assert ours.targs.argmax(1).equal(torch.as_tensor(targs))
    assert len(ours) == len(dl.dataset)


class Dark(Callback):
    def before_batch(self):
        self.learn.xb = (torch.zeros_like(self.x),)


def test_a_callback_has_its_say(digits, array):
    learn = Learner(digits, linear(), loss_func=BCEOneHotLossFlat(), cbs=Dark())
    logits = sigmoid_preds(learn, array).logits
    bias = learn.model[1].bias.detach()
    torch.testing.assert_close(logits, bias.expand(len(array), 10))


class Raises(Callback):
    def before_batch(self):
        raise RuntimeError("stopped here")


def test_a_learner_is_restored_after_an_error(digits, array):
    learn = Learner(digits, linear(), loss_func=BCEOneHotLossFlat(), cbs=Raises())
    learn.model.train()
    before = list(learn.cbs)
    with pytest.raises(RuntimeError, match="stopped here"):
        sigmoid_preds(learn, array)
    assert list(learn.cbs) == before
    assert learn.model.training
    assert all(layer.training for layer in learn.model)


def test_a_learner_without_a_vocab():
    data = [(torch.randn(4), torch.eye(3)[i % 3]) for i in range(6)]
    dls = DataLoaders.from_dsets(data, data, bs=3, num_workers=0)
    learn = Learner(dls, nn.Linear(4, 3), loss_func=nn.BCEWithLogitsLoss())
    assert sigmoid_preds(learn).vocab == ["0", "1", "2"]


def test_one_output_for_one_question():
    data = [(torch.randn(4), float(i % 2)) for i in range(6)]
    dls = DataLoaders.from_dsets(data, data, bs=3, num_workers=0)
    learn = Learner(dls, nn.Linear(4, 1), loss_func=nn.BCEWithLogitsLoss())
    preds = sigmoid_preds(learn, dl="valid")
    assert preds.targs.tolist() == [[0.0], [1.0]] * 3


# ---- names and thresholds


def vectors(n_classes=3, n=9, dtype=torch.float32):
    torch.manual_seed(3)
    targets = torch.eye(n_classes)[torch.arange(n) % n_classes]
    return torch.utils.data.TensorDataset(torch.randn(n, 4, dtype=dtype), targets.to(dtype))


def vector_learner(loss_func, n_classes=3, model=None, dtype=torch.float32, dataset=None):
    dataset = dataset or vectors(n_classes, dtype=dtype)
    dls = DataLoaders.from_dsets(dataset, dataset, bs=4, num_workers=0)
    torch.manual_seed(1)
    model = model or nn.Linear(4, n_classes, dtype=dtype)
    return Learner(dls, model, loss_func=loss_func)


@pytest.mark.parametrize("names", [["cat", "dog"], ("a", "b", "c"), np.array(["x", "y", "z", "w"])])
def test_vocab_for_a_learner_without_one(names):
    learn = vector_learner(nn.BCEWithLogitsLoss(), len(names))
    assert sigmoid_preds(learn).vocab == [str(c) for c in range(len(names))]
    preds = sigmoid_preds(learn, vocab=names)
    assert preds.vocab == list(names)
    assert list(preds.to_frame().columns[3:]) == list(names)
    with pytest.raises(ValueError, match="class names"):
        sigmoid_preds(learn, vocab=[*names, "one more"])


@pytest.mark.parametrize("names", [["cat", "dog"], ("a", "b", "c")])
def test_classes_of_a_data_set_are_found(names):
    dataset = vectors(len(names))
    dataset.classes = names
    learn = vector_learner(nn.BCEWithLogitsLoss(), len(names), dataset=dataset)
    assert sigmoid_preds(learn).vocab == list(names)
    part = torch.utils.data.DataLoader(torch.utils.data.Subset(dataset, [3, 1]), 2)
    assert sigmoid_preds(learn, dl=part).vocab == list(names)
    dataset.classes = [*names, "one more"]  # not those of the model's outputs
    assert sigmoid_preds(learn).vocab == [str(c) for c in range(len(names))]


@pytest.mark.parametrize("thresh", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("n_classes", [1, 3, 5])
@pytest.mark.parametrize("loss", [BCEWithLogitsLossFlat, BCEOneHotLossFlat])
def test_the_threshold_of_the_loss_is_honored(loss, n_classes, thresh):
    learn = vector_learner(loss(thresh=thresh), n_classes)
    preds = sigmoid_preds(learn)
    assert preds.threshold == thresh
    with learn.no_bar():
        decoded = learn.get_preds(with_decoded=True)[2]
    assert preds.fires.equal(decoded.bool().reshape(preds.fires.shape))
    assert sigmoid_preds(learn, threshold=0.4).threshold == 0.4
    identity = SigmoidCalibrator("softmax").fit(5 * torch.eye(3), torch.arange(3))
    if n_classes == 3:
        assert sigmoid_preds(learn, calibrator=identity).threshold == 0.5


def test_a_loss_without_a_threshold_means_one_half():
    class Margin(nn.Module):
        thresh = 7.0  # something else than a threshold: this loss decides nothing

        def forward(self, z, y):
            return nn.functional.binary_cross_entropy_with_logits(z, y)

    for loss_func in (Margin(), nn.BCEWithLogitsLoss(), nn.functional.mse_loss):
        learn = vector_learner(loss_func)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert sigmoid_preds(learn).threshold == 0.5


# ---- which losses are warned of


class OwnBCE(nn.Module):
    def forward(self, z, y):
        return F.binary_cross_entropy_with_logits(z, y.to(z.dtype))


class OwnFocal(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, z, y):
        bce = F.binary_cross_entropy_with_logits(z, y.to(z.dtype), reduction="none")
        return ((1 - torch.exp(-bce)) ** self.gamma * bce).sum(1).mean()


class OneHotInside:
    def __call__(self, z, y):
        return F.binary_cross_entropy_with_logits(z, F.one_hot(y, z.shape[1]).to(z.dtype))


def log_by_hand(z, y):
    p = z.sigmoid()
    return -(y * (p + 1e-7).log() + (1 - y) * (1 - p + 1e-7).log()).mean()


def smoothed(z, y, amount):
    return F.binary_cross_entropy_with_logits(z, y * (1 - amount) + amount / 2)


def gamma_first(gamma, z, y):
    return OwnFocal(gamma)(z, y)


def focal_mean(z, y):
    return torchvision.ops.sigmoid_focal_loss(z, y, reduction="mean")


SIGMOID_LOSSES = {
    "torch": nn.BCEWithLogitsLoss(),
    "torch, weighted": nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
    "torch, soft margin": nn.MultiLabelSoftMarginLoss(),
    "fastai": BCEWithLogitsLossFlat(),
    "ours": BCEOneHotLossFlat(),
    "timm": timm.loss.BinaryCrossEntropy(),
    "timm, smoothed": timm.loss.BinaryCrossEntropy(smoothing=0.2, target_threshold=0.2),
    "timm, asymmetric": timm.loss.AsymmetricLossMultiLabel(),
    "torchvision": torchvision.ops.sigmoid_focal_loss,
    "torchvision in a partial": partial(torchvision.ops.sigmoid_focal_loss, reduction="mean"),
    "torchvision in a function": focal_mean,
    "own": OwnBCE(),
    "own focal": OwnFocal(),
    "own of labels": OneHotInside(),
    "own by hand": log_by_hand,
    "own, smoothed": partial(smoothed, amount=0.2),
    "own, gamma first": partial(gamma_first, 1.5),
    "own lambda": lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="sum"),
    "own of the output": lambda out, y: F.binary_cross_entropy_with_logits(out.logits, y),
    "own of a dict": lambda out, y: F.binary_cross_entropy_with_logits(out["logits"], y),
}


def warnings_of(learn, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sigmoid_preds(learn, **kwargs)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("loss_func", SIGMOID_LOSSES.values(), ids=SIGMOID_LOSSES)
@pytest.mark.parametrize("n_classes", [1, 2, 3, 10])
def test_no_warning_for_a_loss_that_trains_sigmoids(loss_func, n_classes):
    if n_classes == 1 and isinstance(loss_func, OneHotInside):
        pytest.skip("one class has no labels")
    for dtype in (torch.float32, torch.float64):
        assert warnings_of(vector_learner(loss_func, n_classes, dtype=dtype)) == []


def cross_entropy_with_penalty(z, y):
    return F.cross_entropy(z, y) + 0.1 * z.logsumexp(1).square().mean()


def own_focal_softmax(z, y):
    ce = F.cross_entropy(z, y, reduction="none")
    return ((1 - torch.exp(-ce)) ** 2 * ce).mean()


OTHER_LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(), "CrossEntropyLoss trains the softmax"),
    "in a partial": (partial(F.cross_entropy, reduction="sum"), "cross_entropy trains the softmax"),
    "own": (own_focal_softmax, "own_focal_softmax trains the softmax"),
    "timm": (timm.loss.SoftTargetCrossEntropy(), "SoftTargetCrossEntropy trains the softmax"),
    "of the output": (
        partial(lambda out, y: F.cross_entropy(out.logits, y)),
        "lambda trains the softmax",
    ),
    "with a penalty": (cross_entropy_with_penalty, "got cross_entropy_with_penalty"),
    "a distance": (nn.MSELoss(), "got MSELoss"),
    "a distance in a partial": (partial(partial(F.smooth_l1_loss), beta=2.0), "got smooth_l1_loss"),
}


@pytest.mark.parametrize("loss_func, message", OTHER_LOSSES.values(), ids=OTHER_LOSSES)
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_a_warning_names_the_loss_as_its_author_does(loss_func, message, n_classes):
    (warning,) = warnings_of(vector_learner(loss_func, n_classes))
    assert message in warning
    assert "partial" not in warning


# ---- what a model may return

Output = namedtuple("Output", "loss logits")


class HFOutput(OrderedDict):
    """As transformers' ModelOutput: a dict that also has attributes."""

    def __getattr__(self, name):
        return self[name] if name in self else super().__getattribute__(name)


@dataclass
class DataOutput:
    logits: torch.Tensor
    hidden_states: tuple = ()


WITH_LOGITS = {
    "a dict": lambda z: {"logits": z},
    "more in the dict": lambda z: {"loss": None, "logits": z, "hidden": (z, z[:, :1])},
    "ModelOutput": lambda z: HFOutput(logits=z, past=None),
    "named tuple": lambda z: Output(None, z),
    "dataclass": lambda z: DataOutput(z, (z,)),
    "namespace": lambda z: SimpleNamespace(logits=z),
    "one in a tuple": lambda z: (z,),
    "one in a list": lambda z: [z],
}


@pytest.mark.parametrize("change", WITH_LOGITS.values(), ids=WITH_LOGITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_outputs_with_logits_are_understood(change, dtype, n_classes):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, n_classes, dtype=dtype)

        def forward(self, x):
            return change(self.linear(x))

    learn = vector_learner(
        lambda out, y: F.binary_cross_entropy_with_logits(out.logits, y),
        n_classes,
        Model(),
        dtype,
    )
    preds = sigmoid_preds(learn)
    x, y = learn.dls.valid_ds.tensors
    with torch.no_grad():
        torch.testing.assert_close(preds.logits, learn.model.cpu().linear(x).float())
    assert preds.targs.equal(y.float())


@pytest.mark.parametrize("change", WITH_LOGITS.values(), ids=WITH_LOGITS)
def test_outputs_with_logits_of_images(digits, array, change):
    learn = Learner(digits, Changed(change), loss_func=BCEOneHotLossFlat())
    plain = Learner(digits, Changed(noop), loss_func=BCEOneHotLossFlat())
    torch.testing.assert_close(
        sigmoid_preds(learn, array).logits, sigmoid_preds(plain, array).logits
    )


WITHOUT_LOGITS = {
    "tuple": (lambda z: (z, z), "got a tuple of 2; .*learn.pred = self.pred.0."),
    "features of None": (lambda z: (z, None), "got a tuple of 2"),
    "dict": (lambda z: {"out": z, "aux": z}, "got a dict of 2 with 'out', 'aux'; .*pred.'out'."),
    "None": (lambda z: None, "got None"),
}


@pytest.mark.parametrize("change, message", WITHOUT_LOGITS.values(), ids=WITHOUT_LOGITS)
@pytest.mark.parametrize("has_callback", [True, False])
def test_other_outputs_get_one_sentence(digits, array, change, message, has_callback):
    cbs = [Callback()] if has_callback else None
    learn = Learner(digits, Changed(change), loss_func=BCEOneHotLossFlat(), cbs=cbs)
    with pytest.raises(ValueError, match="^expected the model to return one tensor .*" + message):
        sigmoid_preds(learn, array)


class TakeFirst(Callback):
    order = 50

    def after_pred(self):
        self.learn.pred = self.pred[0]


def test_the_offered_callback_takes_the_logits_out(digits, array):
    changed = Changed(lambda z: (z, None))
    learn = Learner(digits, changed, loss_func=BCEOneHotLossFlat(), cbs=TakeFirst())
    plain = Learner(digits, Changed(noop), loss_func=BCEOneHotLossFlat())
    torch.testing.assert_close(
        sigmoid_preds(learn, array).logits, sigmoid_preds(plain, array).logits
    )


@pytest.mark.parametrize("batch", [{"x": 1, "y": 2}, {"pixel_values": torch.zeros(2, 4)}])
def test_batches_that_are_dicts_get_one_sentence(batch):
    learn = vector_learner(nn.BCEWithLogitsLoss())
    with pytest.raises(ValueError, match="expected batches .*got a dict of .*'.*collate_fn"):
        sigmoid_preds(learn, dl=[batch])


def test_a_data_set_is_no_loader():
    learn = plain_learner()
    with pytest.raises(ValueError, match="got a TensorDataset; pass dl=DataLoader"):
        sigmoid_preds(learn, dl=torch.utils.data.TensorDataset(torch.zeros(4, 3)))


def plain_learner():
    """Return a learner of plain loaders, whose first layer takes three numbers."""
    data = torch.utils.data.TensorDataset(torch.zeros(4, 3), torch.zeros(4, 2))
    loaders = [torch.utils.data.DataLoader(data, batch_size=2, shuffle=True) for _ in range(2)]
    return Learner(DataLoaders(*loaders), nn.Linear(3, 2), loss_func=BCEWithLogitsLossFlat())


@pytest.mark.parametrize("o", [nn.Linear(3, 2), None, "learn", torch.zeros(2, 3)])
def test_what_is_no_learner(o):
    with pytest.raises(TypeError, match="^expected learn to be a fastai Learner, got"):
        sigmoid_preds(o)


def test_the_random_states_are_left_alone():
    learn = plain_learner()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    sigmoid_preds(learn)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2] and before[2].equal(after[2])
