"""Each notebook runs through, on the embedded digits, in a kernel of its own; all are listed."""

from conftest import NOTEBOOKS, ROOT
from tools.course import execute
from tools.notebooks import READING_ORDER


def test_every_notebook_has_its_place_in_the_reading_order():
    there = {p.stem for p in NOTEBOOKS}
    listed = [name for names in READING_ORDER.values() for name in names]
    unlisted = there - set(listed)
    gone = set(listed) - there
    assert not unlisted, f"say in tools/notebooks.py when these are read: {sorted(unlisted)}"
    assert not gone, f"tools/notebooks.py lists what is not in nbs/: {sorted(gone)}"
    assert len(set(listed)) == len(listed)


def test_notebook_runs(notebook):
    def files():
        return {p for p in (ROOT / "nbs").rglob("*") if p.parent.name != ".ipynb_checkpoints"}

    before = files()
    done = execute(notebook, "embedded")
    assert done.failure is None, str(done.failure)
    left = {p.name for p in files() - before if p.suffix != ".ipynb"}
    assert not left, f"{notebook.name} leaves files behind in nbs/: {sorted(left)}"
