"""Makes README.md, and its pictures in nbs/images, from nbs/index.ipynb: `python -m tools.readme`."""
import base64
import posixpath
import re

import nbformat
from bs4 import BeautifulSoup
from nbconvert import MarkdownExporter

from .notebooks import NBS, ROOT, heading_above, reader_view

PICTURES = "images"  # beside the notebooks, which may use it too
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`; edit that notebook. -->\n"

_code = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.M | re.S)
_target = re.compile(r"""(\]\(|(?:href|src)=")(?![a-zA-Z][\w+.-]*:|/)([^)\s"]+)""")
_ansi = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def relink(text, folder="nbs"):
    """Relative links of a markdown text that lay in `folder`, as seen from the folder above; code is left alone."""
    def one(m):
        path, mark, anchor = m[2].partition("#")
        if not path:
            return m[1] + mark + anchor.lower()  # GitHub's anchors are in small letters
        return m[1] + posixpath.normpath(posixpath.join(folder, path)) + mark + anchor
    parts = _code.split(text)
    return "".join(part if i % 2 else _target.sub(one, part) for i, part in enumerate(parts))


def markdown_table(html):
    """The first table of some HTML as a markdown table, or None where there is none."""
    found = BeautifulSoup(html, "html.parser").find("table")
    rows = found and [[cell.get_text(" ", strip=True).replace("|", "\\|").replace("<", "&lt;") for cell in tr.find_all(["th", "td"])]
                      for tr in found.find_all("tr")]
    if not rows:
        return None
    top = max(len(found.select("thead tr")), 1)  # pandas gives a named index a line of its own
    head = [" ".join(filter(None, names)) for names in zip(*rows[:top])]
    numbers = [all(re.fullmatch(r"-|[-+]?[\d.,:]+ ?%?", cell) for cell in column) for column in zip(*rows[top:])] or [False] * len(head)
    rule = ["---:" if n else "---" for n in numbers]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows[top:]])


def fence(text):
    return f"```text\n{_ansi.sub('', text).rstrip()}\n```"


def as_markdown(output, picture):
    """One output as markdown text; `picture` takes PNG bytes and returns a link to them."""
    if output.output_type == "stream":
        return fence(output.text)
    if output.output_type == "error":
        raise ValueError(f"the index has an error among its outputs: {output.ename}: {output.evalue}")
    data = output.data
    if "image/png" in data:
        return picture(base64.b64decode(data["image/png"]))
    if table := markdown_table(data.get("text/html", "")):
        return table
    if "text/markdown" in data:
        return relink(data["text/markdown"])
    if "text/plain" in data:
        return fence(data["text/plain"])
    raise ValueError(f"no way to show {', '.join(data)} in a README; print text, or show a table or a PNG picture")


def render(path=NBS / "index.ipynb"):
    """The README's text, and its pictures as {path from the root: bytes}."""
    nb, pictures = reader_view(nbformat.read(path, 4)), {}
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source)
            continue

        def picture(data):
            name = f"nbs/{PICTURES}/index_{len(pictures) + 1}.png"
            pictures[name] = data
            return f"![{heading_above(nb, i)}]({name})"

        texts = [as_markdown(o, picture) for o in cell.get("outputs", [])]
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/markdown": t}) for t in texts]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
    text = "".join(part if i % 2 else re.sub(r"\n\s*\n+", "\n\n", part) for i, part in enumerate(parts))
    return NOTE + "\n" + text.strip() + "\n", pictures


def main(root=ROOT):
    """Writes README.md and its pictures, and removes pictures that it no longer shows."""
    text, pictures = render(root / "nbs/index.ipynb")
    folder = root / "nbs" / PICTURES
    for old in folder.glob("index_*.png"):
        if f"nbs/{PICTURES}/{old.name}" not in pictures:
            old.unlink()
    for name, data in pictures.items():
        folder.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    (root / "README.md").write_text(text, encoding="utf-8")
    print(f"README.md: {len(text.splitlines())} lines, {len(pictures)} pictures")


if __name__ == "__main__":
    main()
