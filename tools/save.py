"""Puts the outputs of a run into the notebooks, and cleans these."""

import nbformat
from nbdev.clean import nbdev_clean

from .files import beside


def changed(nb, path):
    """Say whether the notebook at `path` was edited since `nb`, its executed copy, was read."""
    now = [cell.source for cell in nbformat.read(path, 4).cells]
    return now != [cell.source for cell in nb.cells]


def save(executed):
    """Write each executed notebook of {path: notebook} over its own file, cleaned.

    Return the paths that were left alone because they were edited meanwhile.
    """
    left = [path for path, nb in executed.items() if changed(nb, path)]
    for path, nb in executed.items():
        if path in left:
            continue
        with beside(path) as new:
            nbformat.write(nb, new)
            nbdev_clean(fname=str(new))
    return left
