"""What is saved in the notebooks: outputs, and nothing that belongs to one machine or one run."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from conftest import ROOT, run, script
from tools.outputs import WIDGET

LARGEST = 400_000  # bytes
FOLDERS = {str(p) for p in (ROOT, Path.home(), Path(tempfile.gettempdir()))}
MACHINE = [re.escape(p) for p in FOLDERS if len(p) > 1]
FORBIDDEN = {
    "an absolute path": "|".join(
        [
            *MACHINE,
            r"site-packages",
            r"(?<![\w.~<:/\\+-])/\w[\w.-]*/\w[\w.-]*/",
            r"(?<![\w.~<:/\\-])/(?:tmp|root|home|Users)\b",
            r"\b[A-Za-z]:\\{1,2}\w",
        ]
    ),
    "a memory address": r"\bat 0x[0-9a-fA-F]{6,}",
    "a carriage return or a terminal's escape": r"[\r\b\x1b]",
    "a progress bar": r"<progress|[█▏▎▍▌▋▊▉]|\d+%\|.*\||\dit/s",
}


def texts(nb):
    """(cell number, text) of each saved output that is text."""
    for i, cell in enumerate(nb.cells):
        for out in cell.get("outputs", []):
            found = [v for kind, v in out.get("data", {}).items() if kind.startswith("text/")]
            if out.output_type == "stream":
                found.append(out.text)
            if out.output_type == "error":
                found += out.traceback
            for text in found:
                yield i, re.sub(r"data:image/[\w+]+;base64,[\w+/=\s]+", "", text)


def unwanted(text):
    """What a saved text holds that it should not, as sentences."""
    found = {what: re.search(pattern, text) for what, pattern in FORBIDDEN.items()}
    return [f"{what}: {match[0]!r}" for what, match in found.items() if match]


def test_outputs_belong_to_no_machine_and_no_run(notebook):
    nb = nbformat.read(notebook, 4)
    found = [f"cell {i} shows {what}" for i, text in texts(nb) for what in unwanted(text)]
    assert not found, found


def unexpected_errors(nb):
    """The errors that are saved in cells which do not say, by a tag, that they show one."""
    for cell in nb.cells:
        if "raises-exception" not in cell.metadata.get("tags", []):
            errors = [o for o in cell.get("outputs", []) if o.output_type == "error"]
            yield from (error.ename for error in errors)


def test_only_a_cell_with_the_tag_may_show_an_error():
    error = new_output("error", ename="E", evalue="v", traceback=[])
    told = new_code_cell(outputs=[error], metadata={"tags": ["raises-exception"]})
    untold = new_code_cell(outputs=[error], metadata={"tags": ["solution"]})
    assert list(unexpected_errors(new_notebook(cells=[told]))) == []
    assert list(unexpected_errors(new_notebook(cells=[told, untold]))) == ["E"]


def test_a_traceback_is_looked_at():
    error = new_output("error", ename="E", evalue="v", traceback=["File /tmp/a.py"])
    ((_, text),) = texts(new_notebook(cells=[new_code_cell(outputs=[error])]))
    assert unwanted(text)


def test_outputs_are_there_and_none_is_an_unexpected_error(notebook):
    nb = nbformat.read(notebook, 4)
    code = [c for c in nb.cells if c.cell_type == "code" and c.source.strip()]
    outputs = [o for c in code for o in c.outputs]
    empty = bool(code) and not outputs
    assert not empty, f"{notebook.name} was saved without its outputs: make save NB={notebook.stem}"
    errors = list(unexpected_errors(nb))
    assert not errors, f"{notebook.name} was saved with errors: {errors}"
    assert not [o for o in outputs if WIDGET in o.get("data", {})]
    assert "widgets" not in nb.metadata, "the state of widgets, which end with the kernel"


def test_what_is_shown_as_html_can_be_read_as_text(notebook):
    for cell in nbformat.read(notebook, 4).cells:
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            if "text/html" in data:
                assert re.search(r"[a-z]{2}", data.get("text/plain", "")), cell.source


def test_nothing_left_for_nbdev_clean(notebook, tmp_path):
    copy = shutil.copy(notebook, tmp_path)
    assert run(script("nbdev-clean"), "--fname", copy).returncode == 0
    clean = Path(copy).read_bytes() == notebook.read_bytes()
    assert clean, f"run: nbdev-clean --fname {notebook.relative_to(ROOT)}"


def test_counts_ids_and_format(notebook):
    nb = nbformat.read(notebook, 4)
    nbformat.validate(nb)
    raw = json.loads(notebook.read_text(encoding="utf-8"))  # nbformat would give missing ids
    ids = [c.get("id") for c in raw["cells"]]
    assert all(ids) and len(set(ids)) == len(ids), "cells without an id, or with the same one"
    for cell in raw["cells"]:
        counts = [o.get("execution_count") for o in (cell, *cell.get("outputs", []))]
        assert not any(n is not None for n in counts), f"cell {cell['id']} has an execution count"


def test_size(notebook):
    size = notebook.stat().st_size
    assert size < LARGEST, f"{size:,} bytes: make the pictures smaller or fewer"


@pytest.mark.parametrize(
    "text",
    [
        "/home/ann/x.png",
        "saved in /tmp",
        "'/Users/bo/.fastai/data/mnist_png'",
        r"C:\Users\x",
        "lib/python3.11/site-packages/torch",
        "/data/sets/mnist/training",
        "<function f at 0x7fa1c617b880>",
        "a\rb",
        "\x1b[31mred",
        "100%|█████| 3/3",
        '<progress max="3" value="3">',
        "12.3it/s",
    ],
)
def test_the_watch_sees(text):
    assert unwanted(text)


@pytest.mark.parametrize(
    "text",
    [
        "training/7/0003.png",
        "and/or",
        "</td></tr></div>",
        "https://github.com/fastai/fastai/issues",
        "~/.fastai/data",
        "1/2/3",
        "km/h",
        "(64, 10) / (10, 64)",
    ],
)
def test_the_watch_lets_pass(text):
    assert not unwanted(text)
