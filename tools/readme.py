"""Makes README.md and its pictures in nbs/images from nbs/index.ipynb: `python -m tools.readme`."""

import base64
import posixpath
import re
from functools import partial
from html import escape

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.filters import strip_ansi

from .files import write_whole
from .notebooks import NBS, ROOT, reader_view
from .outputs import markdown_table

PICTURES = "images"  # beside the notebooks, which may use it too
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`; edit that notebook. -->\n"

_fence = re.compile(r"(^```.*?^```$)", re.M | re.S)
_code = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.M | re.S)
_target = re.compile(r"""(\]\(|(?:href|src)=")(?![a-zA-Z][\w+.-]*:|/)([^)\s"]+)""")


def outside(code, edit, text):
    """Return `text`, edited everywhere but where `code`, a pattern in one group, matches."""
    parts = code.split(text)
    parts[::2] = [edit(part) for part in parts[::2]]
    return "".join(parts)


def relink(text, folder="nbs"):
    """Return markdown that lay in `folder` with the links it needs in the folder above."""

    def one(match):
        path, mark, anchor = match[2].partition("#")
        if not path:
            return match[1] + mark + anchor.lower()  # GitHub's anchors are in small letters
        return match[1] + posixpath.normpath(posixpath.join(folder, path)) + mark + anchor

    return outside(_code, lambda part: _target.sub(one, part), text)


def fence(text):
    """Return printed text as a markdown block of code."""
    return f"```text\n{strip_ansi(text).rstrip()}\n```"


def as_markdown(output, picture):
    """Return one output as markdown; `picture` takes PNG bytes and a width, and returns a link."""
    if output.output_type == "stream":
        return fence(output.text)
    if output.output_type == "error":
        return fence("\n".join(output.traceback) or f"{output.ename}: {output.evalue}")
    data = output.data
    if "image/png" in data:
        width = output.metadata.get("image/png", {}).get("width")
        return picture(base64.b64decode(data["image/png"]), width)
    if table := markdown_table(data.get("text/html", "")):
        return table
    if "text/markdown" in data:
        return relink(data["text/markdown"])
    if "text/plain" in data:
        return fence(data["text/plain"])
    raise ValueError(
        f"no way to show {', '.join(data)} in a README; print text, or show a table or a PNG"
    )


def render(path=NBS / "index.ipynb"):
    """Return the README's text, and its pictures as {path from the root: bytes}."""
    nb = reader_view(nbformat.read(path, 4))
    pictures = {}

    def picture(data, width, alt):
        name = f"nbs/{PICTURES}/index_{len(pictures) + 1}.png"
        pictures[name] = data
        if width:
            return f'<img src="{name}" alt="{escape(alt)}" width="{width}">'
        return f"![{alt}]({name})"

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source)
            continue
        alt = cell.metadata["mystnb"]["image"]["alt"]
        texts = [as_markdown(o, partial(picture, alt=alt)) for o in cell.outputs]
        cell.outputs = [
            nbformat.v4.new_output("display_data", {"text/markdown": text}) for text in texts
        ]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = outside(_fence, lambda part: re.sub(r"\n\s*\n+", "\n\n", part), text)
    return NOTE + "\n" + text.strip() + "\n", pictures


def main(root=ROOT):
    """Write README.md and its pictures, then remove pictures that it no longer shows."""
    text, pictures = render(root / "nbs/index.ipynb")
    folder = root / "nbs" / PICTURES
    for name, data in pictures.items():
        folder.mkdir(exist_ok=True)
        write_whole(root / name, data)
    write_whole(root / "README.md", text)
    for old in folder.glob("index_*.png"):
        if f"nbs/{PICTURES}/{old.name}" not in pictures:
            old.unlink()
    print(f"README.md: {len(text.splitlines())} lines, {len(pictures)} pictures")


if __name__ == "__main__":
    main()
