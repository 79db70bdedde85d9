"""`make course` and `make save`, tried on a handful of made-up notebooks, some of which fail."""

import re
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_markdown_cell as md
from nbformat.v4 import new_notebook

from conftest import ROOT, run
from tools.course import MARKER, main

GOOD = {
    "index": [
        md(
            "# Start\n\nThen [one](01_one.ipynb#First), [the deep](reference/deep.ipynb) "
            "and the [log](../log.txt)."
        ),
        code("#| hide\nprint('unseen')"),
        code("1 + 1"),
    ],
    "01_one": [
        md("# One\n\n## First"),
        code("#| export\ndef f(x): return x"),
        code("assert f(1) == 1"),
        code("#| code-fold: true\nanswer = 42"),
        code(
            "import os, sys\nprint(os.environ['MULTILABEL_MNIST_SOURCE'])\n"
            "print('\\r 10%|.   |\\r100%|....|', file=sys.stderr)"
        ),
        code(
            "from fastcore.test import *\ntest_eq(answer, 42)\n"
            "with expect_fail(ZeroDivisionError): 1/0"
        ),
    ],
    "reference/deep": [
        md("# Deep\n\n[up](../01_one.ipynb) [log](../../log.txt) ![dot](dot.png)"),
        code("import os\nprint(os.path.basename(os.getcwd()))"),
    ],
}
BAD = {
    "02_bad": [
        md("# Bad"),
        code("assert True"),
        md("## Where it breaks\n```\n# not a heading\n```"),
        code("x = 1\nassert x == 2, 'x is one'"),
        code("print('never')"),
    ],
    "03_dead": [md("# Dead\n\n## The last words"), code("import os\nos._exit(3)")],
    "04_last": [md("# Last"), code("assert True")],
}
KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "any"}}


def write(folder, notebooks):
    """Write made-up notebooks into `folder`, with a file above it and a picture below."""
    folder.mkdir(parents=True)
    (folder.parent / "log.txt").touch()
    for name, cells in notebooks.items():
        path = folder / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells, metadata=KERNEL), path)
    if (folder / "reference").exists():
        (folder / "reference/dot.png").write_bytes(b"\x89PNG")
    return folder


def course(nbs, *words, **extra):
    out = nbs.parent / "_build/course"
    command = [sys.executable, "-m", "tools.course", "--nbs", nbs, "--out", out]
    return run(*command, *words, cwd=ROOT, **extra)


def rows(text):
    """The closing table as {notebook: the rest of its row}."""
    table = text.strip().rpartition("\n\n")[2].splitlines()
    assert table[0].split() == ["notebook", "seconds"], text
    return {line.split()[0]: " ".join(line.split()[1:]) for line in table[1:]}


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    nbs = write(tmp_path_factory.mktemp("bad") / "nbs", GOOD | BAD)
    before = contents(nbs)
    return nbs, before, course(nbs, "--save")


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    nbs = write(tmp_path_factory.mktemp("good") / "nbs", GOOD)
    return nbs, course(nbs, "--save", MULTILABEL_MNIST_SOURCE="mnist")


def test_a_failure_is_named_and_the_others_still_run(failed):
    _, _, done = failed
    assert done.returncode == 1
    found = rows(done.stdout)
    assert list(found) == ["index", "01_one", "02_bad", "03_dead", "04_last", "deep", "6"]
    bad = r'[\d.]+ FAILED under "Where it breaks": AssertionError: x is one'
    dead = r'[\d.]+ FAILED under "The last words": DeadKernelError: .*'
    assert re.fullmatch(bad, found["02_bad"])
    assert re.fullmatch(dead, found["03_dead"])
    for name in ("01_one", "04_last", "deep"):
        assert re.fullmatch(r"[\d.]+ passed", found[name])
    told = "code cell 2:\n        assert x == 2, 'x is one'\n    AssertionError: x is one"
    assert told in done.stdout
    assert "[3/6] 02_bad" in done.stdout and "2 failed" in found["6"]


def test_nothing_is_saved_when_one_fails(failed):
    nbs, before, done = failed
    assert contents(nbs) == before
    assert "Nothing was saved" in done.stdout


def test_default_is_embedded_whatever_the_machine_says(passed):
    nbs, done = passed
    assert done.returncode == 0, done.stdout
    assert "all passed" in rows(done.stdout)["3"]
    outputs = nbformat.read(nbs / "01_one.ipynb", 4).cells[4].outputs
    assert [o.text for o in outputs] == ["embedded\n"], "and the progress bar is gone"


