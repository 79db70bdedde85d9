"""The lesson's data, network and schedule, which all parts of the benchmark share."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fastai.learner import Learner, defaults
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.all import ImageDataLoaders, PILImageBW

from multilabel_mnist.data import DigitDataLoaders
from multilabel_mnist.head import replace_final_linear
from multilabel_mnist.labels import BCEOneHotLossFlat
from multilabel_mnist.training import digit_cnn, fused_adam

# One epoch with a high learning rate, which is warmed up briefly.
# With batches of 512, not all seeds reach 99 %.
EPOCHS = 1
BATCH_SIZE = 384
LR = 2.5e-2
PCT_START = 0.15
# fastai's defaults.
WEIGHT_DECAY = 0.01
MOMENTUMS = (0.95, 0.85, 0.95)


@dataclass
class Bench:
    """What a part of the benchmark gets to work with."""

    path: Path  # training/<class>/*.png and testing/<class>/*.png
    repeats: int
    quick: bool
    device: torch.device
    say: Callable = print  # takes a line about the progress
    dls: DigitDataLoaders = field(init=False)

    def __post_init__(self):
        self.dls = self.loaders()

    def loaders(self, n_train=None):
        """Train on training/ and validate on testing/, as for published figures.

        Training takes all images, or `n_train` of them.
        """
        return DigitDataLoaders.from_folder(
            self.path,
            bs=BATCH_SIZE,
            valid_pct=0,
            n_train=n_train or (4096 if self.quick else None),
            device=self.device,
        )

    @property
    def bs(self):
        """The batch size."""
        return self.dls.train.bs

    @property
    def workers(self):
        """How many processes read files beside this one: fastai's default."""
        return min(16, defaults.cpus)

    def in_memory(self, ds):
        """Return images, uint8 (N, 1, H, W), and labels (N,), as one would hold them by hand."""
        images = torch.from_numpy(ds.pixels[ds.rows])[:, None]
        labels = torch.from_numpy(ds.labels)
        return images.to(self.device), labels.to(self.device)

    def mean_std(self):
        """Return mean and standard deviation of the training pixels, which are from 0 to 1."""
        norm = self.dls.train.after_batch[-1]
        return norm.mean.item(), norm.std.item()

    def stock(self, **kwargs):
        """Return fastai's stock pipeline over the same files, with its own defaults."""
        return ImageDataLoaders.from_folder(
            self.path,
            train="training",
            valid="testing",
            img_cls=PILImageBW,
            bs=self.bs,
            device=self.device,
            **kwargs,
        )


def network():
    """Make the network; at first its sigmoids say that a tenth of the images show each digit."""
    return replace_final_linear(digit_cnn(), 10, prior=0.1)


def learner(dls, seed):
    """Make the lesson's Learner: sigmoids and BCE, straight from labels."""
    set_seed(seed)
    return Learner(
        dls,
        network(),
        loss_func=BCEOneHotLossFlat(),
        opt_func=fused_adam,
        metrics=accuracy,
        wd=WEIGHT_DECAY,
    )


@contextlib.contextmanager
def silent():
    """Send progress bars and logs nowhere; they still cost what they cost."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
