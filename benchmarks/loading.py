"""(b) Images per second, as batches of normalized floats that a network could take."""

import operator

import torch
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from .timing import in_turns, ratio, seconds

NAMES = {
    "ours": "DigitDataLoaders",
    "indexing": "a tensor in memory, x[idx]",
    "select": "a tensor in memory, x.index_select(0, idx)",
    "stock": "ImageDataLoaders.from_folder",
    "torchvision": "ImageFolder and DataLoader",
}


def consume(batches):
    """Take every batch, and return the number of images."""
    return sum(x.shape[0] for x, _ in batches)


def select(x, idx):
    """Take rows the way that is fastest on a CPU."""
    return x.index_select(0, idx)


def normalize(x, mean, std):
    """Return uint8 pixels as normalized floats."""
    return x.float().div_(255).sub_(mean).div_(std)


def indexed(x, y, bs, mean, std, take=operator.getitem):
    """Load batches as one would by hand: shuffled by one permutation, the last batch dropped."""
    perm = torch.randperm(len(x), device=x.device)
    for start in range(0, len(x) - bs + 1, bs):
        idx = perm[start : start + bs]
        yield normalize(take(x, idx), mean, std), y[idx]


def torchvision_loader(bench, n):
    """Load n images, drawn anew, through torchvision and torch's DataLoader."""
    mean, std = bench.mean_std()
    to_tensor = transforms.Compose(
        [transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize([mean], [std])]
    )
    ds = ImageFolder(bench.path / "training", transform=to_tensor)
    sampler = RandomSampler(ds, num_samples=n)
    dl = DataLoader(ds, bench.bs, sampler=sampler, drop_last=True, num_workers=bench.workers)
    for x, y in dl:
        yield x.to(bench.device), y.to(bench.device)


def stock_loader(stock, n):
    """Return fastai's loader over n images, drawn anew."""
    dl = stock.train.new()
    dl.get_idxs = lambda: torch.randperm(len(stock.train_ds))[:n].tolist()
    dl.n = n
    return dl


def seconds_per_image(make, passes):
    """Time the batches that `make` returns, several passes over them."""
    n_images = 0

    def load():
        nonlocal n_images
        for _ in range(passes):
            n_images += consume(make())

    return seconds(load) / n_images


def run(bench):
    """Time all loaders in turns."""
    x, y = bench.in_memory(bench.dls.train_ds)
    mean, std = bench.mean_std()
    stock = bench.stock()
    # As many images as the sides that decode files get, in whole batches.
    n = min(len(x), 1024 if bench.quick else 12_000) // bench.bs * bench.bs
    passes = 2 if bench.quick else 1
    loaders = {
        "ours": (lambda: bench.dls.train, passes),
        "indexing": (lambda: indexed(x, y, bench.bs, mean, std), passes),
        "select": (lambda: indexed(x, y, bench.bs, mean, std, select), passes),
        "stock": (lambda: stock_loader(stock, n), 1),
        "torchvision": (lambda: torchvision_loader(bench, n), 1),
    }

    def side(make, passes):
        return lambda repetition: seconds_per_image(make, passes)

    sides = {name: side(*loader) for name, loader in loaders.items()}
    times = in_turns(sides, bench.repeats, say=bench.say)
    rows = [
        (f"{name}: {NAMES[name]}", "images/s", [1 / t for t in taken])
        for name, taken in times.items()
    ]
    ratios = {
        "load_ours_over_stock": ratio(times, "stock", "ours"),
        "load_ours_over_indexing": ratio(times, "indexing", "ours"),
    }
    note = (
        f"batches of {bench.bs}; stock and torchvision with {bench.workers} worker processes, "
        f"on {n:,} images per repetition, the others on {len(x) * passes:,}"
    )
    return {"rows": rows, "ratios": ratios, "note": note}
