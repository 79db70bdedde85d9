"""(a) Time to 99 %: one epoch with sigmoid BCE and its validation, the network new each time."""
import torch
import torch.nn.functional as F
from fastai.callback.schedule import combined_cos

from multilabel_mnist.labels import one_hot

from .lesson import EPOCHS, LR, MOMS, PCT_START, WD, learner, network, silent
from .limit import limit
from .loading import indexed
from .timing import in_turns, ratio

NAMES = {"ours": "Learner.fit_one_cycle over DigitDataLoaders", "loop": "a hand-written torch loop", "stock": "Learner.fit_one_cycle over ImageDataLoaders"}


def hand_written(bench, seed, train, valid, mean, std):
    """The same network, optimizer, schedule and validation in plain torch; gives the share of right top classes."""
    torch.manual_seed(seed)
    (x, y), bs = train, bench.bs
    model = network().to(bench.device)
    opt = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WD, fused=True)
    n = EPOCHS * (len(x) // bs)
    lr, mom = combined_cos(PCT_START, LR / 25, LR, LR / 1e5), combined_cos(PCT_START, *MOMS)
    rows, step = one_hot(y.cpu(), 10).to(bench.device), 0
    for _ in range(EPOCHS):
        model.train()
        for xb, yb in indexed(x, rows, bs, mean, std):
            group = opt.param_groups[0]
            group["lr"], group["betas"] = lr(step / n), (mom(step / n), group["betas"][1])
            F.binary_cross_entropy_with_logits(model(xb), yb).backward()
            opt.step(); opt.zero_grad()
            step += 1
        loss, right = validate(model, *valid, 2 * bs, mean, std)
    return right


@torch.no_grad()
def validate(model, x, y, bs, mean, std):
    model.eval()
    loss, right = 0., 0.
    for i in range(0, len(x), bs):
        logits = model(x[i:i + bs].float().div_(255).sub_(mean).div_(std))
        loss += F.binary_cross_entropy_with_logits(logits, one_hot(y[i:i + bs], 10)) * len(logits)
        right += (logits.argmax(1) == y[i:i + bs]).sum()
    return (loss / len(x)).item(), (right / len(x)).item()


def fit(dls, seed):
    learn = learner(dls, seed)
    with silent():
        learn.fit_one_cycle(EPOCHS, LR, pct_start=PCT_START)
    return learn.recorder.values[-1][-1]  # accuracy on testing/


def run(bench):
    stock, (mean, std) = bench.stock(), bench.mean_std()
    train, valid = bench.in_memory(bench.dls.train_ds), bench.in_memory(bench.dls.valid_ds)
    top1 = {name: [] for name in NAMES}

    def side(name, f):
        def timed(r):
            acc = f(r)
            if r >= 0:
                top1[name].append(acc)
        return timed

    sides = {"ours": side("ours", lambda r: fit(bench.dls, r)), "loop": side("loop", lambda r: hand_written(bench, r, train, valid, mean, std)),
             "stock": side("stock", lambda r: fit(stock, r))}
    times = in_turns(sides, bench.repeats, warm_up=("ours", "loop"), say=bench.say)
    least = limit(bench, len(train[0]) * EPOCHS, len(valid[0]) * EPOCHS)
    rows = [(f"{name}: {NAMES[name]}", "s", ts) for name, ts in times.items()]
    rows += [("the physical limit: " + least["how"], "s", [least["seconds"]])]
    rows += [(f"{name}: top-1 on testing/, seeds 0 to {bench.repeats - 1}", "%", [100 * a for a in accs]) for name, accs in top1.items()]
    ratios = {"fit_ours_over_loop": ratio(times, "ours", "loop"), "fit_stock_over_ours": ratio(times, "stock", "ours")}
    note = f"{EPOCHS} epoch, {len(train[0]):,} training images in batches of {bench.bs}, validation on {len(valid[0]):,}"
    return {"rows": rows, "ratios": ratios, "note": note, "limit": least}
