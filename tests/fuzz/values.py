"""Arguments to call the public names with: what is passed, and what it means."""

import datetime
import decimal
import fractions
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.torch_core import TensorCategory, TensorImage
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn


class Marker:
    """A value that is equal to nothing but itself, and says its name."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


NONSENSE = Marker("NONSENSE")  # valid as no argument that is a number, or holds numbers
UNSURE = Marker("UNSURE")  # may be read or refused: the answer is not judged


@dataclass
class Value:
    """An argument: what is passed to the function, and what it means to whoever judges it."""

    given: object
    meaning: object  # numpy numbers, NONSENSE, UNSURE, or anything that a case agrees on

    def __repr__(self):
        try:
            shown = repr(self.given)
        except ZeroDivisionError:
            shown = f"<{type(self.given).__name__}>"
        return shown if len(shown) <= 300 else shown[:297] + "..."


def plain(o):
    """Return a value that means itself."""
    return Value(o, o)


# Numbers

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
COMPLEX = (torch.complex64, torch.complex128)
DTYPES = (*FLOATS, *FLOATS, *INTEGERS, *UNSIGNED, torch.bool, *COMPLEX)
IN_NUMPY = {dtype for dtype in DTYPES if dtype != torch.bfloat16}


def meaning_of(tensor):
    """Return the numbers of a tensor as numpy's widest of their kind; complex ones mean nothing."""
    if tensor.is_complex():
        return NONSENSE
    if tensor.dtype == torch.bool:
        return UNSURE if tensor.ndim == 0 else tensor.numpy()  # a flag, or a tensor
    if tensor.ndim == 0:
        return UNSURE  # a number, or a tensor
    if tensor.is_floating_point():
        return tensor.double().numpy()
    return tensor.numpy() if tensor.dtype == torch.uint8 else tensor.to(torch.int64).numpy()


def with_stride(tensor):
    """Return equal numbers that are not contiguous."""
    if tensor.ndim == 0:
        return tensor.expand(2)[1]
    wide = tensor.new_zeros((*tensor.shape[:-1], 2 * tensor.shape[-1]))
    wide[..., ::2] = tensor
    return wide[..., ::2]


