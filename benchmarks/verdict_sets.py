"""The images that `benchmarks.verdicts` asks about, made from test digits with fixed seeds.

Images are uint8, shape (n, 28, 28), light on dark as MNIST's. Targets are float32, shape (n, C).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fastai.data.transforms import get_image_files
from PIL import ImageOps
from torch import Tensor

from multilabel_mnist.pixels import grey_image
from multilabel_mnist.verdicts import verdict_tests

SIDE = 28  # pixels
MAX_MOVE = 4  # pixels, of a digit in MultiMNIST
THREE_CENTERS = (5, 14, 23)  # pixels from the left
# (height, width) of three digits in a row, by turns: small ones, and tall and narrow ones
THREE_SIZES = ((13, 13), (22, 10))


def draw_rows(labels, n, n_digits, source, distinct=True):
    """Draw n groups of digits, of different labels if `distinct`; return rows, (n, n_digits)."""
    groups = torch.from_numpy(source.integers(len(labels), size=(4 * n, n_digits)))
    if distinct:
        in_order = labels[groups].sort(1).values
        groups = groups[(in_order.diff(dim=1) > 0).all(1)]
    if len(groups) < n:
        raise ValueError(f"expected labels of which {n} groups differ, got {len(groups)} groups")
    return groups[:n]


def union(targets, rows):
    """Return the targets of images that show several digits each, given the rows of these."""
    return targets[rows].amax(1)


def squeeze(images, height, width):
    """Return images in another size, as floats from 0 to 255."""
    size = (height, width)
    return F.interpolate(images[:, None].float(), size, mode="bilinear", antialias=True)[:, 0]


def to_bytes(pages):
    """Return floats from 0 to 255 as uint8."""
    return pages.round().clamp(0, 255).to(torch.uint8)


def place(images, side, top, left):
    """Return black square pages with an image on each; `top` and `left` are where it begins.

    Both have the shape (n,). What is not on the page is cut off.
    """
    n, height, width = images.shape
    rows = torch.arange(side)[None, :, None] - top[:, None, None]
    columns = torch.arange(side)[None, None, :] - left[:, None, None]
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    at = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixels = images[torch.arange(n)[:, None, None], *at]
    return torch.where(is_inside, pixels, 0)


def half_width_pairs(images, targets, n=2000, seed=11):
    """Make pairs of digits at full height and half their width, as "10" is put into a square."""
    rows = draw_rows(targets.argmax(1), n, 2, np.random.default_rng(seed))
    halves = [squeeze(images[rows[:, k]], SIDE, SIDE // 2) for k in range(2)]
    return to_bytes(torch.cat(halves, 2)), union(targets, rows)


def multi_mnist(images, targets, n=4000, seed=13):
    """Make MultiMNIST's pairs, of different classes, scaled from 36x36 to 28x28 pixels.

    Both digits are moved by up to 4 pixels each way, and their ink is added (Sabour et al. 2017,
    "Dynamic Routing Between Capsules").
    """
    source = np.random.default_rng(seed)
    rows = draw_rows(targets.argmax(1), n, 2, source)
    side = SIDE + 2 * MAX_MOVE
    pages = torch.zeros(n, side, side)
    for k in range(2):
        top, left = torch.from_numpy(source.integers(2 * MAX_MOVE + 1, size=(2, n)))
        pages += place(images[rows[:, k]], side, top, left)
    return to_bytes(squeeze(pages.clamp(0, 255), SIDE, SIDE)), union(targets, rows)


def three_in_a_row(images, targets, n=2000, seed=14):
    """Make images of three digits in a row, which may be of the same class.

    By turns they are small, 13x13 pixels each, or 22 pixels high and 10 wide.
    """
    rows = draw_rows(targets.argmax(1), n, 3, np.random.default_rng(seed), distinct=False)
    pages = torch.zeros(n, SIDE, SIDE)
    for turn, (height, width) in enumerate(THREE_SIZES):
        some = torch.arange(turn, n, len(THREE_SIZES))
        top = torch.full((len(some),), (SIDE - height) // 2)
        for k, center in enumerate(THREE_CENTERS):
            digits = squeeze(images[rows[some, k]], height, width)
            left = torch.full((len(some),), center - width // 2)
            pages[some] = pages[some].maximum(place(digits, SIDE, top, left))
    return to_bytes(pages), union(targets, rows)


@dataclass
class NoDigits:
    """Hold the images of a folder, which show no digit."""

    images: Tensor  # uint8, shape (n, 28, 28)
    subfolders: np.ndarray  # n names: the subfolder that holds each image, "" if none does


def read_folder(folder):
    """Return the images of a folder and its subfolders, in the order of their paths.

    They may have any size, and are expected to be light on dark, centered, in MNIST's manner: the
    character fills about 20 of 28 pixels. An image of another size is scaled to fit, and what it
    lacks to a square is filled with black.
    """
    files = sorted(get_image_files(folder))
    if not files:
        raise SystemExit(f"expected a folder of image files, got {folder}, which holds none")
    pages = [np.asarray(ImageOps.pad(grey_image(file), (SIDE, SIDE))) for file in files]
    images = torch.from_numpy(np.stack(pages))
    if images.median() > 127:
        raise SystemExit(f"expected light characters on dark pages in {folder}: invert them")
    subfolders = [file.relative_to(folder).parent.as_posix() for file in files]
    return NoDigits(images, np.array(["" if name == "." else name for name in subfolders]))


def folder_sets(folders):
    """Return {name of the folder: its images}."""
    sets = {}
    for folder in map(Path, folders):
        name = folder.resolve().name
        if name in sets or name == "letters":
            raise SystemExit(f"expected folders of different names, got {name} twice: rename one")
        sets[name] = read_folder(folder)
    return sets


def all_sets(
    pixels: np.ndarray,  # of one digit each, uint8, shape (N, 28, 28)
    labels: np.ndarray,  # class indices, shape (N,)
    folders: dict[str, NoDigits],  # as `folder_sets` returns them
) -> dict[str, tuple[Tensor, Tensor]]:  # images and targets, as `verdict_scores` takes them
    """Return all test sets by the name of their row."""
    tests = verdict_tests(pixels, labels)
    images, targets = tests["one digit"]
    tests["half width"] = half_width_pairs(images, targets)
    tests["MultiMNIST: exact"] = multi_mnist(images, targets)
    tests["three in a row"] = three_in_a_row(images, targets)
    for name, folder in folders.items():
        no_class = torch.zeros(len(folder.images), targets.shape[1])
        tests[f"{name}: none"] = folder.images, no_class
    return tests
