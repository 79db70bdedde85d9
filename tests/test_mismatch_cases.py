"""`diagnose` on mismatches that people reported, on variations of them, and on thousands of pairs that are right."""
import html
import json
import random
import re
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.losses import (BCELossFlat, BCEWithLogitsLossFlat, CrossEntropyLossFlat, DiceLoss, FocalLoss, FocalLossFlat, L1LossFlat,
                           LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropyFlat, MSELossFlat)
from fastai.metrics import accuracy, accuracy_multi, error_rate
from multilabel_mnist.mismatch import diagnose
from multilabel_mnist.mismatch_numbers import CAUSES
from torch import nn
from torchvision.ops import sigmoid_focal_loss

HERE = Path(__file__).parent
CASES = json.loads((HERE / "mismatch_cases.json").read_text(encoding="utf-8"))["cases"]
LINES = [line.split(" | ") for line in (HERE / "mismatch_variations.txt").read_text(encoding="utf-8").splitlines() if " | " in line and line[0] != "#"]
LISTED = """class-indices-for-bce one-hot-for-softmax multi-hot-for-softmax n-outputs trailing-axis extra-target-axis mask-channels class-axis rows squeezed-batch
    label-out-of-range single-logit-softmax target-dtype target-range missing-activation double-activation silent-broadcast same-count-flattened class-weight-length
    empty-target metric-mismatch""".split()


class MyBCE(nn.BCEWithLogitsLoss):
    def forward(self, p, t):
        return super().forward(p, t)


class OneHotBCE(BCEWithLogitsLossFlat):
    def __call__(self, p, t, **kw):
        return super().__call__(p, F.one_hot(t, p.shape[-1]).float() if t.ndim < p.ndim else t, **kw)


def made(loss, make):
    """The loss, the prediction and the target of a case."""
    names = {"torch": torch, "nn": nn, "F": F}
    exec(make, names)
    return eval(loss), names["p"], names["t"]


def test_reported_cases(capsys):
    torch.manual_seed(0)
    right, asked, wrong, controls = Counter(), Counter(), [], []
    for case in CASES:
        d = diagnose(*made(case["loss"], case["make"]))
        good = d.cause in [case["cause"], *case.get("also_right", [])]
        asked[case["cause"]] += 1
        right[case["cause"]] += good
        if not good:
            (controls if case["cause"] == "ok" else wrong).append(f"{case['id']}: {d.cause}")
        if d.cause != "ok":
            assert d.silent == case["silent"], case["id"]
        if "message" in case:
            assert case["message"] in d.message, case["id"]
        else:
            assert d.message == case.get("warning"), case["id"]
    with capsys.disabled():
        print("\nreported cases, right of asked:", *(f"  {cause:22} {right[cause]:2} of {n:2}" for cause, n in sorted(asked.items())),
              f"  {'all':22} {right.total():2} of {asked.total():2}", sep="\n")
    assert not controls, controls
    assert right.total() >= .95 * asked.total(), wrong


@pytest.mark.parametrize("seed", range(3))
def test_variations(seed, capsys):
    torch.manual_seed(seed)
    wrong = []
    for causes, loss, make, *silent in LINES:
        d = diagnose(*made(loss, make))
        if d.cause not in causes.split() or (d.cause != "ok" and d.silent != bool(silent)):
            wrong.append(f"{loss}, {make}: {d.cause}, silent {d.silent}")
    with capsys.disabled():
        print(f"\nvariations, seed {seed}: {len(LINES) - len(wrong)} of {len(LINES)} right", end="")
    assert not [w for w in wrong if w.startswith("ok")] and len(wrong) <= .02 * len(LINES), wrong


def test_each_cause_is_met_and_listed():
    slugs = {c.slug for c in CAUSES}
    assert len(slugs) == len(CAUSES) and set(LISTED) <= slugs, set(LISTED) - slugs
    assert set(LISTED) <= {causes.split()[0] for causes, *_ in LINES}
    assert all(c.means and c.means.endswith(".") for c in CAUSES)


# every fix runs, and nothing is wrong afterwards