def with_gradient(tensor):
    """Return equal numbers that come from a graph, if their dtype allows it."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.clone().requires_grad_() * 1


def read_only(tensor):
    """Return equal numbers as an array that cannot be written to."""
    array = as_array(tensor)
    array.flags.writeable = False
    return array


def as_array(tensor):
    """Return the numbers of a tensor as a new array."""
    return tensor.clone().numpy() if tensor.dtype in IN_NUMPY else tensor.float().numpy()


def reversed_view(tensor):
    """Return equal numbers as an array whose steps are negative."""
    array = as_array(tensor)
    return np.ascontiguousarray(array[::-1])[::-1] if array.ndim else array


def as_pandas(tensor):
    """Return a Series or a DataFrame of the numbers, or an array if they have other axes."""
    array = as_array(tensor)
    if array.ndim == 1:
        return pd.Series(array)
    return pd.DataFrame(array) if array.ndim == 2 else array


def as_tuple(tensor):
    """Return nested lists in a tuple, or a number."""
    values = tensor.tolist()
    return tuple(values) if isinstance(values, list) else values


FORMS = {
    "tensor": Tensor.clone,
    "with stride": with_stride,
    "with gradient": with_gradient,
    "image": lambda t: t.clone().as_subclass(TensorImage),
    "category": lambda t: t.clone().as_subclass(TensorCategory),
    "parameter": lambda t: nn.Parameter(t.clone(), requires_grad=t.is_floating_point()),
    "array": as_array,
    "Fortran": lambda t: np.asfortranarray(as_array(t)),
    "read only": read_only,
    "reversed": reversed_view,
    "list": Tensor.tolist,
    "tuple": as_tuple,
    "list of tensors": lambda t: list(t.clone()) if t.ndim else t,
    "pandas": as_pandas,
}
TENSORS = ("tensor", "tensor", "with stride", "with gradient", "image", "category", "parameter")


def special(kind, tensor):
    """Return numbers without values of their own, or in a layout that is not strided."""
    if kind == "meta":
        return tensor.to("meta")
    if kind == "sparse":
        return tensor.float().to_sparse()
    if kind == "nested" and tensor.ndim > 0 and tensor.is_floating_point():
        return torch.nested.nested_tensor([tensor])
    if kind == "quantized":
        return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.quint8)
    return tensor.to(torch.complex64)


SPECIAL = ("meta", "sparse", "nested", "quantized", "complex")

# What is put into good numbers to make them bad, or almost bad.
PINS = (float("nan"), float("inf"), -float("inf"), -1.0, 2.0, 0.5, 1.0, 0.0, 1e-45, 3e38, -100.0)


def meaning_of_list(given, meaning):
    """Return what a list means: it has no dtype, unless it is one of tensors."""
    if not given:
        return np.zeros(0)
    is_of_numbers = isinstance(meaning, np.ndarray) and not isinstance(given[0], Tensor)
    return meaning.astype("int64") if is_of_numbers and meaning.dtype == np.uint8 else meaning


@st.composite
def numbers(draw, shape, base, dtypes=(torch.float32,), forms=("tensor",), odd=True):
    """Draw a value of a shape; `base` makes float64 numbers from a numpy generator and a shape.

    Odd ones have pins in them, other dtypes and layouts that hold no plain numbers.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    array = np.asarray(base(rng, shape), dtype="float64")
    dtype = draw(st.sampled_from(dtypes))
    form = draw(st.sampled_from(forms))
    twist = draw(st.sampled_from(("none",) * 5 + ("pin", "dtype", "layout"))) if odd else "none"
    if twist == "pin" and array.size:
        array = array.copy()
        array.flat[rng.integers(array.size)] = draw(st.sampled_from(PINS))
    if twist == "dtype":
        dtype = draw(st.sampled_from(DTYPES))
    if not dtype.is_floating_point and not dtype.is_complex:
        least = 0 if dtype in (torch.bool, torch.uint8, *UNSIGNED) else -(2**20)
        array = np.nan_to_num(array, nan=0, posinf=7, neginf=-7).clip(least, 2**20)
    with np.errstate(all="ignore"):
        tensor = torch.tensor(array).to(dtype)
    if twist == "layout":
        return Value(special(draw(st.sampled_from(SPECIAL)), tensor), NONSENSE)
    if form == "list of tensors" and (tensor.is_complex() or tensor.ndim == 0):
        form = "tensor"
    given = FORMS[form](tensor)
    meaning = meaning_of(tensor)
    if isinstance(given, (list, tuple)):
        meaning = meaning_of_list(given, meaning)
    return Value(given, meaning)


def uniform(rng, shape):
    """Make probabilities, some of them equal."""
    return rng.integers(0, 9, shape) / 8 if rng.random() < 0.5 else rng.random(shape)


def normal(rng, shape):
    """Make logits, small or large."""
    return rng.normal(0, rng.choice([0.1, 3.0, 30.0]), shape)


def zeros_and_ones(rng, shape):
    """Make targets."""
    return rng.integers(0, 2, shape)


def below(n):
    """Return what makes whole numbers from 0 to n - 1."""

    def whole(rng, shape):
        return rng.integers(0, max(n, 1), shape)

    return whole


shapes = st.lists(st.sampled_from((0, 1, 1, 2, 3, 4)), max_size=4).map(tuple)
any_numbers = shapes.flatmap(
    lambda shape: numbers(shape, normal, DTYPES, tuple(FORMS), odd=True),
)


# Anything else

