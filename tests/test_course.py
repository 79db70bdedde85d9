"""`make course` and `make save`, tried on a handful of made-up notebooks, some of which fail."""

import base64
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_markdown_cell as md
from nbformat.v4 import new_notebook

from conftest import ROOT, run
from tools.course import MARKER, main

SOLUTION = {"jupyter": {"source_hidden": True}, "tags": ["solution"]}
PLOT = (
    "#| alt: A line that rises.\n#| echo: false\nfrom matplotlib.pyplot import plot\nplot([1, 2]);"
)
GOOD = {
    "index": [
        md(
            "# Start\n\nThen [one](01_one.ipynb#The-First), [the deep](reference/deep.ipynb) "
            "and the [log](../log.txt) with its [notes](../notes.md)."
        ),
        code("#| hide\nprint('unseen')"),
        code("1 + 1"),
    ],
    "01_one": [
        md(
            "# One\n\n## The First\n\n<details><summary>Why?</summary>\n\nSo.\n\n</details>\n\n"
            "| a | b |\n|---|---|\n| 1 | 2 |"
        ),
        code("#| export\ndef f(x): return x"),
        code("assert f(1) == 1"),
        code("#| code-fold: true\nanswer = 42", metadata=SOLUTION),
        code(
            "import os, sys\nprint(os.environ['MULTILABEL_MNIST_SOURCE'])\n"
            "print('\\r 10%|.   |\\r100%|....|', file=sys.stderr)"
        ),
        code(
            "from fastcore.test import *\ntest_eq(answer, 42)\n"
            "with expect_fail(ZeroDivisionError): 1/0"
        ),
        code("1 / 0", metadata={"tags": ["raises-exception"]}),
        code("#| output: false\nprint('not' + 'shown')"),
    ],
    "reference/deep": [
        md("# Deep\n\n[up](../01_one.ipynb) [log](../../log.txt) ![dot](dot.png)"),
        code(PLOT),
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
NEIGHBORS = [("left", "prev"), ("right", "next")]
KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "any"}}


def write(folder, notebooks):
    """Write made-up notebooks into `folder`, with a file above it and a picture below."""
    folder.mkdir(parents=True)
    (folder.parent / "log.txt").touch()
    (folder.parent / "notes.md").touch()
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
    inline = "module://matplotlib_inline.backend_inline"
    return run(*command, *words, cwd=ROOT, MPLBACKEND=inline, **extra)


def rows(text):
    """The closing table as {notebook: the rest of its row}."""
    table = text.strip().rpartition("\n\n")[2].splitlines()
    assert table[0].split() == ["notebook", "seconds"], text
    return {line.split()[0]: " ".join(line.split()[1:]) for line in table[1:]}


def png_width(text):
    return int.from_bytes(base64.b64decode(text)[16:20])


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
    one = nbformat.read(nbs / "01_one.ipynb", 4)
    kept = [c.metadata for c in one.cells if c.metadata]
    assert kept == [SOLUTION, {"tags": ["raises-exception"]}]
    files = {p.relative_to(nbs).as_posix() for p in contents(nbs)}
    assert files == {f"{name}.ipynb" for name in GOOD} | {"reference/dot.png"}


def test_a_notebook_in_a_folder_runs_there_and_is_saved_there(passed):
    nbs, _ = passed
    (output,) = nbformat.read(nbs / "reference/deep.ipynb", 4).cells[2].outputs
    assert output.text == "reference\n"
    (figure,) = nbformat.read(nbs / "reference/deep.ipynb", 4).cells[1].outputs
    assert figure.metadata["image/png"].width * 2 == png_width(figure.data["image/png"])


@pytest.fixture(scope="module")
def pages(passed):
    out = passed[0].parent / "_build/course"
    return {p.relative_to(out).as_posix(): soup(p) for p in out.rglob("*.html")}


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def links(tag):
    return [a["href"] for a in tag.find_all("a", href=True)]


def test_each_notebook_has_a_page(pages):
    notebooks = {f"{name}.html" for name in GOOD}
    assert set(pages) == notebooks | {"this_run.html", "search.html"}


def test_links_and_pictures_lead_somewhere(passed, pages):
    out = passed[0].parent / "_build/course"
    for name, page in pages.items():
        for tag in page.find_all(href=True) + page.find_all(src=True):
            link = re.sub(r"[?#].*", "", tag.get("href") or tag["src"])
            there = re.match(r"(https?|data):", link) or (out / name).parent.joinpath(link).exists()
            assert there, f"{name}: {tag}"
    index = links(pages["index.html"].article)
    assert "01_one.html#the-first" in index and "reference/deep.html" in index
    assert [link.split("/")[-1] for link in index[-2:]] == ["log.txt", "notes.md"]
    assert pages["01_one.html"].find(id="the-first").h2.find("a", class_="headerlink")
    deep = pages["reference/deep.html"].article
    assert "../01_one.html" in links(deep)
    assert [img["alt"] for img in deep.find_all("img")] == ["dot", "A line that rises."]


