"""Notebooks as pages for a browser, made by Sphinx, which need no network."""

import shutil
import tempfile
from io import StringIO
from pathlib import Path

import nbformat
from nbconvert.filters import strip_ansi
from nbformat.v4 import new_markdown_cell, new_notebook
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from .files import write_whole
from .notebooks import parts, reader_view, reading_order

CONF = Path(__file__).parent / "page"  # the folder of conf.py
INDEX = Path("index.ipynb")
THIS_RUN = Path("this_run.ipynb")  # the page with the table of the run


def page(text):
    """Return a notebook that holds one cell of markdown."""
    return new_notebook(cells=[new_markdown_cell(text)])


def contents(nbs, runs):
    """Return the table of contents, which Sphinx shows in the sidebar, as markdown."""
    listed = {part: [path.relative_to(nbs) for path in paths] for part, paths in parts(nbs).items()}
    if runs:
        listed.setdefault("Appendix", []).append(THIS_RUN)
    text = ""
    for part, names in listed.items():
        lines = [f"{name}\n" for name in names if name != INDEX]
        text += f"```{{toctree}}\n:hidden:\n:caption: {part}\n\n{''.join(lines)}```\n\n"
    return text


def table_of_the_run(nbs, runs, source):
    """Return a table that says how each notebook went, as markdown."""
    table = f"# This run\n\nData: `{source}`.\n\n| notebook | seconds | outcome |\n|---|---:|---|\n"
    for run in runs:
        outcome = run.verdict.replace("|", r"\|")
        if run.failure:
            outcome = f"`` {outcome} ``"
        table += f"| [](<{run.path.relative_to(nbs)}>) | {run.seconds:.1f} | {outcome} |\n"
    return table


def sources(nbs, runs, source):
    """Return what Sphinx reads, as {path below `nbs`: notebook}."""
    executed = {run.path: run.nb for run in runs}
    found = {}
    for path in reading_order(nbs):
        nb = executed.get(path) or nbformat.read(path, 4)
        found[path.relative_to(nbs)] = reader_view(nb)
    index = found.setdefault(INDEX, page("# The course"))
    index.cells.append(new_markdown_cell(contents(nbs, runs)))
    if runs:
        found[THIS_RUN] = page(table_of_the_run(nbs, runs, source))
    return found


def build(nbs, out, runs=(), source=""):
    """Make the pages of all notebooks in `nbs`, and return Sphinx's warnings.

    A notebook that is not among `runs` is shown with its saved outputs.
    """
    warnings = StringIO()
    with tempfile.TemporaryDirectory(prefix="pages") as name:
        top = Path(name).resolve()
        folder = top / "tree" / nbs.name
        # What notebooks link to and show is found where it is beside them, and above.
        shutil.copytree(nbs, folder, ignore=shutil.ignore_patterns("*.ipynb", ".*", "_*"))
        for path in nbs.parent.iterdir():
            if path != nbs:
                (folder.parent / path.name).symlink_to(path)
        for path, nb in sources(nbs, runs, source).items():
            nbformat.write(nb, folder / path)
        with patch_docutils(CONF), docutils_namespace():
            html, doctrees = top / "html", top / "doctrees"
            Sphinx(folder, CONF, html, doctrees, "html", status=None, warning=warnings).build()
        left = shutil.ignore_patterns(".*", "*macros.html")  # Sphinx's notes, the theme's templates
        shutil.copytree(html, out, dirs_exist_ok=True, ignore=left)
    for page in nbs.glob("*.html"):  # beside notebooks it links to notebooks, beside pages to pages
        text = page.read_text(encoding="utf-8").replace('.ipynb"', '.html"')
        write_whole(out / page.name, text)
    lines = strip_ansi(warnings.getvalue()).splitlines()
    return [line.replace(f"{folder}/", "") for line in lines if line.strip()]
