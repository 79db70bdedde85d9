"""sigmoid_preds on items, containers, learners and mistakes that the chapters do not show."""

import numpy as np
import pandas as pd
import pytest
import torch
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
    ImageBlock,
    L,
    Learner,
    PILImage,
    PILImageBW,
    RandomSplitter,
    Resize,
    TensorImageBW,
    get_image_files,
    nn,
    noop,
    parent_label,
)
from PIL import Image

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
