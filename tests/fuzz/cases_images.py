"""Cases of what draws images, and of the sets and the batches made of drawn ones."""

import numpy as np
import torch
from fastai.torch_core import TensorImage, TensorMultiCategory
from hypothesis import strategies as st
from torch import Tensor

from multilabel_mnist import compose, draw, training, verdicts

from .cases_values import case, counts, scalar
from .expected import (
    need,
    need_count,
    need_labels,
    need_number,
    need_threshold,
    one_hot,
)
from .judge import UNSURE
from .values import (
    NONSENSE,
    Value,
    anything,
    below,
    corrupted,
    no_numbers,
    numbers,
    often,
    plain,
    scalars,
    zeros_and_ones,
)

FLOATS = (torch.float32, torch.float32, torch.float64)


def source(seed=0):
    """Return a new source of random numbers."""
    return draw.RandomSource(generator=torch.Generator().manual_seed(seed))


sources = st.integers(0, 9).map(lambda seed: Value(source(seed), seed))


def ink(rng, shape):
    """Make images from 0 to 1."""
    return rng.random(shape) * (rng.random(shape) < 0.4)


image_shapes = st.tuples(
    st.integers(0, 4), st.sampled_from((1, 1, 3)), st.integers(1, 9), st.integers(1, 9)
)


def images_of(shape, odd=True):
    """Draw float images in any form of a tensor."""
    forms = ("tensor", "tensor", "with stride", "image", "with gradient")
    return numbers(shape, ink, FLOATS, forms, odd=odd).map(unsure_if_meta)


def unsure_if_meta(value):
    """Return a value; without numbers an image may still be drawn without numbers."""
    is_meta = isinstance(value.given, Tensor) and value.given.is_meta
    return Value(value.given, UNSURE) if is_meta else value


def need_images(m):
    """Return float images, (n, c, H, W), with pixels."""
    need(isinstance(m, np.ndarray) and m.dtype == np.float64 and m.ndim == 4)
    need(0 not in m.shape[1:])
    return m


def assert_images(answer, shape):
    """Raise an AssertionError unless the answer holds finite images of a shape, from 0 to 1."""
    assert isinstance(answer, Tensor) and tuple(answer.shape) == tuple(shape), answer.shape
    assert answer.is_floating_point()
    if answer.numel():
        assert -1e-5 <= answer.min() and answer.max() <= 1 + 1e-5, answer.aminmax()


# RandomSource


@st.composite
def draws(draw_):
    """Draw a method of a source, and its arguments."""
    good = {
        "uniform": [scalar(0.0), scalar(1.0), scalar(2)],
        "bernoulli": [scalar(0.5), scalar(2), scalar(3)],
        "randint": [scalar(5), scalar(2)],
        "randperm": [scalar(4)],
    }
    method = draw_(st.sampled_from(sorted(good)))
    arguments = good[method]
    if draw_(st.booleans()):
        arguments[draw_(st.integers(0, len(arguments) - 1))] = draw_(st.one_of(no_numbers, scalars))
    return {
        "method": plain(method),
        "arguments": Value([a.given for a in arguments], [a.meaning for a in arguments]),
    }


@case(
    "draw.RandomSource",
    lambda method, arguments: getattr(source(), method)(*arguments),
    draws(),
    same=lambda answer, expected: np.testing.assert_equal(tuple(answer.shape), expected),
)
def _(method, arguments):
    if any(m is UNSURE for m in arguments):
        return UNSURE
    if method == "uniform":
        low, high, *shape = arguments
        need(need_number(low) <= need_number(high))
        need(abs(float(low)) < 1e38 and abs(float(high)) < 1e38)
    elif method == "bernoulli":
        p, *shape = arguments
        need_number(p, 0, 1)
    elif method == "randint":
        n, *shape = arguments
        need_count(n)
    else:
        shape = arguments
    return tuple(need_count(n, 0) for n in shape)


@case(
    "draw.RandomSource (made)",
    lambda device, generator: draw.RandomSource(device, generator).device,
    corrupted(
        st.fixed_dictionaries(
            {
                "device": st.sampled_from(("cpu", torch.device("cpu"))).map(plain),
                "generator": st.just(None).map(plain),
            }
        )
    ),
    same=lambda answer, expected: np.testing.assert_equal(answer, expected),
)
def _(device, generator):
    if isinstance(device, np.ndarray) or device is NONSENSE or generator is NONSENSE:
        return UNSURE  # torch takes numbers for the indices of accelerators
    need(device in ("cpu", torch.device("cpu")))
    need(generator is None)
    return torch.device("cpu")


