"""Cases of what takes models, learners, data sets, files and images."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from multilabel_mnist.callback import ExplainMismatch
from multilabel_mnist.compose import train_verdicts
from multilabel_mnist.convert import to_multiclass, to_multilabel
from multilabel_mnist.data import DigitDataLoaders, digits_path, grey_image, running_example
from multilabel_mnist.final_linear import final_linear
from multilabel_mnist.head import head_table, replace_final_linear
from multilabel_mnist.predict import sigmoid_preds
from multilabel_mnist.training import fused_adam
from multilabel_mnist.trial import keep_random_state

from .cases_values import case, scalar
from .expected import need, need_count, need_number, need_threshold, sigmoid
from .judge import UNSURE
from .values import (
    NONSENSE,
    Value,
    any_numbers,
    anything,
    corrupted,
    names,
    no_numbers,
    normal,
    numbers,
    often,
    plain,
    scalars,
)

# Models


class Model:
    """What is known of a model: the name of its last layer, and what that layer takes."""

    def __init__(self, name, n_in, n_out):
        self.name, self.n_in, self.n_out = name, n_in, n_out


class Branching(nn.Module):
    """A model with two last layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 4)

    def forward(self, x):
        return self.a(x), self.b(x)


class Named(nn.Module):
    """A model whose last layer is not registered last."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.body = nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(self.body(x).relu())


class Failing(nn.Module):
    """A model that cannot run."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        raise RuntimeError("this model never runs")


MODELS = (
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), Model("2", 4, 2)),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)), Model("2", 4, 1)),
    (lambda: nn.Sequential(nn.Linear(3, 2, bias=False)), Model("0", 3, 2)),
    (Named, Model("fc", 3, 2)),
    (lambda: nn.Linear(3, 2), Model("", 3, 2)),
)
OTHER_MODELS = (
    (Branching, NONSENSE),
    (nn.Sequential, NONSENSE),
    (nn.ReLU, NONSENSE),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), NONSENSE),
    (Failing, UNSURE),
    (lambda: nn.Sequential(nn.LazyLinear(3)), UNSURE),
    (lambda: nn.ModuleList([nn.Linear(3, 2)]), UNSURE),
    (nn.ModuleDict, NONSENSE),
    (nn.Module, NONSENSE),
)


def models(others=True):
    """Draw new models, sometimes such as have no last layer."""
    kinds = MODELS * 2 + OTHER_MODELS if others else MODELS
    return st.sampled_from(kinds).map(lambda kind: Value(kind[0](), kind[1]))


no_models = st.one_of(
    no_numbers.filter(lambda v: not isinstance(v.given, nn.Module)),
    scalars,
    any_numbers,
).map(lambda v: Value(v.given, NONSENSE))


@case(
    "final_linear.final_linear",
    lambda model: (lambda found: (found[0], found[1].in_features))(final_linear(model)),
    often(models(), no_models).map(lambda value: {"model": value}),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    budget=120.0,
    examples=100,
)
def _(model):
    need(isinstance(model, Model))
    return model.name, model.n_in


@case(
    "head.head_table",
    lambda o, xb: head_table(o, xb).iloc[-1][["name", "in_shape", "out_shape"]].tolist(),
    corrupted(
        st.fixed_dictionaries({"o": models(), "xb": numbers((2, 3), normal, odd=False)}),
        replacement=st.one_of(no_models, anything),
    ),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    budget=200.0,
    examples=100,
)
def _(o, xb):
    need(isinstance(o, Model))
    if not isinstance(xb, np.ndarray) or xb.shape != (2, 3) or xb.dtype != np.float64:
        return UNSURE
    return [o.name, (2, o.n_in), (2, o.n_out)]


def replaced(o, n_out, prior):
    """Replace the last layer of a new model, and return what it gives, and its bias."""
    new = replace_final_linear(o, n_out, prior)
    name, layer = final_linear(new)
    bias = None if prior is None else layer.bias.detach().double().numpy()
    return name, layer.out_features, layer.weight.shape[1], bias


