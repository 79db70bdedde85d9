"""What the tests of explain and of its callback share: errors, and small learners."""

import pytest
import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn

SAYS = "class-indices-for-bce"  # the diagnosis of the error from the forum


def caught(f, *args):
    """Return the error that f raises."""
    try:
        f(*args)
    except Exception as e:
        return e
    pytest.fail("nothing was raised")


def tiny_dls(x, y, bs=64, c=None):
    ds = list(zip(x, y, strict=True))
    dls = DataLoaders(*(DataLoader(list(ds), bs=bs, num_workers=0) for _ in range(2)))
    if c:
        dls.c = c
    return dls


def learner(y, n_out=10, loss=None, c=10, bs=64, **kwargs):
    learn = Learner(
        tiny_dls(torch.randn(len(y), 5), y, bs=bs, c=c),
        nn.Linear(5, n_out),
        loss_func=loss or CrossEntropyLossFlat(),
        **kwargs,
    )
    if hasattr(learn, "progress"):
        learn.remove_cb(learn.progress)
    learn.logger = lambda *a: None
    learn.ran = []
    learn.model.register_forward_hook(lambda *a: learn.ran.append(1))
    return learn


Y = torch.arange(128) % 10
ROWS = F.one_hot(Y, 10).float()
MULTI = (torch.arange(1280).view(128, 10) % 3 == 0).float()
