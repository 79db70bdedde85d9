"""(d) What each part adds to a training step, as a factor: two learners take their steps in turns, each batch drawn and learned from."""
import statistics
import time
from importlib.util import find_spec

from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.torch_core import set_seed

from multilabel_mnist.explain import ExplainMismatch
from multilabel_mnist.labels import BCEOneHotLossFlat, OneHot, to_multilabel
from multilabel_mnist.training import digit_cnn, fused_adam

from .lesson import LR
from .timing import wait

UNSEEN = 20  # steps at the start that are not counted


class Stepper:
    """A Learner in the midst of a fit, which takes one step at a time."""
    def __init__(self, dls, loss_func, cbs=()):
        set_seed(0)
        self.learn = Learner(dls, digit_cnn(), loss_func=loss_func, opt_func=fused_adam, lr=LR / 10, cbs=list(cbs))
        self.learn.remove_cbs([cb for cb in self.learn.cbs if isinstance(cb, ProgressCallback)])
        self.learn.model.to(dls.device)
        self.learn.create_opt()
        self.learn.opt.set_hypers(lr=LR / 10)
        self.learn.n_epoch, self.learn.epoch, self.learn.dl = 1, 0, dls.train
        self.learn.n_iter, self.i = len(dls.train), 0
        for event in ("before_fit", "before_epoch", "before_train"):
            self.learn(event)
        self.batches = self.endless()

    def endless(self):
        while True:
            yield from self.learn.dls.train

    def step(self):
        wait(); start = time.perf_counter()
        self.learn.one_batch(self.i % self.learn.n_iter, next(self.batches))
        wait(); self.i += 1
        return time.perf_counter() - start


def with_transform(dls, tfm):
    """`dls`, whose training batches now pass through another transform."""
    dls.add_tfms([tfm], "after_batch", "train")
    return dls


def pairs(bench):
    """{ratio: (what is added, a step without it, a step with it)}; every side has loaders of its own, and labels become rows before training where nothing is added."""
    rows, bce = lambda: to_multilabel(bench.loaders()), BCEWithLogitsLossFlat
    res = {"step_onehot": ("OneHot, a batch transform", Stepper(rows(), bce()), Stepper(with_transform(bench.loaders(), OneHot(10)), bce())),
           "step_bce_onehot": ("BCEOneHotLossFlat, a loss", Stepper(rows(), bce()), Stepper(bench.loaders(), BCEOneHotLossFlat())),
           "step_explain": ("ExplainMismatch, after its first batches", Stepper(rows(), bce()), Stepper(rows(), bce(), [ExplainMismatch()]))}
    if find_spec("multilabel_mnist.compose"):
        from multilabel_mnist.compose import ComposeDigits
        res["step_compose"] = ("ComposeDigits, a batch transform", Stepper(rows(), bce()), Stepper(with_transform(rows(), ComposeDigits(seed=42)), bce()))
    else:
        bench.say("step_compose is left out: there is no multilabel_mnist.compose")
    return res


def in_pairs(without, with_, n):
    """Seconds of n steps of each, taken in turns, first one and then the other going first."""
    times = [], []
    for i in range(n):
        for j in (0, 1) if i % 2 else (1, 0):
            times[j].append((without, with_)[j].step())
    return times


def run(bench):
    n, rows, ratios = 30 if bench.quick else 100, [], {}
    for name, (what, without, with_) in pairs(bench).items():
        bench.say(f"{what}, {n} steps each, {bench.repeats} times")
        in_pairs(without, with_, UNSEEN)
        taken = [in_pairs(without, with_, n) for _ in range(bench.repeats)]
        factors = [statistics.median(b) / statistics.median(a) for a, b in taken]
        rows += [(f"{name}: {what}", "times a step without", factors)]
        ratios[name] = statistics.median(factors)
    rows += [("a step without any of them", "ms", [1000 * statistics.median(a) for a, _ in taken])]
    return {"rows": rows, "ratios": ratios, "note": f"batches of {bench.bs}; a step includes drawing its batch"}
