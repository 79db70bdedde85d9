"""Puts the outputs of a run into the notebooks, and cleans these."""
import nbformat
from nbdev.clean import nbdev_clean


def changed(nb, path):
    """Was the notebook at `path` edited since `nb`, its executed copy, was read?"""
    return [c.source for c in nbformat.read(path, 4).cells] != [c.source for c in nb.cells]


def save(executed):
    """Writes each executed notebook of a {path: notebook} over its own file; says which were left as they are."""
    left = [path for path, nb in executed.items() if changed(nb, path)]
    for path, nb in executed.items():
        if path not in left:
            nbformat.write(nb, path)
            nbdev_clean(fname=str(path))
    return left
