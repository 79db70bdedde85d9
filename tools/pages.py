"""Executed notebooks as plain HTML pages that need neither scripts nor a network."""
import base64
import mimetypes
import os
import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from .notebooks import reader_view, title

HERE = Path(__file__).parent
_link = re.compile(r'((?:href|src)=")(?![a-zA-Z][\w+.-]*:|[/#])([^"#]*)(#[^"]*)?(?=")')


def css():
    return (HERE / "page/style.css").read_text(encoding="utf-8") + HtmlFormatter(style="default").get_style_defs(".highlight")


def relink(html, names, nbs, out):
    """Links between notebooks become links between pages, local pictures part of the page; other files are still found."""
    def one(m):
        attribute, target, anchor = m[1], unquote(m[2]), m[3] or ""
        stem, kind = os.path.splitext(target.removeprefix("./"))
        if kind in (".ipynb", ".html") and stem in names:
            return f"{attribute}{stem}.html{anchor}"
        if attribute.startswith("src") and (nbs / target).is_file():
            data = base64.b64encode((nbs / target).read_bytes()).decode()
            return f"{attribute}data:{mimetypes.guess_type(target)[0]};base64,{data}"
        return attribute + Path(os.path.relpath(nbs / target, out)).as_posix() + anchor
    return _link.sub(one, html)


class Pages:
    """Writes the pages of one run, whose notebooks are `paths`, into the folder `out`."""

    def __init__(self, paths, out):
        self.out, self.nbs = Path(out).resolve(), Path(paths[0]).resolve().parent
        self.names = [p.stem for p in paths]
        self.titles = {p.stem: title(nbformat.read(p, 4), p.stem) for p in paths}
        self.exporter = HTMLExporter(
            template_name="page", extra_template_basedirs=[str(HERE)],
            exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True)

    def _neighbour(self, name, step):
        at = self.names.index(name) + step if name in self.names else -1
        if 0 <= at < len(self.names):
            return {"link": self.names[at] + ".html", "title": self.titles[self.names[at]]}

    def write(self, name, nb, runs=(), source=""):
        """Writes one page; `runs` is the table that the index page shows."""
        page = dict(title=self.titles.get(name, "The course"), css=css(), runs=runs, source=source,
                    before=self._neighbour(name, -1), after=self._neighbour(name, 1))
        resources = {"page": page, "metadata": {"name": name, "path": str(self.nbs)}}
        body, _ = self.exporter.from_notebook_node(reader_view(nb), resources=resources)
        head, tag, rest = body.partition("<body>")  # the head's style has no links
        (self.out / f"{name}.html").write_text(head + tag + relink(rest, self.names + ["index"], self.nbs, self.out), encoding="utf-8")

    def write_index(self, nb, runs, source):
        """The first page: the index notebook where there is one, then the table of the run, in reading order."""
        self.write("index", nb or nbformat.v4.new_notebook(), runs, source)
