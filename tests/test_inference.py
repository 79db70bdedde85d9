"""sigmoid_preds, thresholds and calibrators on what the lessons do not show: other kinds of items, containers, learners and mistakes."""
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.text.all import AWD_LSTM, TextDataLoaders, awd_lstm_clas_config, text_classifier_learner
from fastai.vision.all import (Callback, CategoryBlock, DataBlock, DataLoaders, ImageBlock, L, Learner, PILImage, PILImageBW, RandomSplitter, Resize, TensorImageBW,
                               get_image_files, nn, noop, parent_label)
from multilabel_mnist.calibrate import SigmoidCalibrator, margins, tune_thresholds
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.inference import SigmoidPreds, sigmoid_preds
from multilabel_mnist.labels import BCEOneHotLossFlat, exact_match, one_hot, to_multilabel
from PIL import Image

LOGITS = torch.tensor([[2., -1, -3], [1, 1, -2], [-2, -1, 3], [-1, -2, -3]])
LABELS = torch.tensor([0, 1, 2, 0])


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
    "L": L, "tuple": tuple, "generator": iter, "column of pandas": lambda fs: pd.Series(map(str, fs), index=range(9, 3, -1)),
    "array of names": lambda fs: np.array(list(map(str, fs))), "fastai's images": lambda fs: [PILImageBW.create(f) for f in fs],
    "colour images": lambda fs: [PILImage.create(f) for f in fs]}


@pytest.mark.parametrize("kind", CONTAINERS.values(), ids=CONTAINERS)
def test_containers_of_items(learner, digits, kind):
    files = digits.test_ds.items[:6]
    torch.testing.assert_close(sigmoid_preds(learner, kind(files)).probs, sigmoid_preds(learner, files).probs)


PIXELS = {
    "columns first": np.asfortranarray, "mirrored twice": lambda a: a[:, :, ::-1].copy()[:, :, ::-1], "a channel": lambda a: a[:, None], "three channels": lambda a: np.stack([a] * 3, -1),
    "tensor": torch.from_numpy, "fastai's tensor": lambda a: TensorImageBW(torch.from_numpy(a)[:, None]), "not contiguous": lambda a: torch.from_numpy(a).mT.contiguous().mT}


@pytest.mark.parametrize("kind", PIXELS.values(), ids=PIXELS)
def test_pixels_in_memory(learner, array, kind):
    torch.testing.assert_close(sigmoid_preds(learner, kind(array)).probs, sigmoid_preds(learner, array).probs)


@pytest.mark.parametrize("items, said", [
    ([None], "an item is a NoneType: wanted a file, a PIL image or uint8 pixels"), ([["a.png"]], "an item is a list"), ({0: 1}, "an item is a int"),
    (np.zeros((2, 28, 28), "int64"), "int64"), (np.zeros((2, 28, 28), bool), "bool"), (np.zeros((2, 3, 28, 28), "uint8"), "wanted uint8"), ((), "items are empty")])
def test_items_that_are_none(learner, items, said):
    with pytest.raises(ValueError, match=said):
        sigmoid_preds(learner, items)


