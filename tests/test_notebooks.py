"""Each notebook runs through, on the embedded digits, in a kernel of its own; all are listed."""

import pytest

from conftest import NOTEBOOKS, ROOT
from tools.course import default_jobs, started
from tools.notebooks import READING_ORDER


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


@pytest.fixture(scope="session")
def runs(request):
    """Run the notebooks that are tested, some at a time, as `make course` does."""
    tests = [item for item in request.session.items if "runs" in item.fixturenames]
    paths = [item.callspec.params["notebook"] for item in tests]
    before = files()
    with started(paths, "embedded", default_jobs()) as results:
        yield results
    left = {p.name for p in files() - before if p.suffix != ".ipynb"}
    assert not left, f"notebooks leave files behind in nbs/: {sorted(left)}"


def test_notebook_runs(notebook, runs):
    done = runs[notebook].result()
    assert done.failure is None, str(done.failure)