NO_NUMBERS = (
    lambda: None,
    lambda: "three",
    lambda: "",
    lambda: "0.5",
    lambda: "é<b>$x$\x00" * 9,
    lambda: b"bytes",
    object,
    lambda: {0.25, 0.5},
    lambda: frozenset({1}),
    lambda: {"a": 0.5},
    dict,
    lambda: [[1], [1, 2]],
    lambda: ["a", "b"],
    lambda: [None, 1],
    lambda: [1, "a"],
    lambda: lambda: 0,
    lambda: int,
    lambda: iter([0, 1]),
    lambda: (i for i in (0, 1)),
    lambda: slice(3),
    lambda: 1 + 2j,
    lambda: [1j, 2.0],
    lambda: np.array(["x", "y"]),
    lambda: np.array([None, 1], dtype=object),
    lambda: np.array([{}, {}], dtype=object),
    lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
    lambda: np.datetime64("2020-01-01"),
    lambda: np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
    lambda: pd.Series(["a", None]),
    lambda: pd.DataFrame({"a": [1], "b": ["x"]}),
    lambda: pd.DataFrame({"a": []}),
    lambda: pd.NaT,
    lambda: pd.NA,
    lambda: nn.Linear(2, 3),
    lambda: Image.new("L", (4, 4)),
    lambda: Image.new("RGB", (0, 4)),
    lambda: Path("missing.png"),
    lambda: datetime.date(2020, 1, 1),
    lambda: torch.Generator(),
    lambda: torch.device("cpu"),
    lambda: torch.float32,
    lambda: np.random.default_rng(0),
    lambda: Ellipsis,
    lambda: NotImplementedError("what came"),
    lambda: [[]] * 3,
    lambda: [torch.zeros(2), torch.zeros(3)],
    lambda: type("Odd", (), {"__len__": lambda self: 3})(),
    lambda: type("Hidden", (), {"__repr__": lambda self: 1 / 0})(),
)
SCALARS = (
    *(0, 1, 2, 3, 7, -1, 500, 10**30, True, False),
    *(0.0, 0.5, 1.0, 2.5, -0.5, float("nan"), float("inf"), -float("inf"), 1e-300),
    *(np.int64(2), np.uint8(3), np.float32(0.5), np.float64("nan"), np.bool_(True)),
    *(fractions.Fraction(1, 2), decimal.Decimal("0.5")),
)


def scalar_value(o):
    """Return a number as a value; fractions of Python's own classes may be read or not."""
    if isinstance(o, (fractions.Fraction, decimal.Decimal)):
        return Value(o, UNSURE)
    if isinstance(o, int) and o > 2**62:
        return Value(o, np.asarray(1e30))  # too large for an integer of any library
    return Value(o, np.asarray(o))


scalars = st.sampled_from(SCALARS).map(scalar_value)


def no_number(make):
    """Return a new object that is no number; None and a text mean themselves."""
    o = make()
    is_empty = isinstance(o, (dict, pd.DataFrame)) and len(o) == 0
    if is_empty or isinstance(o, (Image.Image, slice)):
        return Value(o, UNSURE)  # such as {} for thresholds by name, or pixels, which are numbers
    return Value(o, o if o is None or isinstance(o, str) else NONSENSE)


no_numbers = st.sampled_from(NO_NUMBERS).map(no_number)
anything = st.one_of(no_numbers, no_numbers, scalars, any_numbers)


@st.composite
def corrupted(draw, good, odds=3, replacement=anything):
    """Draw good arguments by name, and sometimes put anything in the place of one or two."""
    arguments = dict(draw(good))
    if draw(st.integers(0, odds)):
        return arguments
    names = draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True))
    for name in names:
        arguments[name] = draw(replacement)
    return arguments


@st.composite
def often(draw, good, bad=anything, odds=4):
    """Draw a good value, and sometimes a bad one."""
    return draw(good if draw(st.integers(0, odds)) else bad)


# Names

NAMES = (
    *("cat", "dog", "ä", "日本", "", " ", "$", "$x$", "$\\frac{", "a_b^c", "<b>bold</b>", "&amp;"),
    *("item", "verdict", "labels", "error", "path", "a\nb", "\x00", "x" * 300, "none", "'\"`"),
    *(0, 1, 2.5, None, True, ("a", "b"), float("nan"), np.str_("s"), Path("p")),
)


def names(n):
    """Draw n class names: texts of all kinds, sometimes other objects, sometimes one twice."""
    words = st.one_of(st.sampled_from(NAMES), st.text(max_size=5))
    return st.lists(words, min_size=n, max_size=n)