# Geometry


def reference_affine(images, scale, dx, dy, angle):
    """Scale, turn and shift images pixel by pixel, by bilinear interpolation."""
    n, channels, height, width = images.shape
    res = np.zeros_like(images)
    for i, row, column in np.ndindex(n, height, width):
        x = (2 * column + 1) / width - 1 - dx[i] / 14
        y = (2 * row + 1) / height - 1 - dy[i] / 14
        x_px, y_px = x * width, y * height  # turn in pixels, for images that are not square
        cos, sin = np.cos(np.deg2rad(angle[i])), np.sin(np.deg2rad(angle[i]))
        x_from = (cos * x_px + sin * y_px) / scale[i] / width
        y_from = (cos * y_px - sin * x_px) / scale[i] / height
        at = ((y_from + 1) * height - 1) / 2, ((x_from + 1) * width - 1) / 2
        res[i, :, row, column] = interpolated(images[i], *at)
    return res


def interpolated(image, row, column):
    """Return the value of an image between its pixels; 0 outside."""
    total = np.zeros(len(image))
    for r in (int(np.floor(row)), int(np.floor(row)) + 1):
        for c in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= r < image.shape[1] and 0 <= c < image.shape[2]:
                weight = (1 - abs(row - r)) * (1 - abs(column - c))
                total += weight * image[:, r, c]
    return total


@st.composite
def placements(draw_):
    """Draw images, and a size, a shift and an angle for all or for each of them."""
    n = draw_(st.integers(0, 3))
    shape = (n, draw_(st.sampled_from((1, 2))), *draw_(st.tuples(*[st.integers(1, 5)] * 2)))
    arguments = {"images": draw_(images_of(shape))}
    ranges = {"scale": (0.5, 1.5), "dx": (-3, 3), "dy": (-3, 3), "angle": (-40, 40)}
    for name, (low, high) in ranges.items():
        one = st.sampled_from((low, 1, high)).map(scalar)
        base = lambda rng, shape, low=low, high=high: rng.uniform(low, high, shape)  # noqa: E731
        each = numbers((n,), base, FLOATS, ("tensor", "array", "list"), odd=False)
        arguments[name] = draw_(st.one_of(one, each))
    return arguments


def assert_same_images(answer, expected):
    assert tuple(answer.shape) == expected.shape
    tolerance = 3e-2 if answer.element_size() == 2 else 2e-4
    np.testing.assert_allclose(answer.detach().double().numpy(), expected, atol=tolerance)


@case(
    "draw.affine",
    draw.affine,
    corrupted(placements(), replacement=anything.map(unsure_if_meta)),
    same=assert_same_images,
    budget=120.0,
)
def _(images, scale, dx, dy, angle):
    images = need_images(images)
    n = len(images)
    values = []
    for m in (scale, dx, dy, angle):
        need(isinstance(m, np.ndarray) and m.dtype.kind in "iuf")
        need(m.shape in ((), (n,)))
        if m.ndim and not (np.isfinite(m) & (np.abs(m) < 1e6)).all():
            return UNSURE  # numbers of a tensor are not looked at
        need((np.abs(m) <= 1e6).all())
        values.append(np.broadcast_to(m.astype("float64"), (n,)))
    if scale.ndim and not (scale > 0).all():
        return UNSURE
    need((scale >= 1e-6).all())
    if not np.isfinite(images).all() or (np.abs(images) > 1e3).any():
        return UNSURE
    if n and (values[0].min() < 1e-3 or max(np.abs(v).max() for v in values) > 100):
        return UNSURE
    return reference_affine(images, *values)


# Kinds of images


def with_source(**parts):
    """Draw arguments with a source of random numbers."""
    return corrupted(
        st.fixed_dictionaries({**parts, "source": sources}),
        replacement=anything.map(unsure_if_meta),
    )


def need_source(m):
    """Refuse anything but a source, which means its seed."""
    need(isinstance(m, int))


def in_unit_interval(*images):
    """Say whether images have values from 0 to 1, as their functions ask for."""
    return all(((i >= 0) & (i <= 1)).all() for i in images)


def images_case(name, function):
    """Enter the case of a function of one batch of images."""

    @case(
        name,
        function,
        image_shapes.flatmap(lambda s: with_source(images=images_of(s))),
        same=assert_images,
    )
    def _(images, source):
        need_source(source)
        images = need_images(images)
        return images.shape if in_unit_interval(images) else UNSURE


