"""Each notebook runs through, on the embedded digits, in a kernel of its own; all are listed."""

import pytest

from conftest import NOTEBOOKS, ROOT
from tools.course import execute
from tools.kernels import BACKEND, kernel_manager_for
from tools.notebooks import READING_ORDER, environment


def test_every_notebook_has_its_place_in_the_reading_order():
    there = {p.stem for p in NOTEBOOKS}
    listed = [name for names in READING_ORDER.values() for name in names]
    unlisted = there - set(listed)
    gone = set(listed) - there
    assert not unlisted, f"say in tools/notebooks.py when these are read: {sorted(unlisted)}"
    assert not gone, f"tools/notebooks.py lists what is not in nbs/: {sorted(gone)}"
    assert len(set(listed)) == len(listed)


def files():
    """Return all that is in nbs/ but for what an open JupyterLab keeps there."""
    return {p for p in (ROOT / "nbs").rglob("*") if p.parent.name != ".ipynb_checkpoints"}


@pytest.fixture(scope="module")
def kernel_manager():
    """Return what starts the kernels, as in `make course`; no notebook leaves a file behind."""
    before = files()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", BACKEND)
        yield kernel_manager_for(len(NOTEBOOKS))
    left = {p.name for p in files() - before if p.suffix != ".ipynb"}
    assert not left, f"notebooks leave files behind in nbs/: {sorted(left)}"


def test_notebook_runs(notebook, kernel_manager):
    done = execute(notebook, environment("embedded"), kernel_manager)
    assert done.failure is None, str(done.failure)
