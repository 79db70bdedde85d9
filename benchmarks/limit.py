"""The physical limit: the operations that training needs, over the rate of matrix products."""

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from multilabel_mnist.precision import computes_bfloat16
from multilabel_mnist.training import digit_cnn

from .timing import seconds


def operations(device, bs=64):
    """Return the operations on one image of a training step, and of a forward pass.

    Each multiplication counts, and each addition.
    """
    model = digit_cnn().to(device)
    x = torch.randn(bs, 1, 28, 28, device=device)
    targets = torch.rand(bs, 10, device=device)
    with FlopCounterMode(display=False) as step:
        F.binary_cross_entropy_with_logits(model(x), targets).backward()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(x)
    return step.get_total_flops() / bs, forward.get_total_flops() / bs


def matrix_rate(device, dtype=torch.float32, n=1536, times=12):
    """Return the operations per second of a product of two n x n matrices.

    It is the best of some products, because a limit is no median.
    """
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    a @ b
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(times))


def limit(bench, n_train, n_valid):
    """Return the seconds that `n_train` training and `n_valid` validation images need at least."""
    step, forward = operations(bench.device)
    total = n_train * step + n_valid * forward
    dtype = torch.bfloat16 if computes_bfloat16(bench.device) else torch.float32
    rate = matrix_rate(bench.device, dtype)
    return {
        "seconds": total / rate,
        "operations": total,
        "operations per second": rate,
        "how": f"{total / 1e9:.0f} G operations at {rate / 1e9:.0f} G/s, {dtype}",
    }
