"""`diagnose` on what people reported in public threads, and on what they might."""

from collections import Counter

import fastai.losses
import fastai.metrics
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multilabel_mnist.mismatch import diagnose

from .cases import CASES, REPORTS, THREADS

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size")


def build(report):
    """Return the loss, the prediction and the target of a report."""
    torch.manual_seed(0)
    names = dict(torch=torch, nn=nn, F=F)
    exec(report["make"], names)
    losses = vars(fastai.losses) | vars(fastai.metrics) | names
    return eval(report["loss"], losses), names["p"], names["t"]


@pytest.mark.parametrize("report", REPORTS, ids=lambda r: r["id"])
def test_a_control_is_ok_and_a_report_is_silent_if_it_should_be(report):
    d = diagnose(*build(report))
    if report["cause"] == "ok":
        assert d.ok, f"{report['id']} is right, but was called {d.cause}"
    elif not d.ok:
        assert d.silent == report["silent"]


def test_reports_come_out_right():
    score = Counter()
    for report in REPORTS:
        d = diagnose(*build(report))
        right = d.cause in (report["cause"], *report.get("also_right", []))
        score[report["cause"], right] += 1
    for (cause, right), n in sorted(score.items()):
        print(f"{cause:24} {'right' if right else 'wrong'} {n}")
    n_right = sum(n for (_, right), n in score.items() if right)
    assert n_right >= 0.95 * len(REPORTS), f"{n_right} of {len(REPORTS)}"


@pytest.mark.parametrize("case", CASES + THREADS, ids=lambda case: case.name)
def test_a_case_is_told_for_what_it_is(case):
    for seed in range(3):
        torch.manual_seed(seed)
        d = diagnose(*case.make())
        assert d.cause == case.cause, d
        assert d.certain == case.certain and d.ok == (case.cause == "ok")
        assert ("probably" in d.explanation) == (not d.certain)
