"""A kernel that was forked after fastai was imported is like one that was started by itself."""

import json
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools.course import started
from tools.kernels import FEW

KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "any"}}
LOADED = "import sys\nprint('fastai.vision.all' in sys.modules)"
FACTS = """
import json, multiprocessing, os, random, sys, warnings
import matplotlib, numpy, torch
print(json.dumps({
    "path": sys.path,
    "folder": os.getcwd(),
    "name": __name__,
    "source": os.environ["MULTILABEL_MNIST_SOURCE"],
    "backend": os.environ["MPLBACKEND"],
    "starts processes by": multiprocessing.get_start_method(),
    "leads its group": os.getpgrp() == os.getpid(),
    "threads": torch.get_num_threads(),
    "default dtype": str(torch.get_default_dtype()),
    "quiet about": [str(f[1].pattern) for f in warnings.filters if f[2] is FutureWarning],
}))
"""
FIGURE = "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1)).add_subplot();"
WORKERS = """
from torch.utils.data import DataLoader, Dataset
class Squares(Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return i * i
print([int(x) for x in DataLoader(Squares(), batch_size=None, num_workers=2)])
"""
RANDOM = """
import random, numpy, torch
print(random.random(), numpy.random.random(), torch.rand(()).item())
"""
DIES = "import os\nos._exit(3)"


def run_all(folder, notebooks):
    """Run made-up notebooks, one after the other; return {name: Run}."""
    folder.mkdir()
    paths = {name: folder / f"{name}.ipynb" for name in notebooks}
    for name, cells in notebooks.items():
        nb = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=KERNEL)
        nbformat.write(nb, paths[name])
    with started(list(paths.values()), "embedded", jobs=1) as results:
        return {name: results[path].result() for name, path in paths.items()}


def printed(run, cell):
    """Return what a cell has printed."""
    return "".join(out.text for out in run.nb.cells[cell].outputs if out.output_type == "stream")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A notebook in a kernel that was started by itself."""
    return run_all(tmp_path_factory.mktemp("alone") / "nbs", {"probe": [LOADED, FACTS, FIGURE]})


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """Notebooks in kernels that were forked, where the system can."""
    notebooks = {
        "probe": [LOADED, FACTS, FIGURE, WORKERS, RANDOM],
        "dies": [DIES],
        "after": [LOADED, RANDOM],
    }
    notebooks |= {f"more{i}": [] for i in range(FEW)}
    return run_all(tmp_path_factory.mktemp("forked") / "nbs", notebooks)


def test_fastai_is_there_before_the_first_cell(alone, forked):
    forks = sys.platform == "linux"
    assert printed(alone["probe"], 0) == "False\n"
    assert printed(forked["probe"], 0) == f"{forks}\n"


def test_nothing_else_differs(alone, forked):
    assert alone["probe"].failure is None and forked["probe"].failure is None
    by_itself, in_a_fork = (json.loads(printed(runs["probe"], 1)) for runs in (alone, forked))
    folders = by_itself.pop("folder"), in_a_fork.pop("folder")
    assert [folder.endswith("nbs") for folder in folders] == [True, True]
    backends = by_itself.pop("backend"), in_a_fork.pop("backend")
    assert all("inline" in backend for backend in backends)
    assert in_a_fork == by_itself


def test_figures_have_the_same_size(alone, forked):
    by_itself, in_a_fork = (
        [out.data["image/png"] for out in runs["probe"].nb.cells[2].outputs]
        for runs in (alone, forked)
    )
    assert len(in_a_fork) == 1 and in_a_fork == by_itself


def test_workers_of_a_loader_know_what_the_notebook_defines(forked):
    assert printed(forked["probe"], 3) == "[0, 1, 4, 9]\n"


def test_a_kernel_that_dies_takes_no_other_with_it(forked):
    assert "the kernel died" in forked["dies"].failure.error
    assert forked["after"].failure is None


def test_random_numbers_differ_between_kernels(forked):
    first, second = printed(forked["probe"], 4).split(), printed(forked["after"], 1).split()
    assert not set(first) & set(second)
