"""Every public name, called with good, odd and bad arguments; `python -m tests.fuzz` calls more."""

import importlib
import inspect
import random

import numpy as np
import pytest
import torch
from fuzz.cases import CASES
from fuzz.expected import need, refusing
from fuzz.judge import Case, judge
from fuzz.values import Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import MODULES, PACKAGE, module_name

NAMES = [case.name for case in CASES]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_call_ends_in_a_confirmed_answer_or_one_clear_error(case):
    @settings(
        max_examples=case.examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case.arguments)
    def call_once(arguments):
        outcome = judge(case, arguments)
        assert not outcome.is_fault, f"{outcome.kind}: {outcome.what}\n{outcome.details}"

    call_once()


def public_names():
    """Return the names that the modules list in `__all__`, each where it is defined."""
    found = set()
    for path in MODULES:
        module = importlib.import_module(f"{PACKAGE.name}.{module_name(path)}")
        for name in module.__all__:
            o = getattr(module, name)
            if inspect.isfunction(o) or inspect.isclass(o):
                found.add(f"{o.__module__.removeprefix(f'{PACKAGE.name}.')}.{name}")
    return found


# Nobody calls these: they hold what the functions around them return, or are raised by one.
RESULTS = {
    "compose_images.Background",
    "explain.MismatchError",
    "losses.LossInfo",
    "losses.LossKind",
    "mismatch.Diagnosis",
    "pad.Pad",
}


def test_every_public_name_has_a_case():
    cases = {".".join(name.split(" ")[0].split("[")[0].split(".")[:2]) for name in NAMES}
    assert cases == public_names() - RESULTS


# What the judge finds


def outcome_of(call, given=3.0, expected=lambda x: x, **options):
    """Return what is said of a call with one number."""
    case = Case("made up", call, st.nothing(), refusing(expected), lambda_same, **options)
    return judge(case, {"x": Value(given, given)})


def lambda_same(answer, expected):
    assert answer == expected


def obscure(x):
    return {}[x]


def undocumented(x):
    raise ValueError("no")


def stateful(x):
    random.random()
    return x


def careless(x):
    torch.set_grad_enabled(False)
    return x


def refuse(x):
    need(False)


@pytest.mark.parametrize(
    "call, expected, kind, what",
    [
        (lambda x: x, lambda x: x, "confirmed", ""),
        (obscure, lambda x: x, "obscure", "KeyError"),
        (undocumented, refuse, "obscure", "ValueError"),
        (lambda x: x + 1, lambda x: x, "wrong", "another answer"),
        (lambda x: x, refuse, "wrong", "where an error was expected"),
        (stateful, lambda x: x, "wrong", "random state of random"),
        (careless, lambda x: x, "wrong", "torch's settings"),
    ],
)
def test_the_judge_tells_faults(call, expected, kind, what):
    try:
        outcome = outcome_of(call, expected=expected)
    finally:
        torch.set_grad_enabled(True)
    assert outcome.kind == kind and what in outcome.what


def test_the_judge_tells_a_changed_argument():
    outcome = outcome_of(lambda x: x.fill(0), given=np.ones(3))
    assert (outcome.kind, outcome.what) == ("wrong", "changed argument x")


def test_the_judge_tells_what_was_refused_and_is_right():
    from multilabel_mnist.labels import one_hot

    outcome = outcome_of(lambda x: one_hot(x, 2), given=[5], expected=lambda x: x)
    assert outcome.kind == "wrong" and "refused what is right" in outcome.what
    outcome = outcome_of(lambda x: one_hot(x, 2), given=[5], expected=refuse)
    assert outcome.kind == "refused"
