"""Where the notebooks are, in which order they are read, and what a reader sees of them."""

import copy
import os
import re
from pathlib import Path

import nbformat
from fastcore.nbio import NbCell
from nbconvert.preprocessors import RegexRemovePreprocessor, TagRemovePreprocessor

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"

# The one place that says in which order the course is read: lessons in nbs/, then the chapters of
# nbs/reference/ in the order in which their modules build on each other.
READING_ORDER = (
    "index",
    "01_mismatch",
    "02_labels",
    "03_head",
    "04_training",
    "05_inference",
    "06_compose",
    "07_ambiguity",
    "09_from_v1",
    # reference
    "checks",
    "lazy",
    "trial",
    "losses",
    "data",
    "pixels",
    "batches",
    "convert",
    "final_linear",
    "head",
    "calibrate",
    "inference",
    "predict",
    "draw",
    "verdicts",
    "mismatch",
    "mismatch_facts",
    "mismatch_cause",
    "mismatch_fixes",
    "mismatch_targets",
    "mismatch_axes",
    "mismatch_counts",
    "mismatch_values",
    "mismatch_weights",
    "mismatch_metrics",
    "mismatch_outputs",
    "mismatch_table",
    "mismatch_display",
    "explain",
    "callback",
)

# torchvision and timm still call torch.jit.script; the warning names the machine's own folders.
QUIET = "ignore:`torch.jit.script` is deprecated:FutureWarning"

_heading = re.compile(r"#{1,6}\s+(.+?)\s*#*\s*$")


def reading_order(folder=NBS):
    """Return the notebooks of `folder` and its subfolders as they are read.

    Those that READING_ORDER names come first, all others after them, by name. Two notebooks of one
    name raise ValueError, since a page, a test and a command know a notebook by its name alone.
    """
    folder = Path(folder)
    paths = {}
    for path in folder.rglob("*.ipynb"):
        if any(part.startswith((".", "_")) for part in path.relative_to(folder).parts):
            continue
        if path.stem in paths:
            raise ValueError(f"two notebooks are called {path.stem}: rename one of them")
        paths[path.stem] = path
    listed = [paths.pop(name) for name in READING_ORDER if name in paths]
    return listed + [paths[name] for name in sorted(paths)]


def environment(source):
    """Return the variables under which a notebook runs, on the digits named by `source`."""
    warnings = [w for w in (os.environ.get("PYTHONWARNINGS"), QUIET) if w]
    return os.environ | {
        "MULTILABEL_MNIST_SOURCE": source,
        "PYTHONWARNINGS": ",".join(warnings),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def headings(source):
    """Return the headings of a markdown cell, without those inside code fences."""
    found = []
    fenced = False
    for line in source.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and (match := _heading.match(line)):
            found.append(match[1])
    return found


def _all_headings(cells):
    return [h for c in cells if c.cell_type == "markdown" for h in headings(c.source)]


def heading_above(nb, index):
    """Return the nearest heading above the cell at `index`."""
    above = _all_headings(nb.cells[:index])
    return above[-1] if above else "(no heading above)"


def title(nb, default):
    """Return the notebook's first heading, without markup."""
    found = _all_headings(nb.cells)
    return re.sub(r"[`*]", "", found[0]) if found else default


def split_directives(cell):
    """Return nbdev's directives of a code cell as a dict, where true is "", and the other code."""
    cell = NbCell(0, {"cell_type": "code", "source": cell.source})
    directives = cell.directives
    cell.remove_directives()
    return directives, cell.source.strip("\n")


def _tags(directives):
    """Return what the directives of a cell mean for its reader, as tags."""
    tags = {
        "hidden": "hide" in directives or directives.get("include") == "false",
        "folded": directives.get("code-fold") == "",
        "exported": not directives.keys().isdisjoint({"export", "exports"}),
        "no-input": "hide_input" in directives or directives.get("echo") == "false",
        "no-output": "hide_output" in directives or directives.get("output") == "false",
    }
    return [tag for tag, holds in tags.items() if holds]


def reader_view(nb):
    """Return a copy as a reader sees it: without directives, and without what they hide.

    Tags say which cells are folded and exported.
    """
    nb = copy.deepcopy(nb)
    nb.metadata["language_info"] = {"name": "python"}  # nbdev-clean drops it, code fences want it
    for cell in nb.cells:
        cell.metadata = nbformat.NotebookNode()
        if cell.cell_type != "code":
            continue
        directives, cell.source = split_directives(cell)
        cell.execution_count = None
        if tags := _tags(directives):
            cell.metadata["tags"] = tags
    obey = TagRemovePreprocessor(
        remove_cell_tags={"hidden"},
        remove_input_tags={"no-input"},
        remove_all_outputs_tags={"no-output"},
    )
    nb, _ = obey.preprocess(nb, {})
    nb, _ = RegexRemovePreprocessor(patterns=[r"\s*\Z"]).preprocess(nb, {})
    return nb
