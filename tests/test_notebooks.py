"""Each notebook runs through, on the embedded digits, under nbdev's own runner and in a process of its own."""
from conftest import NOTEBOOKS, run, script


def test_there_is_a_course():
    names = {p.stem for p in NOTEBOOKS}
    wanted = {"index", "00_data", "01_mismatch", "01a_diagnose", "01b_explain", "02_labels", "03_head", "04_training", "05_inference", "06_compose", "07_ambiguity", "09_from_v1"}
    assert not wanted - names, f"missing from nbs/: {sorted(wanted - names)}"


def test_notebook_runs(notebook):
    before = set(notebook.parent.rglob("*"))
    done = run(script("nbdev-test"), notebook)
    # nbdev-test also ends well when it found nothing to run
    assert done.returncode == 0 and "Success." in done.stdout, done.stdout[-6000:]
    left = {p.name for p in set(notebook.parent.rglob("*")) - before if p.suffix != ".ipynb" and p.parent.name != ".ipynb_checkpoints"}
    assert not left, f"{notebook.name} leaves files behind in nbs/: {sorted(left)}"
