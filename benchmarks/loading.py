"""(b) Images a second, as batches of normalised floats that a network could take."""
import operator

import torch
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from .timing import in_turns, ratio, seconds

NAMES = {"ours": "DigitDataLoaders", "indexing": "a tensor in memory, x[idx]", "select": "a tensor in memory, x.index_select(0, idx)", "stock": "ImageDataLoaders.from_folder", "torchvision": "ImageFolder and DataLoader"}


def consume(batches):
    """Take every batch, and give the number of images."""
    return sum(x.shape[0] for x, _ in batches)


def select(x, idx):
    return x.index_select(0, idx)


def indexed(x, y, bs, mean, std, take=operator.getitem):
    """A hand-written loader: everything shuffled by one permutation, the last batch dropped."""
    perm = torch.randperm(len(x), device=x.device)
    for i in range(0, len(x) - bs + 1, bs):
        idx = perm[i:i + bs]
        yield take(x, idx).float().div_(255).sub_(mean).div_(std), y[idx]


def torchvision_loader(bench, n):
    mean, std = bench.mean_std()
    tfms = transforms.Compose([transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize([mean], [std])])
    ds = ImageFolder(bench.path / "training", transform=tfms)
    dl = DataLoader(ds, bench.bs, sampler=RandomSampler(ds, num_samples=n), drop_last=True, num_workers=bench.workers)
    return ((x.to(bench.device), y.to(bench.device)) for x, y in dl)


def stock_loader(stock, n):
    """One pass over n images drawn anew."""
    dl = stock.train.new()
    dl.get_idxs = lambda: torch.randperm(len(stock.train_ds))[:n].tolist()
    dl.n = n
    return dl


def run(bench):
    dls, (x, y), (mean, std) = bench.dls, bench.in_memory(bench.dls.train_ds), bench.mean_std()
    stock = bench.stock()
    n = min(len(x), 1024 if bench.quick else 12_000) // bench.bs * bench.bs  # as many as the sides that decode files get
    passes = 2 if bench.quick else 1

    def rate(make, passes=1):
        counted = []
        took = seconds(lambda: counted.extend(consume(make()) for _ in range(passes)))
        return took / sum(counted)  # seconds for an image

    sides = {"ours": lambda r: rate(lambda: dls.train, passes), "indexing": lambda r: rate(lambda: indexed(x, y, bench.bs, mean, std), passes),
             "select": lambda r: rate(lambda: indexed(x, y, bench.bs, mean, std, select), passes),
             "stock": lambda r: rate(lambda: stock_loader(stock, n)), "torchvision": lambda r: rate(lambda: torchvision_loader(bench, n))}
    times = in_turns(sides, bench.repeats, say=bench.say)
    rows = [(f"{name}: {NAMES[name]}", "images/s", [1 / t for t in ts]) for name, ts in times.items()]
    ratios = {"load_ours_over_stock": ratio(times, "stock", "ours"), "load_ours_over_indexing": ratio(times, "indexing", "ours")}
    return {"rows": rows, "ratios": ratios,
            "note": f"batches of {bench.bs}; stock and torchvision with {bench.workers} worker processes, on {n:,} images a repetition, the others on {len(x) * passes:,}"}