def test_nothing_comes_from_the_network(passed, pages):
    for name, page in pages.items():
        loaded = page.find_all(src=True) + page.find_all("link", href=True)
        far = [t for t in loaded if re.match(r"(https?:)?//", t.get("src") or t["href"])]
        assert loaded and not far, name
    for path in (passed[0].parent / "_build/course").rglob("*.css"):
        found = re.findall(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")
        )
        assert not found, path.name


def test_directives_are_obeyed_on_a_page(pages):
    index, one, deep = (pages[f"{name}.html"].article for name in GOOD)
    assert "unseen" not in index.text
    assert "#|" not in one.text
    assert one.find(class_="tag_exported").text.strip() == "def f(x): return x"
    fold = one.find("details", class_="hide")
    assert "Solution" in fold.summary.text and "answer = 42" in fold.text
    assert not fold.has_attr("open")
    assert "ZeroDivisionError: division by zero" in one.text
    assert "notshown" not in one.text
    assert "matplotlib" not in deep.text and deep.find("img", alt="A line that rises.")


def test_markup_of_a_page(pages):
    one = pages["01_one.html"]
    assert one.article.details.summary.text == "Why?" and one.article.details.p.text == "So."
    assert one.article.table.parent["class"] == ["pst-scrollable-table-container"]
    assert one.find(class_="bd-toc").find("a", href="#the-first")
    assert one.find(class_="theme-switch") and one.find(class_="search-button")
    assert one.html["lang"] == "en" and one.find("meta", attrs={"name": "viewport"})
    scripts = {tag.get("src", "").split("?")[0] for tag in one.find_all("script")}
    assert {"_static/clipboard.min.js", "_static/course.js"} <= scripts


def test_code_that_scrolls_is_reached_by_the_keyboard(passed):
    """The theme's script gives such code a tabindex when it knows how wide the window is."""
    scripts = passed[0].parent / "_build/course/_static/scripts"
    text = (scripts / "pydata-sphinx-theme.js").read_text(encoding="utf-8")
    assert re.search(r"tabIndex=\w+\.scrollWidth>\w+\.clientWidth", text)


def test_the_search_knows_the_text(passed):
    words = (passed[0].parent / "_build/course/searchindex.js").read_text(encoding="utf-8")
    assert "answer" in words and "deep" in words


def test_the_sidebar_has_all_chapters_in_parts(pages):
    for page in pages.values():
        sidebar = page.find("nav", class_="bd-links")
        parts = [p.text for p in sidebar.find_all("p", class_="caption")]
        assert parts == ["Others", "Appendix"]
        chapters = [a.text.strip() for a in sidebar.find_all("a")]
        assert chapters == ["One", "Deep", "This run"]


def test_previous_and_next_follow_the_reading_order(pages):
    one = pages["01_one.html"]
    neighbors = [one.find(class_=f"{side}-{way}")["href"] for side, way in NEIGHBORS]
    assert neighbors == ["index.html", "reference/deep.html"]


def test_the_run_has_a_page(passed, failed, pages):
    rows = [[td.text for td in tr("td")] for tr in pages["this_run.html"].table.tbody("tr")]
    assert [(name, outcome) for name, _, outcome in rows] == [
        *(("Start", "passed"), ("One", "passed"), ("Deep", "passed"))
    ]
    assert all(float(seconds) > 0 for _, seconds, _ in rows)
    page = soup(failed[0].parent / "_build/course/this_run.html")
    text = " ".join(page.table.text.split())
    assert 'FAILED under "Where it breaks": AssertionError: x is one' in text


def test_a_failed_notebook_has_a_page_as_far_as_it_went(failed):
    out = failed[0].parent / "_build/course"
    bad = soup(out / "02_bad.html").article.text
    assert "AssertionError: x is one" in bad and "print('never')" in bad
    assert "Last" in soup(out / "04_last.html").h1.text


def test_notebooks_run_side_by_side_and_are_told_in_reading_order(tmp_path):
    """Each of two notebooks waits for the other's file."""
    wait = (
        "import pathlib, time\npathlib.Path('../{own}').touch()\nend = time.time() + 120\n"
        "while not pathlib.Path('../{other}').exists():\n    assert time.time() < end\n"
        "    time.sleep(0.05)"
    )
    first = [md("# A"), code(wait.format(own="a", other="b")), code("time.sleep(1)")]
    second = [md("# B"), code(wait.format(own="b", other="a"))]
    nbs = write(tmp_path / "nbs", {"a": first, "b": second})
    done = course(nbs, "--jobs", "2")
    assert done.returncode == 0, done.stdout
    assert list(rows(done.stdout)) == ["a", "b", "2"]


