"""Train the lesson's network with several processes, each with its part of every batch.

    torchrun --nproc_per_node 2 examples/train.py       (CPUs or GPUs; over several machines with --nnodes)
    accelerate launch examples/train.py                 (GPUs, as `accelerate config` was told; on CPUs it starts one process)
    python examples/train.py                            (one process, the same global batch)

accelerate moves the data, averages the gradients and starts the processes' group: gloo on CPUs, NCCL on GPUs. The schedule and the global batch stay the
same however many processes there are, so the losses do, too, but for one thing: a batch norm looks at the images that its process has. `--norm` says what to
do about that:

    batch   each process normalises by its own part of the batch. One process does the same sums with `--parts 2`, where it takes the parts one after the
            other and adds up their gradients. What is kept for evaluation are the averages of process 0's parts.
    sync    all processes normalise by the whole batch (SyncBatchNorm, which exists on GPUs alone).
    group   GroupNorm, which looks at one image at a time: any number of processes gives the losses of one, on CPUs as well.

The same sums in another order round differently, already with another number of threads (OMP_NUM_THREADS; torchrun sets it to 1): in float32 the losses of the
first steps then part by up to 2e-4 with a batch norm. `--double` calculates in float64 (not on MPS), where nothing but the sums themselves can part them.

`--learner` trains through fastai's `Learner.distrib_ctx` instead. fastai 2.8 has it for CUDA alone, since its DistributedDL calls .cuda()."""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, DataLoaderConfiguration
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.torch_core import default_device, set_seed
from torch import nn
from torch.utils.data import DataLoader, Dataset

from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.labels import exact_match, to_multilabel
from multilabel_mnist.training import digit_cnn, fused_adam


class Batches(Dataset):
    """The rows of a split as torch's DataLoader wants them; a whole batch is indexed at once."""
    def __init__(self, ds):
        self.ds = ds

    def __len__(self):
        return len(self.ds)

    def __getitems__(self, idxs):
        return self.ds.batch(np.asarray(idxs))

    def __getitem__(self, i):
        return self.__getitems__([i])


def as_it_is(batch):
    return batch


def network(norm):
    """`digit_cnn`, with the kind of normalisation that was asked for."""
    net = digit_cnn()
    if norm == "sync":
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    if norm == "group":
        for block in net:
            if isinstance(block, nn.Sequential):
                block[1] = nn.GroupNorm(4, block[1].num_features)
    return net


def loaders(args, rank):
    """DigitDataLoaders whose targets are rows; with --compose every rank draws digits of its own for its pictures of several and none."""
    dls = to_multilabel(DigitDataLoaders.from_folder(digits_path(args.source), bs=args.batch, valid_pct=0, n_train=args.n_train, device="cpu"))
    if args.compose:
        from multilabel_mnist.compose import ComposeDigits
        dls.add_tfms([ComposeDigits(seed=args.seed + rank)], "after_batch", "train")
    return dls


def one_cycle(opt, n, lr):
    """torch's own schedule in the shape of fit_one_cycle."""
    return torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=n, pct_start=.25, base_momentum=.85, max_momentum=.95, div_factor=25, final_div_factor=4000)


def train(args):
    """Losses of all steps, averaged over the processes, and the trained network."""
    cpu = args.cpu or not torch.accelerator.is_available()  # unless it is told, accelerate makes no group of processes on CPUs
    acc = Accelerator(cpu=cpu, step_scheduler_with_optimizer=False, dataloader_config=DataLoaderConfiguration(split_batches=True))
    parts = args.parts * acc.num_processes
    if args.batch % parts:
        raise SystemExit(f"--batch {args.batch} can't be split into {parts} equal parts: wanted a multiple of {parts}")
    if args.norm == "sync" and acc.device.type != "cuda":
        raise SystemExit("--norm sync needs GPUs, since torch has SyncBatchNorm for them alone: use batch or group")
    dls = loaders(args, acc.process_index)
    set_seed(args.seed)  # the same weights and the same order of images everywhere
    batches = DataLoader(Batches(dls.train_ds), args.batch, shuffle=True, drop_last=True, collate_fn=as_it_is, generator=torch.Generator().manual_seed(args.seed))
    model = network(args.norm).to(torch.float64 if args.double else torch.float32)
    opt = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=.01, eps=1e-5)  # a small eps would make steps out of rounding errors
    model, opt, batches = acc.prepare(model, opt, batches)
    sched = one_cycle(opt, args.epochs * len(batches), args.lr)
    dls.to(acc.device)
    dls.train.before_iter()  # tells the batch transforms that this is training
    losses = []
    for epoch in range(args.epochs):
        for batch in batches:
            losses.append(acc.reduce(step(acc, model, opt, batch, dls.train.after_batch, args.parts), "mean").item())
            sched.step()
        acc.print(f"epoch {epoch + 1} of {args.epochs}: loss {np.mean(losses[-len(batches):]):.4f}", flush=True)
    return acc, losses, acc.unwrap_model(model), dls


