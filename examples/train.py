"""Train the lesson's network with several processes, each with its part of every batch.

    torchrun --nproc_per_node 2 examples/train.py    CPUs or GPUs; several machines with --nnodes
    accelerate launch examples/train.py              GPUs, as `accelerate config` was told; on CPUs
                                                     it starts one process
    python examples/train.py                         one process, the same global batch

accelerate moves the data, averages the gradients and starts the group of processes: gloo on CPUs,
NCCL on GPUs. The schedule and the global batch stay the same however many processes there are, so
the losses stay the same, too, with one exception: batch norm sees only the images of its own
process. `--norm` says what to do about that:

    batch   Each process normalizes by its own part of the batch. One process computes the same
            sums with `--parts 2`: it takes the parts one after the other and adds up their
            gradients. For evaluation, the running averages of process 0's parts are kept.
    sync    All processes normalize by the whole batch (SyncBatchNorm, which needs GPUs).
    group   GroupNorm, which sees one image at a time. Any number of processes has the losses of
            one, on CPUs as well.

The same sums in another order are rounded differently; another number of threads is enough for
that (OMP_NUM_THREADS; torchrun sets it to 1). In float32 and with batch norm, the losses of the
first steps then differ by up to 2e-4. `--double` computes in float64 (not on MPS), so that nothing
but the sums themselves can differ.

`--learner` trains through fastai's `Learner.distrib_ctx` instead. fastai 2.8 supports only CUDA
there, because its DistributedDL calls .cuda().
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, DataLoaderConfiguration
from fastai.distributed import rank_distrib
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.torch_core import default_device, set_seed
from torch import nn
from torch.utils.data import DataLoader, Dataset

from multilabel_mnist.compose import ComposeDigits
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.labels import exact_match, to_multilabel
from multilabel_mnist.training import digit_cnn, fused_adam


class Batches(Dataset):
    """A split for torch's DataLoader, which takes a whole batch with one index."""

    def __init__(self, ds):
        self.ds = ds

    def __len__(self):
        return len(self.ds)

    def __getitems__(self, idxs):
        return self.ds.batch(np.asarray(idxs))

    def __getitem__(self, i):
        return self.__getitems__([i])


def keep(batch):
    """Collate nothing, because `Batches` returns whole batches."""
    return batch


def network(norm):
    """Make `digit_cnn` with the kind of normalization that was asked for."""
    net = digit_cnn()
    if norm == "sync":
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    if norm == "group":
        for block in net:
            if isinstance(block, nn.Sequential):
                block[1] = nn.GroupNorm(4, block[1].num_features)
    return net


def loaders(args, rank):
    """Make DigitDataLoaders with targets instead of labels.

    With --compose every rank composes images of several digits and of none with its own seed.
    """
    dls = DigitDataLoaders.from_folder(
        digits_path(args.source), bs=args.batch, valid_pct=0, n_train=args.n_train, device="cpu"
    )
    dls = to_multilabel(dls)
    if args.compose:
        dls.add_tfms([ComposeDigits(seed=args.seed + rank)], "after_batch", "train")
    return dls


def one_cycle(opt, n_steps, lr):
    """Return torch's own schedule in the shape of fit_one_cycle."""
    return torch.optim.lr_scheduler.OneCycleLR(
        opt,
        lr,
        total_steps=n_steps,
        pct_start=0.25,
        base_momentum=0.85,
        max_momentum=0.95,
        div_factor=25,
        final_div_factor=4000,
    )


def accelerator(args):
    """Start the group of processes; SystemExit for options that do not fit it."""
    # Unless it is told so, accelerate makes no group of processes on CPUs.
    cpu = args.cpu or not torch.accelerator.is_available()
    acc = Accelerator(
        cpu=cpu,
        step_scheduler_with_optimizer=False,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    n_parts = args.parts * acc.num_processes
    if args.batch % n_parts:
        raise SystemExit(
            f"--batch: expected a multiple of {n_parts}, to split it into equal parts, "
            f"got {args.batch}"
        )
    if args.norm == "sync" and acc.device.type != "cuda":
        raise SystemExit(
            "--norm sync needs GPUs, because torch has SyncBatchNorm only there: use batch or group"
        )
    return acc


def train(args):
    """Train, and return accelerator, losses of all steps, network and DataLoaders.

    The losses are averaged over the processes.
    """
    acc = accelerator(args)
    dls = loaders(args, acc.process_index)
    set_seed(args.seed)  # the same weights and the same order of images everywhere
    batches = DataLoader(
        Batches(dls.train_ds),
        args.batch,
        shuffle=True,
        drop_last=True,
        collate_fn=keep,
        generator=torch.Generator().manual_seed(args.seed),
    )
    dtype = torch.float64 if args.double else torch.float32
    model = network(args.norm).to(dtype)
    # With torch's small eps, Adam would make whole steps out of rounding errors.
    opt = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, eps=1e-5)
    model, opt, batches = acc.prepare(model, opt, batches)
    schedule = one_cycle(opt, args.epochs * len(batches), args.lr)
    dls.to(acc.device)
    dls.train.before_iter()  # tells the batch transforms that this is training
    losses = []
    for epoch in range(args.epochs):
        for batch in batches:
            loss = step(acc, model, opt, batch, dls.train.after_batch, args.parts)
            losses.append(acc.reduce(loss, "mean").item())
            schedule.step()
        mean = np.mean(losses[-len(batches) :])
        acc.print(f"epoch {epoch + 1} of {args.epochs}: loss {mean:.4f}", flush=True)
    return acc, losses, acc.unwrap_model(model), dls


