"""Networks of layers one after the other, and images for them."""

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    """A residual block of another form than the recipe's."""

    def __init__(self, n):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(n, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(n, n, 1, bias=False), nn.BatchNorm2d(n))
        self.after = nn.ReLU()

    def forward(self, x):
        return self.after(self.two(self.one(x)) + x)


def residual_network():
    """Return a network with all kinds of layers, and blocks inside blocks."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Block(8),
        Nested(8),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 1),
        nn.AvgPool2d(3, 2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 3 * 3, 12, bias=False),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 10),
    )


class Nested(nn.Module):
    """A residual block that holds another one."""

    def __init__(self, n):
        super().__init__()
        self.inner = Block(n)
        self.conv = nn.Conv2d(n, n, 3, padding=1)

    def forward(self, x):
        return x + self.conv(self.inner(x))


def in_use(build):
    """Return a network whose batch norms have seen images, in evaluation mode."""
    torch.manual_seed(0)
    model = build()
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(layer.weight, 1, 0.3)
            nn.init.normal_(layer.bias, 0, 0.3)
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(32, 1, 28, 28))
    return model.eval()


def some_images(n=20):
    """Return noise of several strengths, uint8 (n, 28, 28)."""
    rng = np.random.default_rng(0)
    strengths = np.linspace(10, 255, n)[:, None, None]
    return (rng.random((n, 28, 28)) * strengths).astype("uint8")
