"""Call a function with drawn arguments, and judge what comes: an answer, or an error."""

import contextlib
import io
import random
import re
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .values import UNSURE, Marker

REFUSED = Marker("REFUSED")  # what is expected of a call that must raise an error


@dataclass(frozen=True)
class Case:
    """What is known of one public name."""

    name: str  # such as "labels.one_hot"
    call: Callable  # of the arguments' values by name
    arguments: st.SearchStrategy  # of dictionaries from names to `Value`s
    expected: Callable  # of the arguments' meanings; the answer, REFUSED or UNSURE
    same: Callable | None = None  # of (answer, expected): raises AssertionError if they differ
    examples: int = 200  # in the tests
    budget: float = 60.0  # seconds of computing, of the command
    errors: tuple = (ValueError, TypeError)
    draws: tuple = ()  # whose generators it may advance, as documented: "torch", "random"
    keeps: bool = True  # the arguments as they are


@dataclass(frozen=True)
class Outcome:
    """What came of one call."""

    kind: str  # 'confirmed', 'not judged', 'refused', 'obscure' or 'wrong'
    what: str = ""  # what is wrong: the same text for the same mechanism
    details: str = field(default="", compare=False)

    @property
    def is_fault(self):
        """Say whether this must not happen."""
        return self.kind in ("obscure", "wrong")


# What must not change


def fingerprint(o, depth=4):
    """Return something that is equal as long as an object is unchanged."""
    if isinstance(o, Tensor):
        return fingerprint_of_tensor(o)
    if isinstance(o, np.ndarray) and o.dtype != object:
        return o.shape, o.dtype, o.strides, o.tobytes()
    if isinstance(o, nn.Module):
        tensors = [*o.named_parameters(), *o.named_buffers()]
        modes = tuple(module.training for module in o.modules())
        return modes, tuple((name, fingerprint_of_tensor(t)) for name, t in tensors)
    if isinstance(o, (pd.DataFrame, pd.Series, pd.Index)):
        return type(o), o.to_json(default_handler=str) if len(o) else str(o.shape)
    if isinstance(o, Image.Image):
        return o.mode, o.size, o.tobytes()
    if depth and isinstance(o, Mapping):
        return tuple((repr(k), fingerprint(v, depth - 1)) for k, v in o.items())
    if depth and isinstance(o, (list, tuple)):
        return type(o), tuple(fingerprint(part, depth - 1) for part in o)
    if isinstance(o, (str, bytes, int, float, complex)):
        return repr(o)
    return id(o)


def fingerprint_of_tensor(t):
    """Return shape, dtype, graph and numbers of a tensor; no numbers where there are none."""
    known = type(t), t.dtype, t.layout, t.requires_grad, t.is_leaf and t.grad is None, t._version
    if t.is_meta or t.is_nested or t.is_quantized or t.layout is not torch.strided:
        return known
    if is_lazy(t):
        return known
    if t.numel() == 0:
        return *known, tuple(t.shape)
    plain = t.detach().as_subclass(Tensor).clone(memory_format=torch.contiguous_format)
    return *known, tuple(t.shape), plain.flatten().view(torch.uint8).numpy().tobytes()


def settings_of_torch():
    """Return what a call must leave alone besides its arguments."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        tuple(np.geterr().items()),
    )


def random_states():
    """Return the global random states by the name of their library."""
    numpy_state = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (numpy_state[1].tobytes(), numpy_state[2:]),
        "random": random.getstate(),
    }


# Errors

SENTENCE = re.compile(r"(in .+: )?expected .+\bgot\b.+", re.DOTALL)
LONGEST = 1200  # characters of a message that somebody reads


def is_documented(error, kinds):
    """Say whether an error is one of ours, of a kind that is promised: expected X, got Y."""
    if type(error) not in kinds:
        return False
    message = str(error)
    is_sentence = bool(SENTENCE.match(message)) and len(message) <= LONGEST
    frames = traceback.extract_tb(error.__traceback__)
    raised_in = [frame for frame in frames if "/fastcore/" not in frame.filename][-1]
    return is_sentence and "/multilabel_mnist/" in raised_in.filename


def mechanism(error):
    """Name the place and the kind of an error: equal for all calls that fail in the same way."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/multilabel_mnist/" in frame.filename] or frames
    place = f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].name}"
    message = re.sub(r"\s+", " ", str(error))[:90]
    return f"{type(error).__name__} in {place}: {re.sub(r'-?[0-9]+(?:[.][0-9]+)?', '#', message)}"


