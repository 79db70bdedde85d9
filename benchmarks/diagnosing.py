"""(e) `diagnose` on (64, 10), of a mismatch and of a pair that is right."""
import torch
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat

from multilabel_mnist.mismatch import diagnose

from .timing import in_turns, seconds


def run(bench):
    pred, labels, calls = torch.randn(64, 10), torch.arange(64) % 10, 5 if bench.quick else 50
    losses = {"class indices for BCE": BCEWithLogitsLossFlat(), "nothing wrong": CrossEntropyLossFlat()}

    def each(loss_func):
        def many():
            for _ in range(calls):
                diagnose(loss_func, pred, labels)
        return lambda r: seconds(many) / calls

    times = in_turns({name: each(f) for name, f in losses.items()}, bench.repeats, say=bench.say)
    return {"rows": [(f"diagnose, {name}", "ms", [t * 1000 for t in ts]) for name, ts in times.items()], "ratios": {}, "note": "(64, 10) logits and (64,) labels"}