def test_saved_notebooks_are_clean_and_have_outputs(passed):
    nbs, _ = passed
    nb = nbformat.read(nbs / "index.ipynb", 4)
    (output,) = nb.cells[2].outputs
    assert output.data == {"text/plain": "2"}
    assert nb.cells[2].execution_count is None and output.execution_count is None
    assert not any(c.metadata for c in nb.cells) and list(nb.metadata) == ["kernelspec"]
    files = {p.relative_to(nbs).as_posix() for p in contents(nbs)}
    assert files == {f"{name}.ipynb" for name in GOOD} | {"reference/dot.png"}


def test_a_notebook_in_a_folder_runs_there_and_is_saved_there(passed):
    nbs, _ = passed
    (output,) = nbformat.read(nbs / "reference/deep.ipynb", 4).cells[1].outputs
    assert output.text == "reference\n"


def test_pages_are_linked_and_need_no_network(passed):
    out = passed[0].parent / "_build/course"
    pages = {p.name: p.read_text() for p in out.glob("*.html")}
    assert set(pages) == {"index.html", "01_one.html", "deep.html"}, "pages lie side by side"
    for text in pages.values():
        assert not re.findall(r"<script|(?:src|href)=\"(?:https?:)?//|@import|url\(", text)
        for link in re.findall(r'(?:href|src)="(?!data:)([^"#]+)', text):
            assert (out / link).exists(), link
    index, one, deep = (pages[f"{name}.html"] for name in ("index", "01_one", "deep"))
    for link in ("01_one.html#First", "deep.html", "../../log.txt"):
        assert f'href="{link}"' in index
    assert "unseen" not in index
    assert re.search(r"<table>.*01_one\.html.*passed", index, re.S)
    assert "#|" not in one and "celltag_exported" in one
    assert re.search(r"<details><summary>.*answer.*</details>", one, re.S)
    assert 'href="01_one.html"' in deep and 'href="../../log.txt"' in deep
    assert 'src="data:image/png;base64,iVBORw==' in deep
    assert {p.name for p in out.glob("*.ipynb")} == {"index.ipynb", "01_one.ipynb", "deep.ipynb"}


def test_previous_and_next_follow_the_reading_order(passed):
    one = (passed[0].parent / "_build/course/01_one.html").read_text()
    nav = one.partition("<nav>")[2].partition("</nav>")[0]
    assert re.findall(r'href="(.*?)"', nav) == ["index.html", "index.html", "deep.html"]


def test_some_notebooks_only_and_a_folder_of_digits(tmp_path):
    nbs = write(tmp_path / "nbs", GOOD)
    done = course(nbs, "--source", tmp_path, "01_one", "reference/deep.ipynb")
    assert done.returncode == 0 and list(rows(done.stdout)) == ["01_one", "deep", "2"]
    executed = nbformat.read(nbs.parent / "_build/course/01_one.ipynb", 4)
    assert str(tmp_path) in executed.cells[4].outputs[0].text


def test_an_edit_during_the_run_is_not_overwritten(tmp_path):
    edit = (
        "import pathlib, re\np = pathlib.Path('a.ipynb')\n"
        "p.write_text(p.read_text().replace('# A', '# Edited'))"
    )
    nbs = write(tmp_path / "nbs", {"a": [md("# A"), code(edit)]})
    done = course(nbs, "--save")
    assert done.returncode == 1 and "edited during the run: a.ipynb" in done.stdout
    assert nbformat.read(nbs / "a.ipynb", 4).cells[0].source == "# Edited"


def test_only_a_folder_of_its_own_is_deleted(tmp_path):
    nbs = write(tmp_path / "nbs", {"a": [md("# A")]})
    out = tmp_path / "out"
    out.mkdir()
    words = ["--nbs", str(nbs), "--out", str(out)]

    def result():
        with pytest.raises(SystemExit) as stop:
            main(words)
        return stop.value.code

    assert result() == 0, "an empty folder may be used"
    assert (out / MARKER).is_file() and (out / "a.html").is_file()
    (out / "left.html").touch()
    assert result() == 0 and not (out / "left.html").exists(), "its own folder begins anew"
    (out / MARKER).unlink()
    (out / "mine.txt").write_text("dear to me")
    before = contents(out)
    assert "expected" in result() and contents(out) == before


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--source", "nowhere"], "'nowhere' is neither 'embedded' nor 'mnist' nor a folder"),
        (["07_none"], "no such notebook"),
        ([], "there are no notebooks"),
    ],
)
def test_wrong_words_get_a_sentence(tmp_path, capsys, words, sentence):
    nbs = write(tmp_path / "nbs", {"a": [md("# A")]} if words else {})
    with pytest.raises(SystemExit) as stop:
        main(["--nbs", str(nbs), "--out", str(tmp_path / "out"), *words])
    assert stop.value.code and sentence in str(stop.value.code) + capsys.readouterr().err
