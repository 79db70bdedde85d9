"""(a) Time to 99 %: one epoch with sigmoids and BCE, and its validation, on a new network.

All sides compute in bfloat16 where the device does so in hardware.
"""

import statistics

import torch
import torch.nn.functional as F
from fastai.callback.schedule import combined_cos

from multilabel_mnist.labels import one_hot
from multilabel_mnist.precision import fastest_forward

from .lesson import (
    EPOCHS,
    LR,
    MOMENTUMS,
    PCT_START,
    WEIGHT_DECAY,
    learner,
    network,
    silent,
)
from .limit import limit
from .loading import indexed, normalize
from .timing import in_turns, ratio

NAMES = {
    "ours": "Learner.fit_one_cycle over DigitDataLoaders",
    "loop": "a hand-written torch loop",
    "stock": "Learner.fit_one_cycle over ImageDataLoaders",
}


def hand_written(bench, seed, train, valid, mean, std):
    """Train the same network with the same optimizer and schedule in plain torch.

    Return its accuracy on the validation images.
    """
    torch.manual_seed(seed)
    x, y = train
    model = network().to(bench.device)
    opt = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    n_steps = EPOCHS * (len(x) // bench.bs)
    lr_at = combined_cos(PCT_START, LR / 25, LR, LR / 1e5)
    momentum_at = combined_cos(PCT_START, *MOMENTUMS)
    targets = one_hot(y.cpu(), 10).to(bench.device)
    (group,) = opt.param_groups
    step = 0
    with fastest_forward(model, bench.device):
        for _ in range(EPOCHS):
            model.train()
            for xb, yb in indexed(x, targets, bench.bs, mean, std):
                group["lr"] = lr_at(step / n_steps)
                group["betas"] = (momentum_at(step / n_steps), group["betas"][1])
                F.binary_cross_entropy_with_logits(model(xb), yb).backward()
                opt.step()
                opt.zero_grad()
                step += 1
            _, accuracy = validate(model, *valid, 2 * bench.bs, mean, std)
    return accuracy


@torch.no_grad()
def validate(model, x, y, bs, mean, std):
    """Return the BCE loss and the accuracy on uint8 images and labels."""
    model.eval()
    loss = 0.0
    n_right = 0.0
    for start in range(0, len(x), bs):
        labels = y[start : start + bs]
        logits = model(normalize(x[start : start + bs], mean, std))
        loss += F.binary_cross_entropy_with_logits(logits, one_hot(labels, 10)) * len(logits)
        n_right += (logits.argmax(1) == labels).sum()
    return (loss / len(x)).item(), (n_right / len(x)).item()


def fit(dls, seed):
    """Train the lesson's Learner, and return its accuracy on testing/."""
    learn = learner(dls, seed)
    with silent(), fastest_forward(learn.model, dls.device):
        learn.fit_one_cycle(EPOCHS, LR, pct_start=PCT_START)
    return learn.recorder.values[-1][-1]


def run(bench):
    """Time the three ways to train in turns."""
    stock = bench.stock()
    mean, std = bench.mean_std()
    train = bench.in_memory(bench.dls.train_ds)
    valid = bench.in_memory(bench.dls.valid_ds)
    accuracies = {name: [] for name in NAMES}

    def side(name, train_once):
        def timed(repetition):
            accuracy = train_once(repetition)
            if repetition >= 0:
                accuracies[name].append(accuracy)

        return timed

    sides = {
        "ours": side("ours", lambda seed: fit(bench.dls, seed)),
        "loop": side("loop", lambda seed: hand_written(bench, seed, train, valid, mean, std)),
        "stock": side("stock", lambda seed: fit(stock, seed)),
    }
    times = in_turns(sides, bench.repeats, warm_up=("ours", "loop"), say=bench.say)
    n_train, n_valid = len(train[0]), len(valid[0])
    least = limit(bench, n_train * EPOCHS, n_valid * EPOCHS)
    rows = [(f"{name}: {NAMES[name]}", "s", taken) for name, taken in times.items()]
    rows.append((f"the physical limit: {least['how']}", "s", [least["seconds"]]))
    for name, values in accuracies.items():
        what = f"{name}: top-1 on testing/, seeds 0 to {bench.repeats - 1}"
        rows.append((what, "%", [100 * value for value in values]))
    ratios = {
        "fit_ours_over_loop": ratio(times, "ours", "loop"),
        "fit_ours_over_limit": statistics.median(times["ours"]) / least["seconds"],
        "fit_stock_over_ours": ratio(times, "stock", "ours"),
    }
    note = (
        f"{EPOCHS} epoch, {n_train:,} training images in batches of {bench.bs}, "
        f"validation on {n_valid:,}"
    )
    return {"rows": rows, "ratios": ratios, "note": note, "limit": least}
