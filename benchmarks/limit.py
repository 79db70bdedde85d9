"""The physical limit: the operations that training needs, over the rate at which this machine multiplies matrices."""
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from multilabel_mnist.training import digit_cnn

from .timing import seconds


def operations(device, bs=64):
    """(for a training step, for a forward pass) on one image, each multiplication and each addition counted."""
    model, x, y = digit_cnn().to(device), torch.randn(bs, 1, 28, 28, device=device), torch.rand(bs, 10, device=device)
    with FlopCounterMode(display=False) as step:
        F.binary_cross_entropy_with_logits(model(x), y).backward()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(x)
    return step.get_total_flops() / bs, forward.get_total_flops() / bs


def matrix_rate(device, n=1536, times=12):
    """Operations a second of a product of two n x n float32 matrices: the best of some, for a limit is no median."""
    a, b = torch.randn(2, n, n, device=device)
    a @ b
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(times))


def limit(bench, n_train, n_valid):
    step, forward = operations(bench.device)
    rate = matrix_rate(bench.device)
    return {"seconds": (n_train * step + n_valid * forward) / rate, "operations": n_train * step + n_valid * forward, "operations per second": rate,
            "how": f"{(n_train * step + n_valid * forward) / 1e9:.0f} G operations at {rate / 1e9:.0f} G/s"}
