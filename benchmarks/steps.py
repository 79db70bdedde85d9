"""(d) What each part adds to a training step: two learners take their steps in turns."""

import statistics
import time

import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.torch_core import set_seed
from torch import nn

from multilabel_mnist.compose import ComposeDigits
from multilabel_mnist.explain import ExplainMismatch
from multilabel_mnist.labels import BCEOneHotLossFlat, OneHot, to_multilabel
from multilabel_mnist.training import digit_cnn, fused_adam

from .lesson import LR
from .timing import wait

N_STEPS, N_UNSEEN = 100, 20  # N_UNSEEN steps at the start are not counted
QUICK_N_STEPS, QUICK_N_UNSEEN = 10, 2


class Stepper:
    """A Learner in the middle of a fit, which takes one step at a time."""

    def __init__(self, dls, loss_func, cbs=(), make_model=digit_cnn):
        set_seed(0)
        lr = LR / 10
        learn = Learner(
            dls, make_model(), loss_func=loss_func, opt_func=fused_adam, lr=lr, cbs=list(cbs)
        )
        learn.remove_cbs([cb for cb in learn.cbs if isinstance(cb, ProgressCallback)])
        learn.model.to(dls.device)
        learn.create_opt()
        learn.opt.set_hypers(lr=lr)
        learn.n_epoch = 1
        learn.epoch = 0
        learn.dl = dls.train
        learn.n_iter = len(dls.train)
        for event in ("before_fit", "before_epoch", "before_train"):
            learn(event)
        self.learn = learn
        self.n_steps = 0
        self.batches = self.endless()

    def endless(self):
        """Yield training batches, epoch after epoch."""
        while True:
            yield from self.learn.dls.train

    def step(self):
        """Draw a batch, learn from it, and return the seconds that both took."""
        wait()
        start = time.perf_counter()
        self.learn.one_batch(self.n_steps % self.learn.n_iter, next(self.batches))
        wait()
        self.n_steps += 1
        return time.perf_counter() - start


def with_transform(dls, tfm):
    """Return `dls`, whose training batches now pass through another transform."""
    dls.add_tfms([tfm], "after_batch", "train")
    return dls


def pairs(bench):
    """Return {ratio: (what is added, a Stepper without it, one with it)}.

    Every side has loaders of its own. Where nothing is added, labels become targets before the
    training.
    """

    def targets():
        return to_multilabel(bench.loaders())

    def plain():
        return Stepper(targets(), BCEWithLogitsLossFlat())

    one_hot = Stepper(with_transform(bench.loaders(), OneHot(10)), BCEWithLogitsLossFlat())
    composed = with_transform(targets(), ComposeDigits(seed=42))
    return {
        "step_onehot": ("OneHot, a batch transform", plain(), one_hot),
        "step_bce_onehot": (
            "BCEOneHotLossFlat, a loss",
            plain(),
            Stepper(bench.loaders(), BCEOneHotLossFlat()),
        ),
        "step_explain": (
            "ExplainMismatch, after its first batches",
            plain(),
            Stepper(targets(), BCEWithLogitsLossFlat(), [ExplainMismatch()]),
        ),
        "step_compose": (
            "ComposeDigits, a batch transform",
            plain(),
            Stepper(composed, BCEWithLogitsLossFlat()),
        ),
    }


class Empty(Callback):
    """A callback that does nothing; fastai still looks for its method at each event."""


def tiny_model():
    """Make a network whose step costs so little that a callback's share can be seen."""
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10))


def tiny_steppers():
    """Return {callback or none: a Stepper of the tiny network}."""
    torch.manual_seed(0)
    batches = [(torch.randn(64, 20), torch.randint(0, 10, (64,))) for _ in range(100)]

    def stepper(*cbs):
        train, valid = (DataLoader(part, bs=None, num_workers=0) for part in (batches, batches[:2]))
        dls = DataLoaders(train, valid, device="cpu")
        return Stepper(dls, CrossEntropyLossFlat(), cbs, make_model=tiny_model)

    return {
        "without callbacks of ours": stepper(),
        "with ExplainMismatch": stepper(ExplainMismatch()),
        "with a callback that does nothing": stepper(Empty()),
    }


def step_times(steppers, n):
    """Return the seconds of n steps of each, taken in turns, each round led by another one."""
    times = [[] for _ in steppers]
    for i in range(n):
        for j in range(len(steppers)):
            which = (i + j) % len(steppers)
            times[which].append(steppers[which].step())
    return times


def run(bench):
    """Measure the factor that each part adds, and in microseconds what a callback adds."""
    n, n_unseen = (QUICK_N_STEPS, QUICK_N_UNSEEN) if bench.quick else (N_STEPS, N_UNSEEN)
    rows = []
    ratios = {}
    for name, (what, without, with_part) in pairs(bench).items():
        bench.say(f"{what}, {n} steps each, {bench.repeats} times")
        step_times([without, with_part], n_unseen)
        factors = []
        plain_steps = []
        for _ in range(bench.repeats):
            plain, added = map(statistics.median, step_times([without, with_part], n))
            factors.append(added / plain)
            plain_steps.append(1000 * plain)
        rows.append((f"{name}: {what}", "times a step without", factors))
        ratios[name] = statistics.median(factors)
    rows.append(("a step without any of them", "ms", plain_steps))
    bench.say("callbacks on a tiny network")
    tiny = tiny_steppers()
    step_times(list(tiny.values()), n_unseen)
    taken = [step_times(list(tiny.values()), n) for _ in range(bench.repeats)]
    for i, name in enumerate(tiny):
        medians = [1e6 * statistics.median(times[i]) for times in taken]
        rows.append((f"a step of a tiny network {name}", "us", medians))
    note = f"batches of {bench.bs}; a step includes drawing its batch"
    return {"rows": rows, "ratios": ratios, "note": note}