def assert_replaced(answer, expected):
    *facts, bias = answer
    *wanted, wanted_bias = expected
    assert facts == wanted
    assert (bias is None) == (wanted_bias is None)
    if bias is not None:
        np.testing.assert_allclose(bias, wanted_bias, atol=1e-4)


@st.composite
def replacements(draw):
    """Draw a model, a number of outputs and a prior."""
    n = draw(st.integers(1, 4))
    inside = lambda rng, shape: rng.uniform(0.01, 0.99, shape)  # noqa: E731
    priors = st.one_of(
        st.just(plain(None)),
        st.sampled_from((0.1, 0.5)).map(scalar),
        numbers((n,), inside, forms=("tensor", "array", "list", "pandas")),
    )
    return {"o": draw(models()), "n_out": scalar(n), "prior": draw(priors)}


no_linears = anything.filter(lambda value: not isinstance(value.given, nn.Module))


@case(
    "head.replace_final_linear",
    replaced,
    corrupted(replacements(), replacement=no_linears),
    same=assert_replaced,
    draws=("torch",),
    keeps=False,
    budget=200.0,
    examples=100,
)
def _(o, n_out, prior):
    n_out = need_count(n_out)
    bias = None
    if prior is not None:
        need(isinstance(prior, np.ndarray) and prior.dtype.kind in "iuf")
        need(prior.shape in ((), (n_out,)) and ((prior > 0) & (prior < 1)).all())
        bias = np.broadcast_to(np.log(prior / (1 - prior)), (n_out,))
    need(isinstance(o, Model))
    return o.name, n_out, o.n_in, bias


@case(
    "training.fused_adam",
    lambda params, lr: len(fused_adam(params, lr=lr).param_lists),
    corrupted(
        st.fixed_dictionaries(
            {
                "params": st.builds(lambda: plain(list(nn.Linear(2, 3).parameters()))),
                "lr": st.sampled_from((1e-3, 0.1)).map(scalar),
            }
        ),
        replacement=st.one_of(no_numbers, scalars),
    ),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
)
def _(params, lr):
    if params is NONSENSE or isinstance(params, np.ndarray):
        return UNSURE  # fastai takes empty groups of parameters
    need(isinstance(params, list))
    if isinstance(lr, np.ndarray) and (lr.dtype.kind not in "iuf" or np.isinf(lr)):
        return UNSURE  # torch takes True for 1, and infinity
    need_number(lr, 0)
    return 1


# Learners


@functools.cache
def digits():
    """Return a folder of a few small digits."""
    folder = Path(tempfile.mkdtemp()) / "digits"
    rng = np.random.default_rng(0)
    for split, n in (("training", 4), ("testing", 2)):
        for name in "01":
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (28, 28), dtype="uint8")
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


@functools.cache
def digit_dls():
    """Return loaders of a few small digits."""
    with keep_random_state():
        return DigitDataLoaders.from_folder(digits(), bs=4, valid_pct=0, device="cpu")