for function in (draw.small_digit, draw.nudge, draw.hard_negatives):
    images_case(f"draw.{function.__name__}", function)

image_sizes = st.one_of(
    st.tuples(st.integers(1, 30), st.integers(1, 30)).map(plain),
    st.sampled_from(((0, 3), (3,), (2, 3, 4), (-1, 3), (2.5, 3), [4, 5], "ab")).map(plain),
)


def empty_case(name, function):
    """Enter the case of a function that draws images of no digit."""

    @case(
        name,
        function,
        with_source(n=st.integers(0, 5).map(scalar), size=image_sizes),
        same=assert_images,
    )
    def _(n, source, size):
        n = need_count(n, 0)
        need_source(source)
        if isinstance(size, np.ndarray):
            return UNSURE
        need(isinstance(size, (tuple, list)) and len(size) == 2)
        need(all(isinstance(o, int) and o >= 1 for o in size))
        return (n, 1, *size) if n < 100 else UNSURE


empty_case("draw.noise", draw.noise)
empty_case("draw.strokes", draw.strokes)


@case(
    "draw.printed_characters",
    draw.printed_characters,
    corrupted(
        st.fixed_dictionaries(
            {
                "chars": st.sampled_from(("A", "AB", "ä", "日")).map(plain),
                "each": st.integers(1, 2).map(scalar),
                "font_size": st.sampled_from((8, 22)).map(scalar),
                "max_angle": st.sampled_from((0.0, 12.0, 3)).map(scalar),
                "seed": st.integers(0, 9).map(scalar),
            }
        )
    ),
    same=lambda answer, n: np.testing.assert_equal(tuple(answer.shape), (n, 1, 28, 28)),
    examples=100,
    budget=120.0,
)
def _(chars, each, font_size, max_angle, seed):
    need(isinstance(chars, str) and len(chars) > 0)
    each, _, _ = need_count(each), need_count(font_size), need_count(seed, 0)
    need_number(max_angle, 0, 360)
    if each > 10 or font_size > 100:
        return UNSURE
    n_fonts = sum(char in draw.can_draw(name) for char in chars for name in draw.PRINTED_FONTS)
    need(n_fonts > 0)
    return n_fonts * each


# Sets of images


def byte_images(n, size=28):
    """Draw n gray images, in a form that may be wrong."""
    shape = st.sampled_from(((n, size, size), (n, 1, size, size), (n, size, size), (n, 3, 4, 4)))
    forms = ("array", "tensor", "with stride", "read only")
    make = lambda rng, shape: rng.integers(0, 256, shape)  # noqa: E731
    return shape.flatmap(lambda s: numbers(s, make, (torch.uint8,), forms))


@st.composite
def digit_sets(draw_, **more):
    """Draw images of digits with their labels, and further arguments."""
    n = draw_(st.integers(1, 5))
    labels = numbers((n,), below(3), (torch.int64, torch.uint8), ("array", "tensor", "list"))
    arguments = {"images": draw_(byte_images(n)), "labels": draw_(labels)}
    return arguments | {name: draw_(part) for name, part in more.items()}


def need_digits(images, labels):
    """Return what a set is made of: uint8 images, (N, H, W), and labels of several classes."""
    need(isinstance(images, np.ndarray) and images.dtype == np.uint8)
    need(images.ndim == 3 or (images.ndim == 4 and images.shape[1] == 1))
    need(0 not in images.shape[1:])
    labels = need_labels(labels, 2**31)
    need(len(labels) == len(images))
    need(len(np.unique(labels)) > 1)
    return labels


def assert_composite(answer, expected):
    """Raise an AssertionError unless a composite set has its thirds."""
    n, shape, n_classes = expected
    images, targets = answer
    assert images.dtype == torch.uint8 and tuple(images.shape) == (n, 1, *shape[-2:])
    assert targets.dtype == torch.float32 and tuple(targets.shape) == (n, n_classes)
    third = n // 3
    wanted = [0] * third + [1] * third + [2] * (n - 2 * third)
    assert targets.sum(1).tolist() == wanted


seeds = st.integers(0, 99).map(scalar)