def test_threads_are_shared_out_but_for_a_number_of_your_own(tmp_path):
    ask = "import os\nprint(os.environ['OMP_NUM_THREADS'])"
    nbs = write(tmp_path / "nbs", {"a": [md("# A"), code(ask)]})

    def threads(jobs, **extra):
        course(nbs, "--jobs", jobs, **extra)
        executed = nbformat.read(nbs.parent / "_build/course/a.ipynb", 4)
        return executed.cells[1].outputs[0].text.strip()

    env = {name: os.environ.pop(name) for name in ["OMP_NUM_THREADS"] if name in os.environ}
    try:
        assert threads(str(os.cpu_count())) == "1"
        assert threads("1") == str(os.cpu_count())
    finally:
        os.environ.update(env)
    assert threads("1", OMP_NUM_THREADS="3") == "3"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to send Ctrl-C to")
def test_ctrl_c_ends_the_run_and_its_kernels(tmp_path):
    slow = (
        "import os, pathlib, time\n"
        "pathlib.Path('../new').write_text(str(os.getpid()))\n"
        "os.rename('../new', '../pid')\n"
        f"time.sleep({10**6})"
    )
    nbs = write(tmp_path / "nbs", {"a": [md("# A"), code(slow)]})
    command = [sys.executable, "-m", "tools.course", "--nbs", nbs, "--out", tmp_path / "out"]
    job = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
    while not (tmp_path / "pid").exists():
        assert job.poll() is None
        time.sleep(0.1)
    os.killpg(job.pid, signal.SIGINT)
    error = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 1 and error.endswith("stopped\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), 0)


def test_some_notebooks_only_and_a_folder_of_digits(tmp_path):
    nbs = write(tmp_path / "nbs", GOOD)
    done = course(nbs, "--source", tmp_path, "01_one", "reference/deep.ipynb")
    assert done.returncode == 0 and list(rows(done.stdout)) == ["01_one", "deep", "2"]
    executed = nbformat.read(nbs.parent / "_build/course/01_one.ipynb", 4)
    assert str(tmp_path) in executed.cells[4].outputs[0].text
    assert soup(nbs.parent / "_build/course/index.html").h1, "the others are shown as saved"


def test_pages_without_a_run(tmp_path):
    nbs = write(tmp_path / "nbs", {"a": [md("# A\n\n[lost](gone.ipynb)"), code("1 + 1")]})
    done = course(nbs, "--no-run")
    out = tmp_path / "_build/course"
    assert done.returncode == 0 and (out / "a.html").exists()
    assert not (out / "this_run.html").exists()
    assert "a.ipynb" in done.stdout and "gone.ipynb" in done.stdout, "it says which link is lost"
    assert "a.html" in links(soup(out / "index.html")), "a start page is made up"


def test_an_edit_during_the_run_is_not_overwritten(tmp_path):
    edit = (
        "import pathlib, re\np = pathlib.Path('a.ipynb')\n"
        "p.write_text(p.read_text().replace('# A', '# Edited'))"
    )
    nbs = write(tmp_path / "nbs", {"a": [md("# A"), code(edit)]})
    done = course(nbs, "--save")
    assert done.returncode == 1 and "edited during the run: a.ipynb" in done.stdout
    assert nbformat.read(nbs / "a.ipynb", 4).cells[0].source == "# Edited"


@pytest.mark.filterwarnings("ignore:.* is deprecated. Check CHANGES for Sphinx")
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
    (out / "mine.txt").write_text("dear to me", encoding="utf-8")
    before = contents(out)
    assert "expected" in result() and contents(out) == before


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--source", "nowhere"], "'nowhere' is neither 'embedded' nor 'mnist' nor a folder"),
        (["07_none"], "no such notebook"),
        (["--jobs", "0"], "expected --jobs of 1 or more, got 0"),
        ([], "there are no notebooks"),
    ],
)
def test_wrong_words_get_a_sentence(tmp_path, capsys, words, sentence):
    nbs = write(tmp_path / "nbs", {"a": [md("# A")]} if words else {})
    with pytest.raises(SystemExit) as stop:
        main(["--nbs", str(nbs), "--out", str(tmp_path / "out"), *words])
    assert stop.value.code and sentence in str(stop.value.code) + capsys.readouterr().err
