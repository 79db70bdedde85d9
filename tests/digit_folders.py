"""Small folders of digits for the tests of pixels, batches and data."""

import shutil

from multilabel_mnist.data import digits_path


def write_small_folder(target):
    """Copy 40 digits into `target`: ten images of 0 and ten of 1 in each split."""
    source = digits_path("embedded")
    for split in ("training", "testing"):
        for name in "01":
            (target / split / name).mkdir(parents=True)
            for file in sorted((source / split / name).iterdir())[:10]:
                shutil.copy(file, target / split / name)
    return target


def caches(folder):
    """Return the names of the caches in a folder, and of what an interrupted write left there."""
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))