@functools.cache
def learner():
    """Return a learner of a few small digits, whose logits are known."""
    with keep_random_state(seed=0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
        return Learner(to_multilabel(digit_dls()), model, loss_func=BCEWithLogitsLossFlat())


def plain_loaders():
    """Return DataLoaders of plain torch: of a data set of tensors."""
    data = torch.utils.data.TensorDataset(torch.zeros(4, 3), torch.zeros(4, 2))
    return DataLoaders(*[torch.utils.data.DataLoader(data, batch_size=2)] * 2)


NO_LEARNERS = (
    lambda: nn.Linear(3, 2),
    lambda: torch.utils.data.TensorDataset(torch.zeros(4, 3)),
    plain_loaders,
    DataLoaders,
    lambda: torch.utils.data.DataLoader([1, 2]),
    lambda: Learner,
    lambda: Learner(plain_loaders(), nn.Linear(3, 2), loss_func=nn.BCEWithLogitsLoss()),
)
no_learners = st.one_of(
    st.sampled_from(NO_LEARNERS).map(lambda make: Value(make(), NONSENSE)), no_models
)


def convert_case(name, function, good, bad):
    """Enter the case of a conversion of loaders and learners."""

    @case(
        name,
        lambda o: type(function(o)).__name__,
        often(
            st.sampled_from((good, bad)).map(lambda make: Value(*make())),
            no_learners,
            odds=1,
        ).map(lambda value: {"o": value}),
        same=lambda answer, expected: np.testing.assert_equal(answer, expected),
        keeps=False,
        budget=120.0,
        examples=100,
    )
    def _(o):
        need(isinstance(o, str))
        return o


convert_case(
    "convert.to_multilabel",
    to_multilabel,
    lambda: (digit_dls(), "DigitDataLoaders"),
    lambda: (learner(), NONSENSE),
)
convert_case(
    "convert.to_multiclass",
    to_multiclass,
    lambda: (learner(), "Learner"),
    lambda: (digit_dls(), NONSENSE),
)


def pixels(n):
    """Draw n images of uint8 pixels, of odd sizes too."""
    shape = st.sampled_from(((n, 28, 28), (n, 28, 28), (n, 1, 28, 28), (n, 9, 5), (28, 28)))
    make = lambda rng, shape: rng.integers(0, 256, shape)  # noqa: E731
    forms = ("tensor", "array", "with stride", "read only")
    return shape.flatmap(lambda s: numbers(s, make, (torch.uint8,), forms))


def files():
    """Draw files of images, missing ones and folders."""
    found = sorted(digits().rglob("*.png"))
    good = st.lists(st.sampled_from(found), min_size=1, max_size=3)
    odd = [digits(), Path("missing.png"), "missing", ""]
    bad = st.lists(st.sampled_from([*found, *odd]), max_size=3)
    as_value = lambda o: Value(o, Paths(o))  # noqa: E731
    return st.one_of(good, bad).map(as_value)


class Paths:
    """Files, as the meaning of a list of them."""

    def __init__(self, files):
        self.files = files


def logits_of_pixels(images):
    """Return what the learner's model says, computed by hand."""
    dls = learner().dls
    normalize = dls.train.after_batch.fs[-1]
    model = learner().model[1]
    x = images.reshape(len(images), -1).astype("float64") / 255
    x = (x - float(normalize.mean)) / float(normalize.std)
    return x @ model.weight.detach().double().numpy().T + model.bias.detach().double().numpy()


@case(
    "predict.sigmoid_preds",
    lambda items, **others: sigmoid_preds(learner(), items, **others).probs.double().numpy(),
    corrupted(
        st.fixed_dictionaries(
            {
                "items": st.one_of(st.integers(1, 3).flatmap(pixels), st.deferred(files)),
                "dl": st.just(plain(None)),
                "threshold": st.sampled_from((None, 0.2)).map(
                    lambda o: plain(None) if o is None else scalar(o)
                ),
                "calibrator": st.just(plain(None)),
                "vocab": st.one_of(
                    st.just(plain(None)), names(2).map(lambda o: Value(o, o)), st.just(plain(["a"]))
                ),
            }
        )
    ),
    same=lambda answer, expected: np.testing.assert_allclose(answer, expected, atol=1e-4),
    examples=100,
    budget=300.0,
    keeps=False,
)
def _(items, dl, threshold, calibrator, vocab):
    if isinstance(vocab, np.ndarray) or isinstance(dl, np.ndarray):
        return UNSURE
    if vocab is NONSENSE:
        return UNSURE
    need(vocab is None or (isinstance(vocab, list) and len(vocab) == 2))
    need(calibrator is None and dl is None)
    if threshold is not None:
        need_threshold(threshold, 2)
    if items is None:
        return sigmoid(logits_of_pixels(learner().dls.valid_ds.pixels[learner().dls.valid_ds.rows]))
    if isinstance(items, Paths):
        need(items.files and all(Path(f).is_file() for f in items.files))
        images = np.stack([np.asarray(Image.open(f)) for f in items.files])
        return sigmoid(logits_of_pixels(images))
    need(isinstance(items, np.ndarray) and items.dtype == np.uint8)
    need(0 not in items.shape)
    images = items[None] if items.ndim == 2 else items
    images = images[:, 0] if images.ndim == 4 and images.shape[1] == 1 else images
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        return UNSURE
    return sigmoid(logits_of_pixels(images))


@case(
    "predict.sigmoid_preds (learners)",
    lambda learn: len(sigmoid_preds(learn)),
    often(st.builds(learner).map(lambda o: Value(o, 4)), no_learners, odds=1).map(
        lambda value: {"learn": value}
    ),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    keeps=False,
    draws=("torch",),
    examples=100,
    budget=120.0,
)
def _(learn):
    if isinstance(learn, np.ndarray):
        need(False)
    need(learn is not None and not isinstance(learn, str))
    return UNSURE if learn is NONSENSE else learn  # one learner of plain loaders is among them


LOADERS = (
    Value(None, 4),
    Value("valid", 4),
    Value("train", 8),
    Value("test", 4),
    Value(0, 8),
    Value(1, 4),
    Value("other", NONSENSE),
    Value(7, NONSENSE),
    Value(-1, NONSENSE),
    Value(torch.utils.data.TensorDataset(torch.zeros(4, 1, 28, 28)), NONSENSE),
    Value(torch.utils.data.DataLoader([torch.zeros(1, 28, 28)] * 3), 3),
    Value([torch.zeros(2, 1, 28, 28)], 2),
    Value([], NONSENSE),
)


def may_be_batches(o):
    """Say whether an object is a list of tensors, which a model may reject in its own way."""
    return isinstance(o, list) and bool(o) and isinstance(o[0], Tensor)


no_loaders = no_numbers.filter(lambda v: v.given is not None and not may_be_batches(v.given)).map(
    lambda v: Value(v.given, NONSENSE)
)


@case(
    "predict.sigmoid_preds (loaders)",
    lambda dl: len(sigmoid_preds(learner(), dl=dl)),
    often(st.sampled_from(LOADERS), no_loaders, odds=2).map(lambda value: {"dl": value}),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    keeps=False,
    examples=100,
    budget=120.0,
)
def _(dl):
    need(isinstance(dl, int))
    return dl


@case(
    "compose.train_verdicts",
    train_verdicts,
    corrupted(
        st.fixed_dictionaries(
            {
                "dls": no_learners,
                "seed": st.integers(0, 3).map(scalar),
                "epochs": st.just(scalar(1)),
            }
        ),
        odds=1,
    ),
    keeps=False,
    examples=60,
    budget=60.0,
)
def _(dls, seed, epochs):
    need(False)


@case(
    "compose.train_verdicts (settings)",
    lambda **settings: train_verdicts(digit_dls(), **settings),
    corrupted(
        st.fixed_dictionaries(
            {
                "seed": st.one_of(no_numbers, st.just(scalar(-1))),
                "epochs": st.one_of(no_numbers, st.just(scalar(0))).filter(
                    lambda v: v.meaning is not None and v.given is not None
                ),
            }
        ),
        odds=9,
        replacement=no_numbers.filter(lambda v: v.given is not None),
    ),
    keeps=False,
    examples=60,
    budget=60.0,
)
def _(seed, epochs):
    need(False)


# Callbacks


@case(
    "callback.ExplainMismatch",
    lambda allow: ExplainMismatch(allow).allow,
    often(
        st.sampled_from(("class-axis", ("rows",), ["rows", "ok"], (), {"rows"}, "x")).map(plain),
        st.one_of(no_numbers, scalars, any_numbers),
        odds=1,
    ).map(lambda value: {"allow": value}),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    keeps=False,
)
def _(allow):
    if isinstance(allow, np.ndarray):
        return UNSURE  # an empty list of numbers is one of causes, too
    if isinstance(allow, str):
        allow = [allow]
    need(isinstance(allow, (tuple, list, set)) and {"class-axis", "rows"}.issuperset(allow))
    return set(allow)


# Files and images


def image_values():
    """Draw one image as PIL's, as pixels or as a file, and what is none."""
    rng = np.random.default_rng(3)
    gray = rng.integers(0, 256, (5, 7), dtype="uint8")
    color = rng.integers(0, 256, (5, 7, 3), dtype="uint8")
    good = (
        Value(gray, gray),
        Value(torch.from_numpy(gray.copy()), gray),
        Value(gray[None], gray),
        Value(Image.fromarray(gray), gray),
        Value(color, np.asarray(Image.fromarray(color).convert("L"))),
        Value(Image.fromarray(color), np.asarray(Image.fromarray(color).convert("L"))),
    )
    bad = (
        Value(gray.astype("float32"), NONSENSE),
        Value(gray[:0], NONSENSE),
        Value(gray[:, :0], NONSENSE),
        Value(np.zeros((2, 2, 2, 2), "uint8"), NONSENSE),
        Value(torch.zeros(5, 7, device="meta"), NONSENSE),
        Value(Image.new("RGB", (0, 4)), NONSENSE),
    )
    return st.sampled_from((*good, *good, *bad))


no_images = st.one_of(no_numbers, scalars).filter(lambda v: not isinstance(v.given, Image.Image))


@case(
    "pixels.grey_image",
    lambda o: np.asarray(grey_image(o)),
    often(image_values(), no_images.map(lambda v: Value(v.given, NONSENSE))).map(
        lambda value: {"o": value}
    ),
    same=lambda answer, expected: np.testing.assert_array_equal(answer, expected),
)
def _(o):
    need(isinstance(o, np.ndarray))
    return o


# None of them holds the ten digits.
no_ten_digits = often(
    st.sampled_from((digits(), str(digits()), "missing", "")).map(lambda o: Value(o, NONSENSE)),
    no_numbers.filter(lambda v: v.given is not None),
)


@case("data.digits_path", digits_path, no_ten_digits.map(lambda value: {"source": value}))
def _(source):
    need(False)


@case("data.running_example", running_example, no_ten_digits.map(lambda value: {"path": value}))
def _(path):
    need(False)


@case(
    "data.DigitDataLoaders.from_folder",
    lambda **given: [len(dl.dataset) for dl in DigitDataLoaders.from_folder(**given).loaders],
    corrupted(
        st.fixed_dictionaries(
            {
                "path": st.builds(digits).map(plain),
                "bs": st.integers(1, 9).map(scalar),
                "valid_pct": st.sampled_from((0, 0.5, 0.25, 1.0, -0.1)).map(scalar),
                "n_train": st.sampled_from((None, 2, 100, 0)).map(
                    lambda o: plain(None) if o is None else scalar(o)
                ),
                "seed": st.integers(0, 9).map(scalar),
                "device": st.sampled_from(("cpu", torch.device("cpu"))).map(plain),
            }
        ),
        odds=2,
    ),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
    examples=60,
    budget=240.0,
    draws=("random",),
)
def _(path, bs, valid_pct, n_train, seed, device):
    need(isinstance(path, Path) and path == digits())
    need_count(bs)
    share = need_number(valid_pct, 0)
    need(share < 1)
    need_count(seed, 0)
    if isinstance(device, np.ndarray) or device is NONSENSE:
        return UNSURE
    need(device is None or not isinstance(device, str) or device == "cpu")
    if 0 < share < 0.01:
        return UNSURE  # of a few images, that is none
    n_valid = 4 if share == 0 else int(np.ceil(8 * share - 1e-9))
    n = 8 if share == 0 else 8 - n_valid
    if n_train is not None:
        n_train = need_count(n_train)
        need(n_train >= 2)
        if n_train < n and n - n_train < 2:
            return UNSURE
        n = min(n, n_train)
    return [n, n_valid, 4]