def tiny(like, fix, cause, loss):
    """A model and an input for it whose prediction has this shape."""
    shape = tuple(like.shape)
    if len(shape) > 2 and "Conv" not in fix:
        model, x = nn.Sequential(nn.Linear(4, shape[-1])), torch.randn(*shape[:-1], 4)
    elif len(shape) > 2:
        model, x = nn.Sequential(getattr(nn, f"Conv{len(shape) - 2}d")(2, shape[1], 1)), torch.randn(shape[0], 2, *shape[2:])
    else:
        model, x = nn.Sequential(nn.Linear(4, (*shape, 1)[1] if len(shape) else 1)), torch.randn((*shape, 1)[0], 4)
    if cause == "double-activation":
        model.append(nn.Softmax(1))
    if "model[-2]" in fix:
        model.append(nn.LogSoftmax(1) if "nll" in loss.lower() else nn.Sigmoid())
    return model, x


def after(fix, cause, loss, make):
    """Loss, prediction and target after a fix."""
    loss_func, pred, targ = made(loss, make)
    names = {"torch": torch, "nn": nn, "F": F, "loss_func": loss_func, "pred": pred.detach(), "targ": targ}
    if "model" in fix:
        names["model"], names["x"] = tiny(pred, fix, cause, loss)
    exec(fix, names)
    if "model[" in fix or "model =" in fix:
        names["pred"] = names["model"](names["x"])
    return names["loss_func"], names["pred"], names["targ"]


def not_mended(d, k, loss, make):
    """What is still wrong after fix k, or None."""
    try:
        trio = after(d.fixes[k], d.cause, loss, make)
        again = diagnose(*trio)
        value = trio[0](*trio[1:])
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    if not again.ok or not torch.isfinite(value).all():
        return again.explanation


# what random numbers can't be: a mask of few colours; and what no fix can know: what numbers from 0 to 1 under NLLLoss are
UNMENDED = {"missing-activation | p=torch.rand(16,4); t=torch.randint(0,4,(16,))", "mask-channels | p=torch.randn(2,5,32,32); t=torch.randint(0,255,(2,32,32,3))",
            "mask-channels | p=torch.randn(2,5,32,32); t=torch.randint(0,5,(2,3,32,32))"}


def test_every_fix_runs_and_mends():
    torch.manual_seed(0)
    failed, tried = [], Counter()
    for loss, make in [(c["loss"], c["make"]) for c in CASES] + [(loss, make) for _, loss, make, *_ in LINES]:
        d = diagnose(*made(loss, make))
        assert d.ok or d.fixes, (loss, make)
        for k in range(len(d.fixes)):
            tried[d.cause] += 1
            if f"{d.cause} | {make}" not in UNMENDED and (left := not_mended(d, k, loss, make)):
                failed.append(f"{d.cause}, fix {k} of {loss} with {make}\n{d.fixes[k]}\n   {left}")
    assert set(LISTED) <= set(tried)
    assert not failed, "\n".join(failed)


# what the loss computes after the first fix, against a computation of its own

def ce(x, y):
    """Cross entropy of rows x and indices y, by hand."""
    return sum(-(row[i].double() - row.double().exp().sum().log()) for row, i in zip(x, y)) / len(x)


def bce(x, y):
    """Binary cross entropy of logits, by hand."""
    p = 1 / (1 + (-x.double()).exp())
    return -torch.where(y > .5, p.log(), (1 - p).log()).mean()


