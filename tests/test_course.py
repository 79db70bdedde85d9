"""`make course` and `make save`, tried on a handful of made-up notebooks, some of which fail."""
import re
import sys

import nbformat
import pytest
from conftest import ROOT, run
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_markdown_cell as md
from nbformat.v4 import new_notebook
from tools.course import main

GOOD = {
    "index": [md("# Start\n\nThen [one](01_one.ipynb#First) and the [log](../log.txt)."), code("#| hide\nprint('unseen')"), code("1 + 1")],
    "01_one": [md("# One\n\n## First"), code("#| export\ndef f(x): return x"), code("assert f(1) == 1"), code("#| code-fold: true\nanswer = 42"),
               code("import os, sys\nprint(os.environ['MULTILABEL_MNIST_SOURCE'])\nprint('\\r 10%|.   |\\r100%|....|', file=sys.stderr)"),
               code("from fastcore.test import *\ntest_eq(answer, 42)\nwith expect_fail(ZeroDivisionError): 1/0")],
}
BAD = {
    "02_bad": [md("# Bad"), code("assert True"), md("## Where it breaks\n```\n# not a heading\n```"), code("x = 1\nassert x == 2, 'x is one'"), code("print('never')")],
    "03_dead": [md("# Dead\n\n## The last words"), code("import os\nos._exit(3)")],
    "04_last": [md("# Last"), code("assert True")],
}


def write(folder, notebooks):
    folder.mkdir(parents=True)
    (folder.parent / "log.txt").touch()
    for name, cells in notebooks.items():
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "any"}}), folder / f"{name}.ipynb")
    return folder


def course(nbs, *words, **extra):
    return run(sys.executable, "-m", "tools.course", "--nbs", nbs, "--out", nbs.parent / "_build/course", *words, cwd=ROOT, **extra)


def rows(text):
    """The closing table as {notebook: the rest of its row}."""
    table = text.strip().rpartition("\n\n")[2].splitlines()
    assert table[0].split() == ["notebook", "seconds", "checks"], text
    return {line.split()[0]: " ".join(line.split()[1:]) for line in table[1:]}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    nbs = write(tmp_path_factory.mktemp("bad") / "nbs", GOOD | BAD)
    before = {p.name: p.read_bytes() for p in nbs.iterdir()}
    return nbs, before, course(nbs, "--save")


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    nbs = write(tmp_path_factory.mktemp("good") / "nbs", GOOD)
    return nbs, course(nbs, "--save", MULTILABEL_MNIST_SOURCE="mnist")


def test_a_failure_is_named_and_the_others_still_run(failed):
    _, _, done = failed
    assert done.returncode == 1
    found = rows(done.stdout)
    assert list(found) == ["index", "01_one", "02_bad", "03_dead", "04_last", "5"], "reading order"
    assert re.fullmatch(r'[\d.]+ 1 of 2 FAILED under "Where it breaks": AssertionError: x is one', found["02_bad"])
    assert re.fullmatch(r'[\d.]+ 0 of 0 FAILED under "The last words": DeadKernelError: .*', found["03_dead"])
    assert re.fullmatch(r"[\d.]+ 2 passed", found["01_one"]) and re.fullmatch(r"[\d.]+ 1 passed", found["04_last"])
    assert "code cell 2:\n        assert x == 2, 'x is one'\n    AssertionError: x is one" in done.stdout
    assert "[3/5] 02_bad" in done.stdout and "2 failed" in found["5"]


def test_nothing_is_saved_when_one_fails(failed):
    nbs, before, done = failed
    assert {p.name: p.read_bytes() for p in nbs.iterdir()} == before
    assert "Nothing was saved" in done.stdout


def test_default_is_embedded_whatever_the_machine_says(passed):
    nbs, done = passed
    assert done.returncode == 0, done.stdout
    assert "all passed" in rows(done.stdout)["2"]
    assert [o.text for o in nbformat.read(nbs / "01_one.ipynb", 4).cells[4].outputs] == ["embedded\n"], "and the progress bar is gone"


def test_saved_notebooks_are_clean_and_have_outputs(passed):
    nb = nbformat.read(passed[0] / "index.ipynb", 4)
    assert nb.cells[2].outputs[0].data == {"text/plain": "2"}
    assert nb.cells[2].execution_count is None and nb.cells[2].outputs[0].execution_count is None
    assert not any(c.metadata for c in nb.cells) and list(nb.metadata) == ["kernelspec"]


def test_pages_are_linked_and_need_no_network(passed):
    out = passed[0].parent / "_build/course"
    pages = {p.name: p.read_text() for p in out.glob("*.html")}
    assert set(pages) == {"index.html", "01_one.html"}
    for text in pages.values():
        assert not re.findall(r"<script|(?:src|href)=\"(?:https?:)?//|@import|url\(", text)
        for link in re.findall(r'(?:href|src)="([^"#]+)', text):
            assert (out / link).exists(), link
    index, one = pages["index.html"], pages["01_one.html"]
    assert 'href="01_one.html#First"' in index and 'href="../../log.txt"' in index and "unseen" not in index
    assert re.search(r"<table>.*01_one\.html.*passed", index, re.S)
    assert "#|" not in one and re.search(r"<details><summary>.*answer.*</details>", one, re.S) and "celltag_exported" in one
    assert {p.name for p in out.glob("*.ipynb")} == {"index.ipynb", "01_one.ipynb"}


def test_some_notebooks_only_and_a_folder_of_digits(failed, tmp_path):
    nbs = write(tmp_path / "nbs", GOOD)
    done = course(nbs, "--source", tmp_path, "01_one")
    assert done.returncode == 0 and list(rows(done.stdout)) == ["01_one", "1"]
    assert str(tmp_path) in nbformat.read(nbs.parent / "_build/course/01_one.ipynb", 4).cells[4].outputs[0].text


def test_an_edit_during_the_run_is_not_overwritten(tmp_path):
    edit = "import pathlib, re\np = pathlib.Path('a.ipynb')\np.write_text(p.read_text().replace('# A', '# Edited'))"
    nbs = write(tmp_path / "nbs", {"a": [md("# A"), code(edit)]})
    done = course(nbs, "--save")
    assert done.returncode == 1 and "edited during the run: a.ipynb" in done.stdout
    assert nbformat.read(nbs / "a.ipynb", 4).cells[0].source == "# Edited"


@pytest.mark.parametrize("words, sentence", [
    (["--source", "nowhere"], "'nowhere' is neither 'embedded' nor 'mnist' nor a folder"), (["07_none"], "no such notebook"), ([], "there are no notebooks")])
def test_wrong_words_get_a_sentence(tmp_path, capsys, words, sentence):
    nbs = write(tmp_path / "nbs", {"a": [md("# A")]} if words else {})
    with pytest.raises(SystemExit) as stop:
        main(["--nbs", str(nbs), "--out", str(tmp_path / "out"), *words])
    assert stop.value.code and sentence in str(stop.value.code) + capsys.readouterr().err