# A call

OWN_WARNINGS = (RuntimeWarning, DeprecationWarning, FutureWarning)


def stray_warning(caught):
    """Return the first warning that is not meant for the caller, or None."""
    for warning in caught:
        about_code = issubclass(warning.category, OWN_WARNINGS)
        if about_code and "matplotlib" not in warning.filename:
            return f"{warning.category.__name__}: {str(warning.message)[:90]}"
    return None


def changed(before, after):
    """Name the first thing that a call has changed, or return None."""
    for what, value in before.items():
        if after[what] != value:
            return f"changed {what}"
    return None


def snapshot(case, given):
    """Return what a call must not change, by name."""
    kept = {"torch's settings": settings_of_torch()}
    states = random_states()
    for library in case.draws:
        states.pop(library)
    kept |= {f"the random state of {name}": state for name, state in states.items()}
    if case.keeps:
        kept |= {f"argument {name}": fingerprint(o) for name, o in given.items()}
    return kept


def call(case, given):
    """Return the answer and the error of a call, one of them None, and what it warned of."""
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("always")
        try:
            return case.call(**given), None, caught
        except Exception as error:
            return None, error, caught


def judge(case, arguments):
    """Call a function with drawn arguments and return the outcome."""
    given = {name: value.given for name, value in arguments.items()}
    before = snapshot(case, given)
    answer, error, caught = call(case, given)
    fault = changed(before, snapshot(case, given)) or stray_warning(caught)
    if fault:
        return Outcome("wrong", fault)
    expected = expectation(case, arguments)
    if error is not None:
        return judge_error(case, error, expected)
    if expected is UNSURE:
        return Outcome("not judged")
    if expected is REFUSED:
        return Outcome("wrong", "answered where an error was expected", repr(answer)[:300])
    try:
        (case.same or assert_same)(answer, expected)
    except AssertionError as e:
        message = f"got {answer!r}, expected {expected!r}"[:600]
        return Outcome("wrong", "another answer than the independent one", f"{e}\n{message}")
    return Outcome("confirmed")


def expectation(case, arguments):
    """Return what the independent computation says; UNSURE if an argument may be read or not."""
    meanings = {name: value.meaning for name, value in arguments.items()}
    if any(meaning is UNSURE for meaning in meanings.values()):
        return UNSURE
    with np.errstate(all="ignore"):
        return case.expected(**meanings)


def judge_error(case, error, expected):
    """Return the outcome of a call that raised an error."""
    text = "".join(traceback.format_exception(error))[-3000:]
    if not is_documented(error, case.errors):
        return Outcome("obscure", mechanism(error), text)
    if expected is REFUSED or expected is UNSURE:
        return Outcome("refused")
    return Outcome("wrong", f"refused what is right: {mechanism(error)}", text)


# Comparing


def assert_same(answer, expected):
    """Raise an AssertionError unless an answer has the type, the shape and the numbers expected."""
    if isinstance(expected, np.ndarray):
        assert isinstance(answer, Tensor) and type(answer) is Tensor, type(answer)
        assert tuple(answer.shape) == expected.shape, (tuple(answer.shape), expected.shape)
        kinds = {"b": torch.bool, "i": torch.int64}
        wanted = kinds.get(expected.dtype.kind)
        assert wanted is None or answer.dtype == wanted, answer.dtype
        assert wanted or answer.is_floating_point(), answer.dtype
        answer = answer.detach().double().numpy()
        np.testing.assert_allclose(answer, expected.astype("float64"), rtol=2e-4, atol=2e-5)
    elif isinstance(expected, Mapping):
        assert answer.keys() == expected.keys(), (answer.keys(), expected.keys())
        for name, value in expected.items():
            assert_same(answer[name], value)
    elif isinstance(expected, float):
        assert isinstance(answer, float), type(answer)
        np.testing.assert_allclose(answer, expected, rtol=2e-4, atol=2e-5)
    else:
        assert type(answer) is type(expected) and answer == expected