def examples():
    """cause: (loss, prediction, target, what the loss should be after the first fix), the model's name being `net`"""
    g = torch.Generator().manual_seed(0)
    x, y, hot = torch.randn(6, 4, generator=g), torch.tensor([3, 0, 1, 1, 2, 0]), torch.eye(4)[[3, 0, 1, 1, 2, 0]]
    several, seq = (torch.rand(6, 4, generator=g) > .4).float(), torch.randn(2, 4, 5, generator=g)
    one, bits, ys = torch.randn(6, 1, generator=g), torch.tensor([1., 0, 0, 1, 1, 0]), torch.tensor([[1, 0, 4, 3], [2, 2, 0, 1]])
    maps, mask = torch.randn(2, 1, 3, 3, generator=g), (torch.rand(2, 3, 3, generator=g) > .5).float()
    positions = [seq[i, t] for i in range(2) for t in range(4)]
    w = torch.tensor([6 / 8, 6 / 8, 6 / 4, 6 / 4])
    sigmoid, softmax = nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss()
    return {
        "class-indices-for-bce": (BCEWithLogitsLossFlat(), x, y, bce(x, hot)),
        "one-hot-for-softmax": (softmax, x, hot.long(), ce(x, y)),
        "multi-hot-for-softmax": (softmax, x, several, bce(x, several)),
        "n-outputs": (sigmoid, x, several[:, :3], lambda net, inp: bce(inp @ net[0].weight.T + net[0].bias, several[:, :3])),
        "trailing-axis": (sigmoid, one, bits, bce(one[:, 0], bits)),
        "extra-target-axis": (softmax, x, y[:, None], ce(x, y)),
        "mask-channels": (sigmoid, maps, mask[:, None].expand(2, 3, 3, 3), bce(maps[:, 0], mask)),
        "class-axis": (softmax, seq, ys, ce(positions, ys.flatten())),
        "rows": (softmax, x, y[:5], ce(x[:5], y[:5])),
        "squeezed-batch": (softmax, x[:1], y[0], ce(x[:1], y[:1])),
        "label-out-of-range": (softmax, x, y + 1, ce(x, y)),
        "single-logit-softmax": (softmax, one, bits.long(), bce(one[:, 0], bits)),
        "target-dtype": (softmax, x, y.int(), ce(x, y)),
        "target-range": (sigmoid, maps, mask[:, None] * 255, bce(maps[:, 0], mask)),
        "missing-activation": (nn.BCELoss(), x, several, bce(x, several)),
        "double-activation": (softmax, x.softmax(1), y, lambda net, inp: ce(inp @ net[0].weight.T + net[0].bias, y)),
        "silent-broadcast": (nn.MSELoss(), one, bits, sum((one[i, 0] - bits[i]) ** 2 for i in range(6)) / 6),
        "same-count-flattened": (BCEWithLogitsLossFlat(), x, several.T, bce(x, several)),
        "class-weight-length": (nn.CrossEntropyLoss(weight=torch.ones(3)), x, torch.tensor([0, 0, 1, 1, 2, 3]),
                                sum(w[i] * ce(x[k:k + 1], [i]) for k, i in enumerate([0, 0, 1, 1, 2, 3])) / w[[0, 0, 1, 1, 2, 3]].sum()),
        "empty-target": (sigmoid, x, torch.zeros(0, 4), bce(x, torch.zeros(6, 4))),
        "metric-mismatch": (accuracy, x, hot, sum(int(x[i, y[i]] == x[i].max()) for i in range(6)) / 6),
    }


@pytest.mark.parametrize("cause", LISTED)
def test_first_fix_computes_what_it_should(cause):
    torch.manual_seed(1)
    loss, pred, targ, want = examples()[cause]
    d = diagnose(loss, pred, targ)
    assert d.cause == cause
    names = {"torch": torch, "nn": nn, "F": F, "loss_func": loss, "pred": pred, "targ": targ}
    if callable(want):
        names["model"], x = tiny(pred, d.fixes[0], cause, "")
    exec(d.fixes[0], names)
    if callable(want):
        names["pred"], want = names["model"](x), want(names["model"], x)
    value = names["loss_func"](names["pred"], names["targ"])
    torch.testing.assert_close(float(value), float(want), rtol=1e-4, atol=1e-5)


# no false alarm

