"""Models for tests that run in processes of their own, where importing fastai would take long."""

from torch import nn

from multilabel_mnist.classifier import SigmoidClassifier


class ColorNet(nn.Module):
    """A small network for images of any size of 8 pixels and more, with buffers."""

    def __init__(self, n_out=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.out = nn.Linear(8, n_out)

    def forward(self, x):
        return self.out(self.body(x).mean((2, 3)))


def filled(value):
    """A classifier whose weights, threshold and names all say which one it is."""
    model = nn.Linear(300, 3)
    model.weight.data.fill_(value)
    model.bias.data.fill_(value)
    return SigmoidClassifier(model, [str(value)] * 3, value / 10)
