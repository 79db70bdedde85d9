"""What a saved output keeps: tables, pictures and text.

Streams are joined by nbconvert. What it has no preprocessor for is here: progress bars, the plain
twin of an HTML table, displays that show nothing, and the traceback of an error that is meant.
"""

import base64
import io
import re

from bs4 import BeautifulSoup
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from PIL import Image

WIDGET = "application/vnd.jupyter.widget-view+json"

_bar = re.compile(r"\d+%\|.*\||\d+it \[.*\]")
_progress = re.compile(r"<progress[^>]*>\s*</progress>[^<]*")
_count = re.compile(r"\bCell In\[\d+\]")
_folder = re.compile(r"(?<=^File ).*/(?:site-packages/|lib/python3\.\d+/|(?=multilabel_mnist/))")
_number = re.compile(r"-|[-+]?[\d.,:]+ ?%?")
_nothing = re.compile(r"<style.*?</style>|<!--.*?-->|</?div[^>]*>|\s+", re.S)


def _without_bars(text):
    """Return the text of a stream without progress bars and leftover carriage returns."""
    lines = [line for line in text.replace("\r", "").split("\n") if not _bar.search(line)]
    return "\n".join(lines)


def _with_palette(png):
    """Return a PNG (base64) with a palette of 256 colors, which a figure needs no more than.

    It takes less than half of the bytes. A picture with transparent pixels stays as it is.
    """
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.convert("RGBA").getextrema()[3][0] < 255:
        return png
    file = io.BytesIO()
    palette = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    palette.save(file, "PNG", optimize=True)
    smaller = base64.b64encode(file.getvalue()).decode() + "\n"
    return min(png, smaller, key=len)


def _cell_text(cell):
    return cell.get_text(" ", strip=True).replace("|", "\\|").replace("<", "&lt;")


def _alignment(column):
    """Return the rule below a column: numbers stand at the right."""
    return "---:" if column and all(_number.fullmatch(cell) for cell in column) else "---"


def markdown_table(html):
    """Return the first table of some HTML as a markdown table, or None if there is none."""
    found = BeautifulSoup(html, "html.parser").find("table")
    if found is None or not found.find("tr"):
        return None
    rows = [[_cell_text(cell) for cell in tr.find_all(["th", "td"])] for tr in found.find_all("tr")]
    n_head = max(len(found.select("thead tr")), 1)  # pandas gives a named index its own line
    head = [" ".join(filter(None, names)) for names in zip(*rows[:n_head], strict=False)]
    body = rows[n_head:]
    columns = list(zip(*body, strict=False)) or [()] * len(head)
    rule = [_alignment(column) for column in columns]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def _data(data):
    """Return a display's data without bars; a table has a twin in text. Empty: nothing to show."""
    if WIDGET in data:
        return {}
    if "image/png" in data:
        data = data | {"image/png": _with_palette(data["image/png"])}
    if "text/html" not in data:
        return data
    html = _progress.sub("", data["text/html"])
    if not _nothing.sub("", html):
        return {}
    kept = {kind: value for kind, value in data.items() if kind != "text/markdown"}
    if kept.get("text/plain", "").startswith("<"):
        del kept["text/plain"]
    if "text/plain" not in kept and (table := markdown_table(html)):
        kept["text/plain"] = table
    return kept | {"text/html": html}


def _traceback(frames):
    """Return a traceback without what belongs to one run or machine: counts, colors, folders.

    A frame outside the notebook keeps its first line, which names the file and the function.
    """
    kept = []
    for frame in frames:
        text = _count.sub("Cell", strip_ansi(frame))
        if text.startswith("File "):
            text = _folder.sub("", text.partition("\n")[0])
        kept.append(text)
    return kept


def _tidy_output(out, meant):
    """Tidy one output in place, an error only if it is meant; return False if nothing is left."""
    if out.output_type == "error" and meant:
        out.traceback = _traceback(out.traceback)
    if out.output_type == "stream":
        out.text = _without_bars(out.text)
        return bool(out.text.strip())
    if out.output_type in ("display_data", "execute_result"):
        out.data = type(out.data)(_data(out.data))
        sizes = {kind: size for kind, size in out.metadata.items() if kind in out.data}
        out.metadata = type(out.metadata)(sizes)
        return bool(out.data)
    return True


def tidy(nb):
    """Tidy all outputs of `nb` in place and return it."""
    nb.metadata.pop("widgets", None)  # the state of widgets, whose displays are dropped
    # Joined twice: first so that a bar is seen whole, then because what was dropped stood between.
    join = CoalesceStreamsPreprocessor()
    join.preprocess(nb, {})
    for cell in nb.cells:
        if cell.cell_type == "code":
            meant = "raises-exception" in cell.metadata.get("tags", [])
            cell.outputs = [out for out in cell.outputs if _tidy_output(out, meant)]
    join.preprocess(nb, {})
    return nb