@case(
    "verdicts.composite_set",
    verdicts.composite_set,
    corrupted(
        digit_sets(
            n=st.integers(6, 9).map(scalar),
            seed=seeds,
            n_classes=st.one_of(st.just(plain(None)), st.integers(1, 5).map(scalar)),
        )
    ),
    same=assert_composite,
    examples=150,
    budget=120.0,
)
def _(images, labels, n, seed, n_classes):
    labels = need_digits(images, labels)
    n = need_count(n, 6)
    need_count(seed, 0)
    highest = int(labels.max())
    n_classes = highest + 1 if n_classes is None else need_count(n_classes)
    need(highest < n_classes)
    return (n, images.shape, n_classes) if max(highest, n) <= 500 else UNSURE


@case(
    "verdicts.composite_parts", verdicts.composite_parts, corrupted(counts.map(lambda n: {"n": n}))
)
def _(n):
    n = need_count(n)
    third = n // 3
    middle = 2 * third + (n - 2 * third) // 2
    return {
        "none": slice(0, third),
        "one": slice(third, 2 * third),
        "overlapping": slice(2 * third, middle),
        "side by side": slice(middle, n),
    }


def assert_tests(answer, expected):
    """Raise an AssertionError unless all test sets are there, each with its targets."""
    n_classes = expected
    assert list(answer)[:2] == ["one digit", "faint"] and len(answer) == 7
    for name, (images, targets) in answer.items():
        assert images.dtype == torch.uint8 and tuple(images.shape[1:]) == (28, 28), name
        assert tuple(targets.shape) == (len(images), n_classes), name
        assert len(images) > 0, name


@case(
    "verdicts.verdict_tests",
    verdicts.verdict_tests,
    corrupted(digit_sets(n=st.integers(6, 9).map(scalar), seed=seeds), odds=1),
    same=assert_tests,
    examples=25,
    budget=120.0,
)
def _(images, labels, n, seed):
    labels = need_digits(images, labels)
    need(images.shape[-2:] == (28, 28))
    n = need_count(n, 6)
    need_count(seed, 0)
    return int(labels.max()) + 1 if max(labels.max(), n) <= 500 else UNSURE


def small_tests(names=("one digit", "noise")):
    """Return test sets of three images and two classes."""
    images = torch.arange(3 * 16, dtype=torch.uint8).reshape(3, 4, 4)
    return {name: (images, torch.tensor([[1.0, 0], [0, 1], [0, 1]])) for name in names}


def always(probs):
    """Return a predictor that says the same of each image."""
    return lambda images: torch.tensor([probs]).expand(len(images), -1)


PREDICTORS = (
    Value(always([0.9, 0.1]), (0.9, 0.1)),
    Value(always([0.2, 0.6]), (0.2, 0.6)),
    Value(always([0.2, 0.6, 0.5]), NONSENSE),
    Value(always([2.0, 0.6]), NONSENSE),
    Value(lambda images: torch.zeros(1, 2), NONSENSE),
    Value(lambda images: None, NONSENSE),
    Value(lambda images: [[0.2, 0.6]] * len(images), (0.2, 0.6)),
)
SETS = (
    plain(small_tests()),
    Value({}, NONSENSE),
    Value(small_tests(("noise",)), NONSENSE),
    Value({"one digit": 3}, NONSENSE),
    Value({"one digit": (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(2, 2))}, NONSENSE),
)


@case(
    "verdicts.verdict_scores",
    verdicts.verdict_scores,
    corrupted(
        st.fixed_dictionaries(
            {
                "predict": st.sampled_from((*PREDICTORS[:2], *PREDICTORS)),
                "tests": st.sampled_from((*SETS[:1] * 6, *SETS)),
                "threshold": st.sampled_from((0.0, 0.5, 1.0)).map(scalar),
            }
        )
    ),
)
def _(predict, tests, threshold):
    need(isinstance(predict, tuple) and isinstance(tests, dict) and "one digit" in tests)
    threshold = need_threshold(threshold, 2)
    targets = np.array([[1, 0], [0, 1], [0, 1]])
    probs = np.array([predict] * 3)
    exact = float(((probs > threshold) == targets).all(1).mean())
    return {
        "top-1": float((probs.argmax(1) == targets.argmax(1)).mean()),
        "exact": exact,
        "false none": float((probs <= threshold).all(1).mean()),
        "noise": exact,
    }


