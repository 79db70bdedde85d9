"""The lesson's data, network and schedule, which all parts of the benchmark share."""
import contextlib
import os
from dataclasses import dataclass, field

import torch
from fastai.learner import Learner, defaults
from fastai.torch_core import set_seed
from fastai.metrics import accuracy
from fastai.vision.all import ImageDataLoaders, PILImageBW
from torch import Tensor

from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.head import replace_final_linear
from multilabel_mnist.labels import BCEOneHotLossFlat
from multilabel_mnist.training import digit_cnn, fused_adam

EPOCHS, BS, LR, PCT_START = 1, 256, 2e-2, .15  # what 04_training recommends
WD, MOMS = .01, (.95, .85, .95)  # as fastai has them


@dataclass
class Bench:
    """What a part of the benchmark gets to work with."""
    path: object  # training/<class>/*.png and testing/<class>/*.png
    repeats: int
    quick: bool
    device: torch.device
    say: object = print  # of progress
    dls: DigitDataLoaders = field(init=False)

    def __post_init__(self):
        self.dls = self.loaders()

    def loaders(self):
        """All of training/ to learn from and testing/ to validate on, as for published figures."""
        return DigitDataLoaders.from_folder(self.path, bs=BS, valid_pct=0, n_train=4096 if self.quick else None, device=self.device)

    @property
    def bs(self):
        return self.dls.train.bs

    @property
    def workers(self):
        """Processes that read files beside this one: fastai's default."""
        return min(16, defaults.cpus)

    def in_memory(self, ds):
        """(uint8 (N, 1, H, W), labels (N,)) on the device, as a hand-written program would hold them."""
        return torch.from_numpy(ds.pixels[ds.rows])[:, None].to(self.device), torch.from_numpy(ds.labels).to(self.device)

    def mean_std(self):
        """Of the training pixels, from 0 to 1: the loaders' own."""
        norm = self.dls.train.after_batch[-1]
        return norm.mean.item(), norm.std.item()

    def stock(self, **kwargs):
        """fastai's stock pipeline over the same files, with its own defaults."""
        return ImageDataLoaders.from_folder(self.path, train="training", valid="testing", img_cls=PILImageBW, bs=self.bs, device=self.device, **kwargs)


def network():
    """Which begins by saying that each digit is in one picture of ten."""
    return replace_final_linear(digit_cnn(), 10, prior=.1)


def learner(dls, seed):
    """The lesson's: sigmoid BCE, straight from labels."""
    set_seed(seed)
    return Learner(dls, network(), loss_func=BCEOneHotLossFlat(), opt_func=fused_adam, metrics=accuracy, wd=WD)


@contextlib.contextmanager
def silent():
    """Progress bars and logs go nowhere, but cost what they cost."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def plain(t):
    return t.as_subclass(Tensor)