def inputs(x, model):
    """Return a plain tensor in the precision of the model."""
    return x.as_subclass(torch.Tensor).to(next(model.parameters()).dtype)


def step(acc, model, opt, batch, after_batch, n_parts):
    """Take one step over this process's share of a batch, and return its mean loss.

    The share is taken in `n_parts`, one after the other.
    """
    n = len(batch[0]) // n_parts
    total = 0.0
    for i in range(n_parts):
        x, y = after_batch(tuple(b[i * n : (i + 1) * n] for b in batch))
        is_last = i == n_parts - 1
        # Only the last part's gradients are averaged over the processes.
        with acc.accumulate() if is_last else acc.no_sync(model):
            logits = model(inputs(x, model))
            loss = F.binary_cross_entropy_with_logits(logits, inputs(y, model)) / n_parts
            acc.backward(loss)
        total += loss.detach()
    opt.step()
    opt.zero_grad()
    return total


@torch.no_grad()
def evaluate(acc, model, dls):
    """Return the exact match on testing/, to which each process adds its share of the batches."""
    loader = acc.prepare(DataLoader(Batches(dls.valid_ds), dls.train.bs, collate_fn=keep))
    model.eval()
    logits = []
    targets = []
    for batch in loader:
        x, y = dls.valid.after_batch(tuple(batch))
        gathered = acc.gather_for_metrics((model(inputs(x, model)), inputs(y, model)))
        logits.append(gathered[0])
        targets.append(gathered[1])
    return exact_match(torch.cat(logits), torch.cat(targets)).item()


def train_with_learner(args):
    """Train through fastai's Learner, which shards its own loaders; CUDA only."""
    if not torch.cuda.is_available():
        raise SystemExit(
            "--learner needs a GPU for each process, because fastai's DistributedDL calls .cuda(): "
            "leave it out on CPUs"
        )
    torch.cuda.set_device(rank_distrib() % torch.cuda.device_count())
    set_seed(args.seed)
    dls = loaders(args, rank_distrib())
    dls.to(default_device())
    learn = Learner(
        dls,
        digit_cnn(),
        loss_func=BCEWithLogitsLossFlat(),
        metrics=exact_match,
        opt_func=fused_adam,
    )
    with learn.distrib_ctx(sync_bn=True):
        learn.fit_one_cycle(args.epochs, args.lr)
    return learn


def arguments(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--source",
        help="embedded, mnist or a folder (default: MNIST if it is on disk, else embedded)",
    )
    add("--epochs", type=int, default=1)
    add(
        "--batch",
        type=int,
        default=128,
        help="images in a step, of all processes together (default: 128)",
    )
    add("--lr", type=float, default=1e-2)
    add("--n-train", type=int, help="at most so many training images")
    add(
        "--parts",
        type=int,
        default=1,
        help="parts in which a process takes its share of a batch (default: 1)",
    )
    add("--norm", choices=["batch", "group", "sync"], default="batch")
    add("--double", action="store_true", help="compute in float64, to compare without rounding")
    add("--compose", action="store_true", help="train on images of several digits and of none, too")
    add("--learner", action="store_true", help="train through Learner.distrib_ctx, on GPUs")
    add("--seed", type=int, default=42)
    add("--cpu", action="store_true", help="use CPUs even where there is a GPU")
    add("--results", type=Path, help="a JSON file for the losses and the exact match")
    add("--save", type=Path, help="a .pth file for the weights")
    return parser.parse_args(argv)


def main(argv=None):
    """Train, evaluate, and write what was asked for."""
    args = arguments(argv)
    if args.learner:
        return train_with_learner(args)
    acc, losses, model, dls = train(args)
    exact = evaluate(acc, model, dls)
    n = acc.num_processes
    acc.print(f"exact match on testing/: {exact:.4f}, {n} processes on {acc.device.type}")
    if acc.is_main_process and args.results:
        results = {"losses": losses, "exact": exact, "processes": n}
        args.results.write_text(json.dumps(results), encoding="utf-8")
    if acc.is_main_process and args.save:
        torch.save(model.state_dict(), args.save)
    acc.end_training()


if __name__ == "__main__":
    main()