@case(
    "verdicts.verdict_baselines",
    lambda labels: {
        name: predict(np.zeros((2, 4, 4), "uint8"))
        for name, predict in verdicts.verdict_baselines(labels).items()
    },
    corrupted(
        st.integers(0, 5).flatmap(
            lambda n: st.fixed_dictionaries(
                {"labels": numbers((n,), below(3), (torch.int64,), ("array", "list", "tensor"))}
            )
        )
    ),
)
def _(labels):
    labels = need_labels(labels, 2**31)
    need(len(labels) > 0)
    if labels.max() > 500:
        return UNSURE
    counts = np.bincount(labels)
    return {
        "predict nothing": np.zeros((2, len(counts))),
        "predict the most frequent class": one_hot(np.array([counts.argmax()] * 2), len(counts)),
    }


# ComposeDigits

OF_ALL = ("nudged", "thickened", "rescanned", "faint")
DEFAULTS = {
    "overlaid": 0.13,
    "shifted": 0.15,
    "beside": 0.02,
    "squeezed": 0.03,
    "three": 0.02,
    "alone": 0.01,
    "characters": 0.155,
    "strokes": 0.03,
    "pieces": 0.005,
    "noise": 0.01,
}


@st.composite
def shares(draw_):
    """Draw arguments of ComposeDigits, of which a few are not the defaults."""
    given = {}
    for name in draw_(st.lists(st.sampled_from((*DEFAULTS, *OF_ALL)), max_size=3)):
        values = st.sampled_from((0, 0.0, 0.1, 0.3, 1.0, 1)).map(scalar)
        given[name] = draw_(often(values, st.one_of(no_numbers, scalars)))
    if draw_(st.booleans()):
        given["seed"] = draw_(often(seeds, st.one_of(no_numbers, scalars), odds=2))
    return given


@case(
    "compose.ComposeDigits",
    lambda **shares: compose.ComposeDigits(**shares).shares,
    shares(),
)
def _(**given):
    if "seed" in given:
        seed = given.pop("seed")
        need(seed is None or need_count(seed, 0) >= 0)
    for name in OF_ALL:
        if name in given:
            need_number(given.pop(name), 0, 1)
    values = DEFAULTS | {name: need_number(m, 0, 1) for name, m in given.items()}
    need(sum(values.values()) <= 1 + 1e-9)
    return {name: float(value) for name, value in values.items()}


@st.composite
def batches(draw_):
    """Draw a batch for ComposeDigits: images and targets."""
    n = draw_(st.integers(0, 6))
    shape = (n, draw_(st.sampled_from((1, 3))), *draw_(st.tuples(*[st.integers(1, 9)] * 2)))
    targets = numbers((n, 3), zeros_and_ones, FLOATS, ("tensor", "with stride"))
    return {"images": draw_(images_of(shape)), "targets": draw_(targets)}


def as_class(o, kind):
    """Return a tensor as a class of fastai's, as far as it can be one."""
    is_strided = isinstance(o, Tensor) and o.layout is torch.strided and not o.is_nested
    return o.as_subclass(kind) if is_strided else o


def compose_batch(images, targets):
    """Compose a batch as fastai does: tensors of its classes."""
    images, targets = as_class(images, TensorImage), as_class(targets, TensorMultiCategory)
    return compose.ComposeDigits(seed=1).encodes((images, targets))


def assert_composed(answer, expected):
    images, targets = answer
    shape, n_classes = expected
    assert_images(images, shape)
    assert tuple(targets.shape) == (shape[0], n_classes)
    assert ((targets == 0) | (targets == 1)).all()
    assert type(images) is TensorImage and type(targets) is TensorMultiCategory


@case("compose.ComposeDigits (a batch)", compose_batch, corrupted(batches()), same=assert_composed)
def _(images, targets):
    images = need_images(images)
    need(((images >= 0) & (images <= 1)).all())
    need(isinstance(targets, np.ndarray) and targets.dtype == np.float64 and targets.ndim == 2)
    need(len(targets) == len(images))
    if not np.isin(targets, (0, 1)).all():
        return UNSURE
    return images.shape, targets.shape[1]


# Networks


def net_case(name, function):
    """Enter the case of a function that makes a network."""

    @case(
        name,
        lambda n_out: function(n_out).eval()(torch.zeros(2, 1, 28, 28)).shape,
        often(counts, anything, odds=1).map(lambda value: {"n_out": value}),
        same=lambda answer, expected: np.testing.assert_equal(tuple(answer), expected),
        draws=("torch",),
        examples=60,
        budget=120.0,
    )
    def _(n_out):
        return 2, need_count(n_out)


net_case("training.digit_cnn", training.digit_cnn)
net_case("compose.verdict_cnn", compose.verdict_cnn)