@pytest.mark.parametrize("names", [["no", "yes"], ["cat", "dog", "owl"]], ids=len)
@pytest.mark.parametrize("image", [PILImage, PILImageBW])
def test_words_as_labels_colour_and_grey(tmp_path, names, image):
    pixels = np.random.default_rng(42).integers(0, 256, (10 * len(names), 20, 30, 3), "uint8")
    for i, px in enumerate(pixels):
        (tmp_path / names[i % len(names)]).mkdir(exist_ok=True)
        Image.fromarray(px).convert("RGB" if i % 4 else "RGBA").save(tmp_path / names[i % len(names)] / f"{i}.png")
    block = DataBlock((ImageBlock(image), CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=RandomSplitter(seed=42), item_tfms=Resize(16))
    dls = block.dataloaders(tmp_path, bs=4, num_workers=0)
    model = linear(256 * (3 if image is PILImage else 1), len(names))
    for learn in (to_multilabel(Learner(dls, model)), Learner(dls, model, loss_func=BCEOneHotLossFlat())):
        preds = sigmoid_preds(learn)
        assert preds.vocab == names and preds.targs.sum(1).tolist() == [1.] * len(dls.valid_ds)
        assert [names[i] for i in preds.targs.argmax(1)] == [f.parent.name for f in preds.items]
        assert sigmoid_preds(learn, [Image.new(mode, (40, 30)) for mode in ("RGBA", "L", "1", "P")]).probs.shape == (4, len(names))


def test_text():
    df = pd.DataFrame({"text": ["a b c d", "x y z", "u v"] * 20, "label": ["p", "q", "r"] * 20})
    dls = TextDataLoaders.from_df(df, text_col="text", label_col="label", valid_pct=.2, seq_len=8, bs=8)
    learn = to_multilabel(text_classifier_learner(dls, AWD_LSTM, pretrained=False, config={**awd_lstm_clas_config, "n_hid": 12, "emb_sz": 6}))
    frame = sigmoid_preds(learn, ["a b c", "x y"]).to_frame()
    assert list(frame.columns) == ["item", "verdict", "labels", "p", "q", "r"] and list(frame["item"]) == ["a b c", "x y"]
    assert len(sigmoid_preds(learn, "a b c")) == 1 and sigmoid_preds(learn, df[:3]).vocab == ["p", "q", "r"]


def test_models_that_give_something_else(digits, array):
    class Twice(nn.Module):
        def __init__(self, of):
            super().__init__()
            self.m, self.of = linear(), of

        def forward(self, x):
            return self.of(self.m(x))

    for of, said in ((lambda z: (z, z), "the model gives a tuple"), (lambda z: z[:, 0], r"logits have shape \(6,\)"), (lambda z: z * torch.nan, "6 of 6 rows of logits hold NaN")):
        with pytest.raises(ValueError, match=said):
            sigmoid_preds(Learner(digits, Twice(of), loss_func=BCEOneHotLossFlat()), array)
    with pytest.raises(ValueError, match="labels .* run from 0 to 9: wanted 0 to 2"):
        sigmoid_preds(Learner(digits, linear(n_out=3), loss_func=BCEOneHotLossFlat()))


def test_loaders_of_plain_torch(learner):
    x = torch.rand(5, 1, 28, 28)
    bare = sigmoid_preds(learner, dl=torch.utils.data.DataLoader([(o,) for o in x], 2))
    assert bare.targs is None and bare.exact is None
    assert sigmoid_preds(learner, dl=torch.utils.data.DataLoader([(o, 3) for o in x], 2)).targs.argmax(1).tolist() == [3] * 5
    with pytest.raises(ValueError, match="labels .* run from 13 to 13"):
        sigmoid_preds(learner, dl=torch.utils.data.DataLoader([(o, 13) for o in x], 2))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_bare_forward_pass_gives_what_get_preds_gives(learner, split):
    ours = sigmoid_preds(learner, dl=split)
    dl = learner.dls.loaders[["train", "valid", "test"].index(split)]
    with learner.no_bar():
        logits, targs = learner.get_preds(dl=dl.new(shuffle=False, drop_last=False), act=noop)
    torch.testing.assert_close(ours.logits, logits)
    assert ours.targs.argmax(1).equal(torch.as_tensor(targs)) and len(ours) == len(dl.dataset)


class Dark(Callback):
    def before_batch(self):
        self.learn.xb = (torch.zeros_like(self.x),)


def test_a_callback_has_its_say(digits, array):
    learn = Learner(digits, linear(), loss_func=BCEOneHotLossFlat(), cbs=Dark())
    torch.testing.assert_close(sigmoid_preds(learn, array).logits, learn.model[1].bias.detach().expand(len(array), 10))


BAD_THRESHOLDS = [-.1, 1.1, float("nan"), "half", [.1, .2], [.1, None, .2], [[.1, .2, .3]], {"cat": .5}]


@pytest.mark.parametrize("t", BAD_THRESHOLDS, ids=str)
def test_bad_thresholds(t):
    for f in (lambda: SigmoidPreds(LOGITS, threshold=t), lambda: SigmoidPreds(LOGITS).read(threshold=t), lambda: exact_match(LOGITS, LABELS, t)):
        with pytest.raises(ValueError, match=r"thresh.* wanted a number from 0 to 1,? .*one per class|thresh is .*or 3 of them|threshold is .*or 3 of them"):
            f()


@pytest.mark.parametrize("t", [[.3, .5, .7], np.array([.3, .5, .7]), torch.tensor([.3, .5, .7]).double(), pd.Series([.3, .5, .7], index=list("xyz"))], ids=lambda t: type(t).__name__)
def test_thresholds_of_any_kind(t):
    assert SigmoidPreds(LOGITS, threshold=t).verdicts.tolist() == ["one", "several", "one", "none"]
    assert exact_match(LOGITS, LABELS, t) == SigmoidPreds(LOGITS, threshold=t, targs=LABELS).exact.float().mean()


ROWS = one_hot(LABELS, 3)
GOOD_TARGETS = {"labels": LABELS, "array": LABELS.numpy(), "list": LABELS.tolist(), "column": pd.Series(LABELS.numpy(), index=[7, 5, 3, 1]),
                "rows": ROWS, "table": pd.DataFrame(ROWS.numpy(), index=list("abcd")), "bool": ROWS.bool(), "double": ROWS.double()}
BAD_TARGETS = {"names": list("abca"), "negative": LABELS - 1, "too large": LABELS + 1, "halves": LABELS + .5, "of another length": LABELS[:2], "none": LABELS[:0],
               "transposed": ROWS.T, "NaN": ROWS * torch.nan, "twos": ROWS * 2, "fractions": ROWS * .4}


def consumers(targs, probs=LOGITS.sigmoid()):
    yield lambda: tune_thresholds(probs, targs)
    yield lambda: tune_thresholds(probs, targs, per_class=True, objective="exact")
    yield lambda: SigmoidCalibrator().fit(LOGITS, targs)
    yield lambda: SigmoidCalibrator("softmax").fit(LOGITS, targs)


@pytest.mark.parametrize("targs", GOOD_TARGETS.values(), ids=GOOD_TARGETS)
def test_good_targets(targs):
    torch.testing.assert_close(SigmoidPreds(LOGITS, targs=targs).targs, ROWS)
    for f, g in zip(consumers(targs), consumers(ROWS)):
        assert str(f()) == str(g())


@pytest.mark.parametrize("targs", BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_bad_targets(targs):
    for f in consumers(targs):
        with pytest.raises(ValueError, match="^(targets|labels) .*(wanted|hold)"):
            f()


@pytest.mark.parametrize("logits", ["a", None, LOGITS[0], LOGITS[None], LOGITS[:0], LOGITS * torch.nan], ids=["text", "None", "one row", "3-d", "empty", "NaN"])
def test_bad_logits(logits):
    for f in (lambda: SigmoidPreds(logits), lambda: tune_thresholds(logits, LABELS), lambda: SigmoidCalibrator().fit(logits, LABELS)):
        with pytest.raises(ValueError, match="^(logits|probs) |rows of (logits|probs) hold NaN"):
            f()


@pytest.mark.parametrize("of", [torch.Tensor.numpy, torch.Tensor.tolist, lambda z: pd.DataFrame(z.numpy()), torch.Tensor.double, lambda z: z.T.contiguous().T,
                                lambda z: z.clone().requires_grad_(), TensorImageBW], ids="array list table double strided grad subclass".split())
def test_logits_of_any_kind(of):
    torch.testing.assert_close(SigmoidPreds(of(LOGITS)).probs, LOGITS.sigmoid())
    torch.testing.assert_close(torch.as_tensor(margins(of(LOGITS))).float().detach().as_subclass(torch.Tensor), margins(LOGITS))


def test_rows_are_chosen():
    preds = SigmoidPreds(LOGITS)
    assert [len(preds[i]) for i in ([], np.array([], int), torch.zeros(4).bool(), slice(0, 0), -1, torch.tensor([0, 1]))] == [0, 0, 0, 0, 1, 2]
    assert preds[[]].labels == [] and preds[[]].to_frame().shape == (0, 6)
    with pytest.raises(IndexError):
        preds[4]


def test_a_learner_without_a_vocab():
    data = [(torch.randn(4), torch.eye(3)[i % 3]) for i in range(6)]
    learn = Learner(DataLoaders.from_dsets(data, data, bs=3, num_workers=0), nn.Linear(4, 3), loss_func=nn.BCEWithLogitsLoss())
    assert sigmoid_preds(learn).vocab == ["0", "1", "2"]
