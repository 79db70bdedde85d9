"""Building blocks of the strategies: a pair of tensors with its loss, and how to make one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor, nn

# The same examples in every run, however slow the machine is.
STEADY = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True, repr=False)
class Pair:
    """A loss with a prediction and a target."""

    loss: Callable
    pred: Tensor
    targ: Tensor
    certain: bool | None = True  # of a wrong pair: whether its cause is; None: either

    @property
    def args(self):
        """Return what `diagnose` takes."""
        return self.loss, self.pred, self.targ

    def __repr__(self):
        pred = f"{tuple(self.pred.shape)} {self.pred.dtype}"
        targ = f"{tuple(self.targ.shape)} {self.targ.dtype}"
        return f"{str(self.loss)[:80]} on {pred} and {targ}"


class Maker:
    """Takes each choice from Hypothesis, and the numbers of tensors from one seeded generator."""

    def __init__(self, draw):
        self.draw = draw
        self.generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))

    # Choices

    def integer(self, low, high):
        return self.draw(st.integers(low, high))

    def pick(self, *options):
        return options[self.integer(0, len(options) - 1)]

    def flip(self):
        return self.draw(st.booleans())

    def rarely(self):
        return self.integer(1, 6) == 4

    def other(self, n, low, high):
        """Return a whole number from low to high that is not n."""
        return self.pick(*(k for k in range(low, high + 1) if k != n))

    # Sizes

    def batch(self):
        return self.pick(1, 2, self.integer(1, 64))

    def many(self):
        """Return the size of a batch that is no single item."""
        return self.integer(4, 64)

    def classes(self):
        return self.pick(2, 10, self.integer(2, 21), self.integer(2, 100))

    def side(self):
        """Return a side of an image, not so small that it passes for a number of channels."""
        return self.integer(5, 16)

    def places(self):
        """Return the axes behind the classes: none, words, pixels, voxels."""
        axes = self.pick(0, 0, 0, 1, 2, 3)
        sides = {0: (), 1: (self.integer(1, 12),), 3: (4, 5, 3)}
        return sides[axes] if axes != 2 else (self.side(), self.side())

    # Numbers

    def uniform(self, *shape):
        return torch.rand(shape, generator=self.generator)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def integers(self, n, *shape):
        return torch.randint(0, n, shape, generator=self.generator)

    def bits(self, *shape):
        return self.integers(2, *shape).float()

    def labels(self, n, *shape):
        """Return class indices, none of them missing where there is room, as in a real batch."""
        labels = self.integers(n, *shape)
        if labels.numel() >= n:
            labels.view(-1)[:n] = torch.randperm(n, generator=self.generator)
        return labels

    def hot(self, n, *shape):
        """Return one-hot targets as whole numbers, the classes along axis 1."""
        return F.one_hot(self.integers(n, *shape), n).movedim(-1, 1)

    def logits(self, *shape):
        """Return what a model returns: fresh, trained, sure of itself, or after a last ReLU."""
        scale = self.pick(1, 0.01, 0.1, 0.3, 0.5, 3, 8)
        shift = self.pick(0, 0, 0.3, 0.5, -2)
        logits = self.normal(*shape) * scale + shift
        return logits.relu() if self.integer(1, 20) == 13 else logits

    def soft(self, *shape):
        """Return probabilities along axis 1: one-hot, smoothed, mixed up, or a teacher's."""
        n_classes = shape[1]
        hot = self.hot(n_classes, shape[0], *shape[2:]).float()
        form = self.pick("hot", "smoothed", "mixed", "teacher")
        if form == "smoothed":
            smoothing = self.pick(0.05, 0.1, 0.3)
            return hot * (1 - smoothing) + smoothing / n_classes
        if form == "mixed":
            share = self.integer(0, 100) / 100
            return share * hot + (1 - share) * hot.flip(0)
        if form == "teacher":
            return (self.normal(*shape) * self.pick(1, 0.1, 4)).softmax(1)
        return hot


def strategy(make) -> st.SearchStrategy[Pair]:
    """Turn a function that makes a pair with a `Maker` into a strategy."""
    return st.composite(lambda draw: make(Maker(draw)))()


def computes(loss, pred, targ):
    """Whether torch computes a finite loss; any error of the loss is a no."""
    try:
        return bool(torch.isfinite(loss(pred.detach(), targ)).all())
    except Exception:
        return False


def raises(loss, pred, targ):
    """Whether torch raises an error, which may be any."""
    try:
        loss(pred.detach(), targ)
    except Exception:
        return True
    return False


def holds_weights(loss):
    """Whether a loss holds weights, which a change of dtype would leave behind."""
    while isinstance(loss, partial):
        if any(isinstance(value, Tensor) for value in loss.keywords.values()):
            return True
        loss = loss.func
    inner = loss if isinstance(loss, nn.Module) else getattr(loss, "func", loss)
    return any(getattr(inner, name, None) is not None for name in ("weight", "pos_weight"))
