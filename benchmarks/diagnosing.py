"""(e) What one call of `diagnose` costs, by what there is to find."""

from functools import partial

import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from torch import nn
from torch.utils.benchmark import Timer

from multilabel_mnist.mismatch import diagnose

from .timing import in_turns


def own_loss(pred, targ):
    """Compute cross-entropy in a function that `diagnose` cannot know."""
    return F.cross_entropy(pred, targ)


def own_bce(pred, targ):
    """Compute BCE in a function that `diagnose` cannot know."""
    return F.binary_cross_entropy_with_logits(pred, targ)


def cases():
    """Return {what there is to find: (loss, prediction, target)}."""
    torch.manual_seed(0)
    pred = torch.randn(64, 10)
    labels = torch.arange(64) % 10
    targets = F.one_hot(labels, 10).float()
    weighted = partial(F.cross_entropy, weight=torch.ones(10))
    return {
        "nothing wrong": (nn.CrossEntropyLoss(), pred, labels),
        "nothing wrong, a fastai loss": (CrossEntropyLossFlat(), pred, labels),
        "nothing wrong, targets for BCE": (nn.BCEWithLogitsLoss(), pred, targets),
        "class indices for BCE": (BCEWithLogitsLossFlat(), pred, labels),
        "a silent broadcast": (nn.MSELoss(), pred[:, :1], labels.float()),
        "softmax applied twice": (nn.CrossEntropyLoss(), pred.softmax(1), labels),
        "labels of another dtype": (nn.CrossEntropyLoss(), pred, labels.int()),
        "nothing wrong, a partial": (weighted, pred, labels),
        "nothing wrong, a loss of your own": (own_loss, pred, labels),
        "a loss of your own that raises": (own_bce, pred, labels),
    }


def run(bench):
    """Time all cases in turns, on one thread."""
    n_calls = 5 if bench.quick else 50

    def side(case):
        names = {"diagnose": diagnose, "case": case}
        timer = Timer("diagnose(*case)", globals=names, num_threads=1)
        return lambda repetition: timer.timeit(n_calls).mean

    sides = {name: side(case) for name, case in cases().items()}
    times = in_turns(sides, bench.repeats, say=bench.say)
    rows = [(f"diagnose, {name}", "ms", [1000 * t for t in taken]) for name, taken in times.items()]
    return {"rows": rows, "ratios": {}, "note": "(64, 10) predictions, one thread"}
