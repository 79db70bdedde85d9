"""`diagnose` on what people reported in public threads, and on what they might."""

import pytest
import torch

from multilabel_mnist.mismatch import diagnose

from .cases import CASES, REPORTS, THREADS, build

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size")


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report["id"])
def test_a_report_is_told_for_what_it_is(report):
    d = diagnose(*build(report))
    assert d.cause in (report["cause"], *report.get("also_right", [])), d
    if report["cause"] == "ok":
        assert d.ok
    elif not d.ok:
        assert d.silent == report["silent"]


@pytest.mark.parametrize("case", CASES + THREADS, ids=lambda case: case.name)
def test_a_case_is_told_for_what_it_is(case):
    for seed in range(3):
        torch.manual_seed(seed)
        d = diagnose(*case.make())
        assert d.cause == case.cause, d
        assert d.certain == case.certain and d.ok == (case.cause == "ok")
        assert ("probably" in d.explanation) == (not d.certain)
