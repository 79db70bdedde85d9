"""Every relative link leads somewhere, and every make target that is talked about exists."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from conftest import NOTEBOOKS, ROOT
from tools.notebooks import anchor as jupyter_anchor
from tools.notebooks import headings
from tools.pages import build

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "examples/README.md",
]
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.M | re.S)
LINK = re.compile(r"""(?:\]\(|(?:href|src)=["'])(?![a-zA-Z][\w+.-]*:)([^)\s"']+)""")


def markdown(path):
    """The markdown of a page or of a notebook."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")


def anchors(path):
    """The anchors of a page as GitHub makes them, of a notebook as Jupyter makes them."""
    plain = [re.sub(r"[`*]|\]\(.*?\)|\[", "", h) for h in headings(markdown(path))]
    if path.suffix == ".ipynb":
        return {jupyter_anchor(h) for h in plain}
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in plain}


def dead(path, text):
    """The relative links in `text`, which stands in `path`, that lead nowhere."""
    for link in LINK.findall(CODE.sub("", text)):
        target, _, anchor = unquote(link).partition("#")
        there = (path.parent / target).resolve() if target else path
        if not there.is_relative_to(ROOT) or not there.exists() or ignored(there):
            yield link
        elif anchor and there.suffix in (".md", ".ipynb") and anchor not in anchors(there):
            yield link


def ignored(path):
    """Would git leave this file out?"""
    done = subprocess.run(["git", "check-ignore", "-q", str(path)], cwd=ROOT, capture_output=True)
    return done.returncode == 0


@pytest.mark.parametrize("page", PAGES)
def test_links_of_pages(page):
    lost = list(dead(ROOT / page, markdown(ROOT / page)))
    assert not lost, f"{page} links to what is not there: {lost}"


def test_readme_links_every_notebook():
    found = set(LINK.findall(markdown(ROOT / "README.md")))
    wanted = [p.relative_to(ROOT).as_posix() for p in NOTEBOOKS if p.stem != "index"]
    unlinked = [link for link in wanted if link not in found]
    assert wanted and not unlinked, f"README.md does not link {unlinked}"


def test_links_of_notebooks(notebook):
    lost = list(dead(notebook, markdown(notebook)))
    assert not lost, f"{notebook.name} links to what is not there: {lost}"


@pytest.mark.filterwarnings("ignore:.* is deprecated. Check CHANGES for Sphinx")
def test_pages_are_made_without_a_warning(tmp_path):
    """Among what Sphinx warns of are links that lead nowhere, and headings that skip a level."""
    assert not build(ROOT / "nbs", tmp_path)
    assert (tmp_path / "index.html").exists()
    links = re.findall('href="([^"]+)"', (tmp_path / "draw.html").read_text(encoding="utf-8"))
    assert "06_compose.html" in links
    assert all((tmp_path / link).exists() for link in links)


def test_formulas_are_written_as_code(notebook):
    """The pages have no renderer for TeX, which would have to come from the network."""
    found = re.findall(r"\$[^$\n]+\$|\\\(.+?\\\)", CODE.sub("", markdown(notebook)))
    assert not found, f"write as code: {found}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    calls = re.compile(r"(?:^|[`$;&]\s*)make(?: \w+=\S*)* ([a-z]+)", re.M)
    code = "\n".join(CODE.findall(markdown(ROOT / page)))
    named = set(calls.findall(code))
    assert named <= targets, f"no such target: {sorted(named - targets)}"


def test_dead_links_are_seen(tmp_path):
    page = ROOT / "CONTRIBUTING.md"
    text = (
        "[a](nbs/none.ipynb) [b](LICENSE) ![c](nowhere.png) `[d](x)` [e](https://example.org) "
        "<img src='no.svg'> [f](CHANGELOG.md#nothing) [g](CHANGELOG.md#changes)"
    )
    lost = ["nbs/none.ipynb", "nowhere.png", "no.svg", "CHANGELOG.md#nothing"]
    assert list(dead(page, text)) == lost
    assert list(dead(page, f"[x]({Path('..') / 'outside'})")) == ["../outside"]


def test_links_cross_folders():
    """A link holds as seen from the folder in which its notebook is."""
    chapter = ROOT / "nbs/reference/chapter.ipynb"
    text = "[a](../index.ipynb) [b](index.ipynb) [c](../../LICENSE) [d](../LICENSE)"
    assert list(dead(chapter, text)) == ["index.ipynb", "../LICENSE"]
