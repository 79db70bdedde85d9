"""What a saved output keeps: tables, pictures and text; no progress bars, no twins, no counts, nothing empty."""
import re

_bar = re.compile(r"\d+%\|.*\||\d+it \[.*\]")
_progress = re.compile(r"<progress[^>]*>\s*</progress>[^<]*")
_nothing = re.compile(r"<style.*?</style>|<!--.*?-->|</?div[^>]*>|\s+", re.S)


def _lines(text):
    """Text as a terminal would leave it: each line after its last carriage return, progress bars dropped."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(last for line in lines if not _bar.search(last := line.rsplit("\r", 1)[-1]))


def _data(data):
    """A display's data without bars and twins; empty when nothing is left to show."""
    if "application/vnd.jupyter.widget-view+json" in data:
        return {}
    if "text/html" not in data:
        return data
    html = _progress.sub("", data["text/html"])
    if not _nothing.sub("", html):
        return {}
    twin = ["text/markdown"] + ["text/plain"] * data.get("text/plain", "").startswith("<")
    return {k: v for k, v in data.items() if k not in twin} | {"text/html": html}


def tidy(nb):
    """Tidies all outputs of `nb` in place and returns it."""
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.execution_count, kept = None, []
        for out in cell.outputs:
            if out.output_type == "stream":
                if kept and kept[-1].output_type == "stream" and kept[-1].name == out.name:
                    kept[-1].text += out.text
                    continue
            elif out.output_type in ("display_data", "execute_result"):
                out.data, out.metadata = type(out.data)(_data(out.data)), type(out.metadata)()
                if not out.data:
                    continue
                if "execution_count" in out:
                    out.execution_count = None
            kept.append(out)
        for out in kept:
            if out.output_type == "stream":
                out.text = _lines(out.text)
        cell.outputs = [o for o in kept if o.output_type != "stream" or o.text.strip()]
    return nb
