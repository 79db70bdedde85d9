"""The table of causes: each is there once, has a name and a sentence, and is one entry."""

import inspect
import re

import pytest
import torch
from torch import nn

from multilabel_mnist.mismatch import (
    axes,
    counts,
    diagnose,
    finite,
    metrics,
    outputs,
    reduction,
    table,
    targets,
    values,
    weights,
)
from multilabel_mnist.mismatch.cause import Cause, CauseWithForms, Explanation, Form
from multilabel_mnist.mismatch.table import CAUSES

MODULES = (axes, counts, finite, metrics, outputs, reduction, targets, values, weights)
ASKED_FOR = """
    class-indices-for-bce one-hot-for-softmax multi-hot-for-softmax n-outputs trailing-axis
    extra-target-axis mask-channels class-axis rows squeezed-batch label-out-of-range
    single-logit-softmax target-dtype target-range missing-activation double-activation
    silent-broadcast same-count-flattened class-weight-length empty-target metric-mismatch
    loss-not-reduced target-not-finite prediction-not-finite loss-not-finite
    class-indices-for-soft-targets
"""


def causes_defined():
    """Return every cause that a module defines, without the forms of one."""
    defined = set()
    for module in MODULES:
        for item in vars(module).values():
            is_cause = inspect.isclass(item) and issubclass(item, Cause) and item.slug
            if is_cause and not issubclass(item, Form):
                defined.add(item)
    return defined


def test_each_cause_is_listed_once():
    classes = [type(cause) for cause in CAUSES]
    assert len(set(classes)) == len(classes)
    assert set(classes) == causes_defined()


def test_each_cause_has_a_name_of_its_own():
    slugs = [cause.slug for cause in CAUSES]
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch("[a-z-]+", slug) for slug in slugs)
    assert not {"ok", "unexplained"} & set(slugs)  # what `diagnose` says without a cause
    assert set(ASKED_FOR.split()) <= set(slugs)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.slug)
def test_the_docstring_of_a_cause_gives_its_summary(cause):
    own_docstring = vars(type(cause))["__doc__"]
    assert cause.summary and own_docstring.startswith(cause.summary)
    assert re.fullmatch(r"[A-Z][^\n]*[a-z0-9)]\.", cause.summary)
    assert cause.summary not in {other.summary for other in CAUSES if other is not cause}


WITH_FORMS = [cause for cause in CAUSES if isinstance(cause, CauseWithForms)]


@pytest.mark.parametrize("cause", WITH_FORMS, ids=lambda cause: cause.slug)
def test_a_cause_with_forms_has_several(cause):
    assert len(cause.forms) > 1 and all(isinstance(form, Form) for form in cause.forms)


class ConstantTarget(Cause):
    """A target whose numbers are all equal."""

    slug = "constant-target"
    kinds = ("distance",)

    def see(self, f):
        return f.targ_min if f.targ_min == f.targ_max else None

    def say(self, f, number):
        return Explanation(f"All of the targets are {number:g}.", "Leave them out.")

    def fix(self, f, number):
        return ["loss_func = nn.L1Loss()"]


def test_a_cause_is_one_entry(monkeypatch):
    monkeypatch.setattr(table, "CAUSES", (*CAUSES, ConstantTarget()))
    d = diagnose(nn.MSELoss(), torch.randn(3), torch.full((3,), 2.0))
    assert d.cause == "constant-target" and d.silent and d.certain
    assert "Leave them out." in d.explanation and "<pre" in d._repr_html_()
