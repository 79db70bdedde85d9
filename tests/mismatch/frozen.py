"""What a call could change: tensors, losses, and the state of each random generator."""

import random

import numpy as np
import torch
from torch import Tensor, nn


def frozen(o):
    """Return everything of a tensor, a loss or a partial that a call could change."""
    if isinstance(o, Tensor):
        grad = o.grad if o.is_leaf else None
        layout = (o.dtype, o.shape, o.stride(), o.requires_grad, o._version, type(o))
        return o.detach().clone(), grad, layout
    if isinstance(o, nn.Module):
        settings = [(k, v) for k, v in vars(o).items() if isinstance(v, (int, float, str))]
        return [(name, frozen(value)) for name, value in o.state_dict().items()] + settings
    if hasattr(o, "func"):
        parts = (o.func, *getattr(o, "keywords", {}).values())
        return [frozen(part) for part in parts]
    return []


def same(a, b):
    if isinstance(a, Tensor):
        equal = torch.equal(a.as_subclass(Tensor), b.as_subclass(Tensor))
        return equal or bool(a.isnan().any())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b or a == b


def random_state():
    """Return the states of the generators of torch, Python and NumPy."""
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state(), random.getstate(), (name, torch.tensor(keys.tolist()), *rest)
