"""How long `diagnose` takes on (64,10), for a loss that takes the pair, for one that refuses it, and for one that it does not know.

python benchmarks/diagnose_cost.py"""
import statistics
import time
from functools import partial

import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from multilabel_mnist.mismatch import diagnose
from torch import nn


def pairs():
    "Name: (loss, prediction, target)."
    pred, labels = torch.randn(64, 10), torch.arange(64) % 10
    rows = F.one_hot(labels, 10).float()
    return {'right': (nn.CrossEntropyLoss(), pred, labels), 'right, flat': (CrossEntropyLossFlat(), pred, labels), 'right rows': (nn.BCEWithLogitsLoss(), pred, rows),
            'class-indices-for-bce': (BCEWithLogitsLossFlat(), pred, labels), 'silent-broadcast': (nn.MSELoss(), pred[:, :1], labels.float()),
            'double-activation': (nn.CrossEntropyLoss(), pred.softmax(1), labels), 'target-dtype': (nn.CrossEntropyLoss(), pred, labels.int()),
            'a partial': (partial(F.cross_entropy, weight=torch.ones(10)), pred, labels), 'a loss of one\'s own': (lambda p, t: F.cross_entropy(p, t), pred, labels),
            'one that refuses': (lambda p, t: F.binary_cross_entropy_with_logits(p, t), pred, labels)}


def measure(repeats=200):
    "Name: median milliseconds of a call, on one thread."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for name, args in pairs().items():
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            diagnose(*args)
            times.append((time.perf_counter()-start)*1e3)
        found[name] = statistics.median(times)
    torch.set_num_threads(threads)
    return found


if __name__ == '__main__':
    for name, ms in measure().items(): print(f'{name:24} {ms:6.2f} ms')