def random_pair(r):
    """A loss, a prediction and a target that are right, of any kind and shape."""
    n, c, s = r.choice([1, 2, 3, 8, 17, 64]), r.choice([2, 3, 5, 10, 37]), r.choice([(), (), (7,), (6, 6), (3, 4)])
    size = r.choice([.02, .3, 1, 5])
    x, y = torch.randn(n, c, *s) * size + r.choice([0, 0, .5]), torch.randint(0, c, (n, *s))
    rows, column = torch.rand(n, c, *s), torch.randint(0, 2, (n,)).float()
    bits = (rows > r.random()).float()
    soft = r.choice([(rows * 5).softmax(1), F.one_hot(y, c).movedim(-1, 1).float() * .9 + .1 / c])
    mix = torch.rand(n, *[1] * (x.ndim - 1))
    soft = r.choice([soft, mix * soft + (1 - mix) * soft.flip(0)])
    last = x.movedim(1, -1)
    weight = torch.rand(c) + .5
    return r.choice([
        lambda: (r.choice([nn.CrossEntropyLoss(), F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=.1), partial(F.cross_entropy, reduction="sum")]), x, y),
        lambda: (nn.CrossEntropyLoss(weight=weight), x, y), lambda: (nn.CrossEntropyLoss(), x, soft), lambda: (nn.CrossEntropyLoss(), x.half(), y),
        lambda: (nn.CrossEntropyLoss(ignore_index=0), x, y.clamp_min(int(n > 0))), lambda: (nn.CrossEntropyLoss(), x.log_softmax(1), y),
        lambda: (r.choice([nn.NLLLoss(), F.nll_loss, nn.NLLLoss(weight=weight)]), x.log_softmax(1), y),
        lambda: (r.choice([CrossEntropyLossFlat(), FocalLossFlat(), LabelSmoothingCrossEntropyFlat(), CrossEntropyLossFlat(weight=weight)]), last, y),
        lambda: (r.choice([CrossEntropyLossFlat(axis=1), FocalLossFlat(axis=1)]), x, r.choice([y, y[:, None], y.int()])),
        lambda: (r.choice([nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits, sigmoid_focal_loss]), x, r.choice([bits, rows])),
        lambda: (r.choice([BCEWithLogitsLossFlat(), BCEWithLogitsLossFlat(thresh=.2)]), x, r.choice([bits, rows, bits.bool(), bits.long()])),
        lambda: (r.choice([BCEWithLogitsLossFlat(), MSELossFlat()]), x[:, :1].reshape(n, -1)[:, :1], column),
        lambda: (nn.BCEWithLogitsLoss(pos_weight=weight.reshape(c, *[1] * len(s))), x, bits),
        lambda: (BCEWithLogitsLossFlat(pos_weight=weight), x.reshape(n, c, -1)[..., 0], bits.reshape(n, c, -1)[..., 0]),
        lambda: (r.choice([nn.BCELoss(), F.binary_cross_entropy, BCELossFlat()]), r.choice([x.sigmoid(), x.softmax(1)]), bits),
        lambda: (r.choice([nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), F.mse_loss, MSELossFlat(), L1LossFlat()]), x, r.choice([rows * 9, bits])),
        lambda: (nn.MSELoss(), x.half(), rows), lambda: (nn.MultiLabelSoftMarginLoss(), x, bits),
        lambda: (accuracy, last, r.choice([y, y[..., None]])), lambda: (partial(accuracy, axis=1), x, y), lambda: (accuracy_multi, x, bits),
        lambda: (partial(accuracy_multi, thresh=.2), x, bits),
        lambda: (OneHotBCE(), x.reshape(n, c, -1)[..., 0], y.reshape(n, -1)[:, 0]),
        lambda: (lambda p, t: F.cross_entropy(p, t), x, y), lambda: (lambda p, t: (p - t).abs().mean(), x, rows),
    ])()


def false_alarms(pairs):
    alarms = Counter()
    for loss, pred, targ in pairs:
        d = diagnose(loss, pred, targ)
        if not d.ok:
            alarms[f"{d.cause}: {d.loss_name} {d.pred_shape} {pred.dtype} {d.targ_shape} {targ.dtype}"] += 1
    return alarms


def test_random_pairs_are_right(capsys, n=4000):
    torch.manual_seed(0)
    r = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alarms = false_alarms(random_pair(r) for _ in range(n))
    with capsys.disabled():
        print(f"\nfalse alarms: {alarms.total()} among {n} random pairs", end="")
    assert not alarms, alarms.most_common(10)


def fresh(r):
    """The logits of a network that has not been trained, with a loss that suits it."""
    n, c, d = r.choice([8, 16, 64, 256]), r.choice([1, 1, 2, 3, 10]), r.choice([4, 32, 512])
    x = torch.randn(n, d) * r.choice([.3, 1, 3]) + r.choice([0, 0, 1])
    body = r.choice([lambda: nn.Sequential(), lambda: nn.Sequential(nn.Linear(d, d), nn.ReLU()), lambda: nn.Sequential(nn.BatchNorm1d(d), nn.ReLU())])()
    logits = nn.Sequential(body, nn.Linear(d, c))(x)
    pairs = [(nn.BCEWithLogitsLoss(), logits, torch.randint(0, 2, (n, c)).float()), (BCEWithLogitsLossFlat(), logits, torch.randint(0, 2, (n, c)))]
    return r.choice(pairs if c == 1 else pairs + [(nn.CrossEntropyLoss(), logits, torch.randint(0, c, (n,)))])


def test_fresh_networks_are_right(capsys, n=2000):
    torch.manual_seed(0)
    r = random.Random(0)
    alarms = false_alarms(fresh(r) for _ in range(n))
    with capsys.disabled():
        print(f"\nfalse alarms: {alarms.total()} among {n} fresh networks", end="")
    assert alarms.total() <= n // 500, alarms.most_common(10)
