"""`diagnose` on mismatches that people reported in public threads, and on controls that are right."""
import json
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from fastai.losses import *
from fastai.metrics import *
from multilabel_mnist.mismatch import diagnose
from torch import nn

CASES = json.loads(Path(__file__).with_name("mismatch_cases.json").read_text(encoding="utf-8"))["cases"]


def found(case):
    torch.manual_seed(0)
    names = dict(torch=torch, nn=nn, F=F)
    exec(case["make"], names)
    return diagnose(eval(case["loss"]), names["p"], names["t"])


def test_reported_cases_come_out_right():
    score = Counter()
    for case in CASES:
        d = found(case)
        right = d.cause in (case["cause"], *case.get("also_right", []))
        score[case["cause"], right] += 1
        if case["cause"] == "ok": assert d.ok, f"{case['id']} is right, but was called {d.cause}"
        elif not d.ok: assert d.silent == case["silent"], case["id"]
    for (cause, right), n in sorted(score.items()): print(f"{cause:24} {'right' if right else 'wrong'} {n}")
    n_right = sum(n for (_, right), n in score.items() if right)
    assert n_right >= .95 * len(CASES), f"{n_right} of {len(CASES)}"
