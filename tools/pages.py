"""Executed notebooks as plain HTML pages that need neither scripts nor a network."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from .files import write_whole
from .notebooks import reader_view, title

HERE = Path(__file__).parent
_link = re.compile(r'((?:href|src)=")(?![a-zA-Z][\w+.-]*:|[/#])([^"#]*)(#[^"]*)?(?=")')


def css():
    """Return the style of all pages."""
    own = (HERE / "page/style.css").read_text(encoding="utf-8")
    return own + HtmlFormatter(style="default").get_style_defs(".highlight")


def relink(html, names, folder, out):
    """Return the HTML of a notebook in `folder` with links that hold for a page in `out`.

    A link to a notebook among `names` leads to its page, whichever folder the notebook is in; all
    other files are still found.
    """

    def one(match):
        attribute, target, anchor = match[1], unquote(match[2]), match[3] or ""
        page = Path(target)
        if page.suffix in (".ipynb", ".html") and page.stem in names:
            return f"{attribute}{page.stem}.html{anchor}"
        return attribute + Path(os.path.relpath(folder / target, out)).as_posix() + anchor

    return _link.sub(one, html)


class Pages:
    """Writes the pages of one run, whose notebooks are `paths`, into the folder `out`."""

    def __init__(self, paths, out):
        self.out = Path(out).resolve()
        self.folders = {p.stem: Path(p).resolve().parent for p in paths}
        self.names = list(self.folders)
        self.titles = {p.stem: title(nbformat.read(p, 4), p.stem) for p in paths}
        self.exporter = HTMLExporter(
            template_name="page",
            extra_template_basedirs=[str(HERE)],
            embed_images=True,
            exclude_input_prompt=True,
            exclude_output_prompt=True,
            exclude_anchor_links=True,
        )

    def _neighbor(self, name, step):
        at = self.names.index(name) + step if name in self.names else -1
        if not 0 <= at < len(self.names):
            return None
        neighbor = self.names[at]
        return {"link": f"{neighbor}.html", "title": self.titles[neighbor]}

    def write(self, name, nb, runs=(), source=""):
        """Write one page; `runs` is the table that the index page shows."""
        folder = self.folders.get(name, self.out)
        page = {
            "title": self.titles.get(name, "The course"),
            "css": css(),
            "runs": runs,
            "source": source,
            "before": self._neighbor(name, -1),
            "after": self._neighbor(name, 1),
        }
        resources = {"page": page, "metadata": {"name": name, "path": str(folder)}}
        body, _ = self.exporter.from_notebook_node(reader_view(nb), resources=resources)
        head, tag, rest = body.partition("<body>")  # the head's style has no links
        rest = relink(rest, [*self.names, "index"], folder, self.out)
        write_whole(self.out / f"{name}.html", head + tag + rest)

    def write_index(self, nb, runs, source):
        """Write the first page: the index notebook if there is one, then the table of the run."""
        self.write("index", nb or nbformat.v4.new_notebook(), runs, source)
