"""None and several on images of your own: `python -m benchmarks.own_images --help`.

Trains the same network with and without composed training images: on digits, on letters of printed
fonts, and on digits in color on dark, light and colored pages. The test images are drawn by rules
of their own: two inks on one page, from digits that no network trained on and from fonts that none
has seen. Writes the scores of every run, with what they come from, to a file that the chapter
compose_images reads. The two images of a test pair lie where `ComposeDigits` would put them, in the
middle of its ranges.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fastai.torch_core import default_device, set_seed
from torch import Tensor

from multilabel_mnist.compose import ComposeDigits, verdict_cnn
from multilabel_mnist.compose_images import ComposeImages
from multilabel_mnist.data import DigitDataLoaders, digits_path
from multilabel_mnist.draw import RandomSource, affine, printed_characters
from multilabel_mnist.labels import one_hot
from tools.files import write_whole

from .__main__ import DIGITS
from .resume import earlier_results
from .timing import machine, versions

OUT = Path(__file__).resolve().parent / "own_images.json"
COMMAND = "python -m benchmarks.own_images"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FONTS = (
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSans",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "DejaVuSerif",
)
TEST_FONTS = (2, 4, 11)  # a sans, a mono and a serif; the others are for training
# Signs that are no class. The networks are tested on the first; the second are given as negatives.
NO_DIGITS = ("ACEFHJKMNPRTUVWXY", "abdehkmnrtwy")
NO_LETTERS = ("&%#@?+=*", "23456789")
LAYOUTS = {"overlapping": (1.0, 4.0), "side by side": (0.7, 7.0)}  # scale, shift to either side
LR = 4e-3
BATCH_SIZE = 64


@dataclass
class Shapes:
    """Hold images of one class each as masks, and masks of no class."""

    train: Tensor  # floats from 0 to 1, shape (n, 1, 28, 28)
    train_labels: Tensor  # int64, shape (n,)
    test: Tensor
    test_labels: Tensor
    signs: Tensor  # of no class, for the test
    negatives: Tensor  # of no class, for training


@dataclass(frozen=True)
class Look:
    """Say how masks become images."""

    size: int = 28  # height and width
    n_channels: int = 1
    page: str = "dark"  # dark, light or colored


# name: (what is shown, look, names of the transforms)
GRAY = ("without", "ComposeDigits", "ComposeImages", "ComposeImages with negatives")
COLOR = ("without", "ComposeImages")
SETS = {
    "digits": ("digits", Look(), GRAY),
    "digits, dark on light": ("digits", Look(page="light"), GRAY[:2]),
    "letters": ("letters", Look(), ("without", *GRAY[2:])),
    "color digits, dark pages": ("digits", Look(64, 3, "dark"), COLOR),
    "color digits, light pages": ("digits", Look(64, 3, "light"), COLOR),
    "color digits, colored pages": ("digits", Look(64, 3, "colored"), COLOR),
}


def seeded(seed):
    """Return a source of random numbers with a generator of its own."""
    return RandomSource(generator=torch.Generator().manual_seed(seed))


def characters(chars, fonts, each):
    """Return printed characters in some fonts, (n, 1, 28, 28), and their positions in chars."""
    images = printed_characters(chars, each=each, fonts=FONTS) / 255
    images = images.view(len(FONTS), len(chars), each, 1, 28, 28)[list(fonts)]
    labels = torch.arange(len(chars))[None, :, None].expand(len(fonts), -1, each)
    return images.flatten(0, 2), labels.flatten()


def train_fonts():
    """Return the positions of the fonts for training."""
    return [i for i in range(len(FONTS)) if i not in TEST_FONTS]


def digits(path, n_train):
    """Return handwritten digits, and letters as signs."""
    dls = DigitDataLoaders.from_folder(path, valid_pct=0, n_train=n_train)

    def masks(dataset):
        pixels = torch.as_tensor(np.asarray(dataset.pixels[dataset.rows]))[:, None] / 255
        return pixels, torch.as_tensor(dataset.labels)

    signs, _ = characters(NO_DIGITS[0], TEST_FONTS, each=6)
    negatives, _ = characters(NO_DIGITS[1], train_fonts(), each=6)
    return Shapes(*masks(dls.train_ds), *masks(dls.test_ds), signs, negatives)


def letters(n_train):
    """Return capital letters of some fonts, of others for the test, and other signs."""
    train, train_labels = characters(LETTERS, train_fonts(), each=-(-n_train // (9 * 26)))
    chosen = seeded(0).randperm(len(train))[:n_train]
    test, test_labels = characters(LETTERS, TEST_FONTS, each=12)
    signs, _ = characters(NO_LETTERS[0], TEST_FONTS, each=12)
    negatives, _ = characters(NO_LETTERS[1], train_fonts(), each=6)
    return Shapes(train[chosen], train_labels[chosen], test, test_labels, signs, negatives)


def page_colors(look, n, source):
    """Return the colors of n pages, shape (n, c, 1, 1)."""
    shape = (n, look.n_channels, 1, 1)
    if look.page == "colored":
        return source.uniform(0, 1, *shape)
    if look.n_channels == 1:
        return torch.full(shape, 0.0 if look.page == "dark" else 1.0)
    low, high = (0, 0.2) if look.page == "dark" else (0.8, 1)
    return source.uniform(low, high, *shape)


def ink_colors(look, pages, source):
    """Return colors that differ from the page by at least 0.4 in one channel."""
    if look.n_channels == 1:
        return 1 - pages
    colors = source.uniform(0, 1, *pages.shape)
    too_close = ((colors - pages).abs().amax(1, keepdim=True) < 0.4).expand_as(colors)
    opposite = (pages < 0.5).float()
    return torch.where(too_close, opposite, colors)


def draw(masks, look, source):
    """Draw one or two masks per image, a list of (n, 1, 28, 28), each in an ink of its own."""
    images = page_colors(look, len(masks[0]), source)
    pages = images
    for mask in masks:
        mask = F.interpolate(mask, (look.size, look.size), mode="bilinear", align_corners=False)
        ink = ink_colors(look, pages, source)
        images = images * (1 - mask) + ink * mask
    return images


def pairs_of(shapes, n, layout, source):
    """Return the two masks of n pairs of different classes, and their targets."""
    scale, shift = layout
    first = source.randint(len(shapes.test), 4 * n)
    second = source.randint(len(shapes.test), 4 * n)
    differ = shapes.test_labels[first] != shapes.test_labels[second]
    first, second = first[differ][:n], second[differ][:n]
    masks = [affine(shapes.test[first], scale, -shift), affine(shapes.test[second], scale, shift)]
    n_classes = int(shapes.train_labels.max()) + 1
    targets = [one_hot(shapes.test_labels[i], n_classes) for i in (first, second)]
    return masks, torch.maximum(*targets)


def test_sets(shapes, look, n=1000):
    """Return {column: (images, targets)}."""
    source = seeded(42)
    n_classes = int(shapes.train_labels.max()) + 1
    chosen = source.randperm(len(shapes.test))[:n]
    targets = one_hot(shapes.test_labels[chosen], n_classes)
    tests = {"one": (draw([shapes.test[chosen]], look, source), targets)}
    for name, layout in LAYOUTS.items():
        masks, targets = pairs_of(shapes, n, layout, source)
        tests[name] = draw(masks, look, source), targets
    size = (look.n_channels, look.size, look.size)
    pages = page_colors(look, 200, source).expand(-1, *size)
    empty = {
        "noise": source.uniform(0, 1, 200, *size),
        "blank": pages,
        "signs": draw([shapes.signs], look, source),
    }
    for name, images in empty.items():
        tests[name] = images, torch.zeros(len(images), n_classes)
    return tests


def transform(name, negatives):
    """Return the batch transform of a run; None: without."""
    if name == "without":
        return None
    if name == "ComposeDigits":
        return ComposeDigits()
    return ComposeImages(negatives=negatives if name.endswith("negatives") else None)


def train(images, targets, compose, seed, epochs):
    """Train the recipe's network in a loop of plain torch."""
    set_seed(seed, reproducible=True)
    n_channels, *size = images.shape[1:]
    net = verdict_cnn(targets.shape[1], n_channels, tuple(size))
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    n_steps = epochs * (len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, n_steps)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for chosen in order.split(BATCH_SIZE)[: len(images) // BATCH_SIZE]:
            batch = images[chosen], targets[chosen]
            if compose is not None:
                batch = compose.encodes(batch)
            logits = net(batch[0])
            F.binary_cross_entropy_with_logits(logits, batch[1]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return net.eval()


@torch.inference_mode()
def scores_of(net, tests):
    """Return {column: share of images with exactly the right classes above 0.5}."""
    scores = {}
    for name, (images, targets) in tests.items():
        fires = torch.cat([net(part) for part in images.split(250)]) > 0
        exact = (fires == (targets > 0.5)).all(1).float().mean().item()
        scores[name] = round(exact, 4)
    return scores


def baselines(tests, labels):
    """Return the scores of predicting nothing, and of predicting the most frequent class."""
    most_frequent = labels.bincount().argmax()
    rows = {"predict nothing": [], "predict the most frequent class": [int(most_frequent)]}
    scores = {}
    for name, fired in rows.items():
        scores[name] = {}
        for column, (_, targets) in tests.items():
            fires = torch.zeros_like(targets)
            fires[:, fired] = 1
            scores[name][column] = round((fires == targets).all(1).float().mean().item(), 4)
    return scores


def arguments(argv=None):
    """Read the command line."""
    summary = __doc__.partition(":")[0]
    parser = argparse.ArgumentParser(prog=COMMAND, description=summary)
    parser.add_argument(
        "--source", help="embedded, mnist or a folder (default: as the notebooks choose)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n-train", type=int, default=4000, help="training images, at most")
    parser.add_argument("--images", type=int, default=40_000, help="seen in training, per network")
    parser.add_argument("--only", nargs="+", metavar="SET", help=f"some of {', '.join(SETS)}")
    parser.add_argument("--resume", action="store_true", help="keep the runs that --out holds")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(argv)


def run_set(name, shapes, args, results, write):
    """Train and score the networks of one set that are missing."""
    _, look, transforms = SETS[name]
    tests = test_sets(shapes, look)
    results["baselines"][name] = baselines(tests, shapes.train_labels)
    images = draw([shapes.train], look, seeded(1))
    negatives = draw([shapes.negatives], look, seeded(2))
    targets = one_hot(shapes.train_labels, tests["one"][1].shape[1])
    done = {(run["set"], run["transform"], run["seed"]) for run in results["runs"]}
    for seed in args.seeds:
        for how in transforms:
            if (name, how, seed) in done:
                continue
            start = time.perf_counter()
            epochs = max(1, args.images // len(images))
            net = train(images, targets, transform(how, negatives), seed, epochs)
            run = {"set": name, "transform": how, "seed": seed, "n_train": len(images)}
            run |= {"epochs": epochs, "seconds": round(time.perf_counter() - start, 1)}
            results["runs"].append(run | {"scores": scores_of(net, tests)})
            print(results["runs"][-1], flush=True)
            write()


def main(argv=None):
    """Train and score every network that is missing, and write the file after each."""
    args = arguments(argv)
    path = digits_path(args.source)
    settings = {
        "digits": DIGITS.get(path.name, path.name),
        "n_train": args.n_train,
        "images seen": args.images,
        "learning rate": LR,
        "batch size": BATCH_SIZE,
        "network": "verdict_cnn",
        "transforms": [repr(ComposeDigits()), repr(ComposeImages(negatives=torch.zeros(1, 8, 8)))],
    }
    about = {
        "command": COMMAND,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(default_device()),
        "versions": versions(),
    }
    earlier = earlier_results(args, settings) or {"baselines": {}, "runs": []}
    results = {name: earlier[name] for name in ("baselines", "runs")}
    shown = {"digits": digits(path, args.n_train), "letters": letters(args.n_train)}

    def write():
        whole = {"about": about, "settings": settings} | results
        write_whole(args.out, json.dumps(whole, indent=1) + "\n")

    for name, (kind, *_) in SETS.items():
        if not args.only or name in args.only:
            run_set(name, shown[kind], args, results, write)


if __name__ == "__main__":
    main()
