"""Each notebook runs through, on the embedded digits, in a process of its own; all are listed."""

from conftest import NOTEBOOKS, ROOT, run, script
from tools.notebooks import READING_ORDER


def test_every_notebook_has_its_place_in_the_reading_order():
    there = {p.stem for p in NOTEBOOKS}
    unlisted = there - set(READING_ORDER)
    gone = set(READING_ORDER) - there
    assert not unlisted, f"say in tools/notebooks.py when these are read: {sorted(unlisted)}"
    assert not gone, f"tools/notebooks.py lists what is not in nbs/: {sorted(gone)}"
    assert len(set(READING_ORDER)) == len(READING_ORDER)


def test_notebook_runs(notebook):
    def files():
        return {p for p in (ROOT / "nbs").rglob("*") if p.parent.name != ".ipynb_checkpoints"}

    before = files()
    done = run(script("nbdev-test"), notebook)
    # nbdev-test also ends well when it found nothing to run
    assert done.returncode == 0 and "Success." in done.stdout, done.stdout[-6000:]
    left = {p.name for p in files() - before if p.suffix != ".ipynb"}
    assert not left, f"{notebook.name} leaves files behind in nbs/: {sorted(left)}"