def inputs(x, model):
    """Plain tensors in the precision of the model."""
    return x.as_subclass(torch.Tensor).to(next(model.parameters()).dtype)


def step(acc, model, opt, batch, after_batch, parts):
    """One step over this process's share of a batch, taken in `parts`; gives its mean loss."""
    n, total = len(batch[0]) // parts, 0.
    for i in range(parts):
        x, y = after_batch(tuple(b[i * n:(i + 1) * n] for b in batch))
        x, y = inputs(x, model), inputs(y, model)
        with acc.no_sync(model) if i < parts - 1 else acc.accumulate():
            loss = F.binary_cross_entropy_with_logits(model(x), y) / parts
            acc.backward(loss)
        total += loss.detach()
    opt.step()
    opt.zero_grad()
    return total


@torch.no_grad()
def evaluate(acc, model, dls):
    """Exact match on testing/, each process with its share of the batches."""
    loader = acc.prepare(DataLoader(Batches(dls.valid_ds), dls.train.bs, collate_fn=as_it_is))
    model.eval()
    preds, targs = [], []
    for batch in loader:
        x, y = dls.valid.after_batch(tuple(batch))
        p, t = acc.gather_for_metrics((model(inputs(x, model)), inputs(y, model)))
        preds.append(p); targs.append(t)
    return exact_match(torch.cat(preds), torch.cat(targs)).item()


def train_with_learner(args):
    """The same through fastai's Learner, which shards its own loaders; CUDA alone."""
    from fastai.distributed import rank_distrib
    if not torch.cuda.is_available():
        raise SystemExit("--learner needs a GPU for each process, since fastai's DistributedDL calls .cuda(): leave it out on CPUs")
    torch.cuda.set_device(rank_distrib() % torch.cuda.device_count())
    set_seed(args.seed)
    dls = loaders(args, rank_distrib())
    dls.to(default_device())
    learn = Learner(dls, digit_cnn(), loss_func=BCEWithLogitsLossFlat(), metrics=exact_match, opt_func=fused_adam)
    with learn.distrib_ctx(sync_bn=True):
        learn.fit_one_cycle(args.epochs, args.lr)
    return learn


def arguments(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", help="embedded, mnist or a folder (default: MNIST where it is on disk, else embedded)")
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--batch", type=int, default=128, help="images in a step, of all processes together (default: 128)")
    p.add_argument("--lr", type=float, default=1e-2)
    p.add_argument("--n-train", type=int, help="at most so many training images")
    p.add_argument("--parts", type=int, default=1, help="parts in which a process takes its share of a batch (default: 1)")
    p.add_argument("--norm", choices=["batch", "group", "sync"], default="batch")
    p.add_argument("--double", action="store_true", help="calculate in float64, to compare runs without rounding")
    p.add_argument("--compose", action="store_true", help="teach pictures of several digits and of none, too")
    p.add_argument("--learner", action="store_true", help="through Learner.distrib_ctx, on GPUs")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    p.add_argument("--results", type=Path, help="a JSON file for the losses and the exact match")
    p.add_argument("--save", type=Path, help="a .pth file for the weights")
    return p.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    if args.learner:
        return train_with_learner(args)
    acc, losses, model, dls = train(args)
    exact = evaluate(acc, model, dls)
    acc.print(f"exact match on testing/: {exact:.4f}, {acc.num_processes} processes on {acc.device.type}")
    if acc.is_main_process and args.results:
        args.results.write_text(json.dumps({"losses": losses, "exact": exact, "processes": acc.num_processes}))
    if acc.is_main_process and args.save:
        torch.save(model.state_dict(), args.save)
    acc.end_training()


if __name__ == "__main__":
    main()
