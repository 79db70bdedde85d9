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
MAX_JOBS = 4  # notebooks at a time; each may need 2 GB of memory

# The one place that says in which order the course is read, and in which part of it a notebook is:
# lessons in nbs/, then the chapters of nbs/reference/ in the order in which their modules build on
# each other.
READING_ORDER = {
    "Lessons": (
        "index",
        "01_mismatch",
        "02_labels",
        "03_head",
        "04_training",
        "05_inference",
        "06_compose",
        "07_ambiguity",
        "07a_people",
        "08_your_data",
    ),
    "Reference": (
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
        "masked",
        "calibrate",
        "inference",
        "report",
        "items",
        "row_order",
        "predict",
        "pipeline",
        "classifier",
        "onnx_export",
        "draw",
        "deform",
        "characters",
        "compose_images",
        "precision",
        "verdicts",
        "shipped",
        "pad",
        "mismatch",
        "mismatch_parts",
        "mismatch_facts",
        "mismatch_cause",
        "mismatch_fixes",
        "mismatch_finite",
        "mismatch_targets",
        "mismatch_axes",
        "mismatch_counts",
        "mismatch_values",
        "mismatch_weights",
        "mismatch_reduction",
        "mismatch_metrics",
        "mismatch_outputs",
        "mismatch_table",
        "mismatch_display",
        "explain",
        "callback",
    ),
    "Appendix": ("09_from_v1",),
}

# torchvision and timm still call torch.jit.script; the warning names the machine's own folders.
QUIET = "ignore:`torch.jit.script` is deprecated:FutureWarning"

_heading = re.compile(r"#{1,6}\s+(.+?)\s*#*\s*$")


def parts(folder=NBS):
    """Return the notebooks of `folder` and its subfolders, in parts, as they are read.

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
    found = {
        part: [paths.pop(name) for name in names if name in paths]
        for part, names in READING_ORDER.items()
    }
    found["Others"] = [paths[name] for name in sorted(paths)]
    return {part: listed for part, listed in found.items() if listed}


def reading_order(folder=NBS):
    """Return the notebooks of `folder` and its subfolders as they are read."""
    return [path for listed in parts(folder).values() for path in listed]


def default_jobs():
    """Return how many notebooks run at a time: one per processor, and at most MAX_JOBS."""
    return min(MAX_JOBS, os.cpu_count() or 1)


def threads_each(n_processes):
    """Return how many threads each of several processes gets, so that they share the processors."""
    return max(1, (os.cpu_count() or 1) // n_processes)


def environment(source, n_threads=None):
    """Return the variables under which a notebook runs, on the digits named by `source`.

    `n_threads` limits what torch and numpy use, unless the user has set OMP_NUM_THREADS.
    """
    warnings = [w for w in (os.environ.get("PYTHONWARNINGS"), QUIET) if w]
    threads = {} if n_threads is None else {"OMP_NUM_THREADS": str(n_threads)}
    return {
        **threads,
        **os.environ,
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


def anchor(heading):
    """Return what a link to a heading ends in, in JupyterLab and on the pages."""
    return heading.strip().replace(" ", "-")


def split_directives(cell):
    """Return nbdev's directives of a code cell as a dict, where true is "", and the other code."""
    cell = NbCell(0, {"cell_type": "code", "source": cell.source})
    directives = cell.directives
    cell.remove_directives()
    return directives, cell.source.strip("\n")


def _tags(directives):
    """Return what the directives of a cell mean for its reader, as myst-nb's tags."""
    tags = {
        "remove-cell": "hide" in directives or directives.get("include") == "false",
        "remove-input": "hide_input" in directives or directives.get("echo") == "false",
        "remove-output": "hide_output" in directives or directives.get("output") == "false",
        "hide-input": directives.get("code-fold") == "",
        "exported": not directives.keys().isdisjoint({"export", "exports"}),
    }
    return [tag for tag, holds in tags.items() if holds]


def reader_view(nb):
    """Return a copy as a reader sees it: without directives, and without what they hide.

    A cell's metadata says what is left to do, in myst-nb's words: its tags, the label of folded
    code, and the alt text of its figures (`#| alt: text`, or else the heading above them).
    """
    nb = copy.deepcopy(nb)
    # nbdev-clean drops it, code fences want it
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for i, cell in enumerate(nb.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.NotebookNode()
        if cell.cell_type != "code":
            continue
        directives, cell.source = split_directives(cell)
        cell.execution_count = None
        cell.metadata["tags"] = _tags(directives)
        label = "Solution" if "solution" in tags else "Show the code"
        cell.metadata["mystnb"] = {
            "code_prompt_show": label,
            "code_prompt_hide": label.replace("Show", "Hide"),
            "image": {"alt": directives.get("alt") or heading_above(nb, i)},
        }
    obey = TagRemovePreprocessor(
        remove_cell_tags={"remove-cell"},
        remove_input_tags={"remove-input"},
        remove_all_outputs_tags={"remove-output"},
    )
    nb, _ = obey.preprocess(nb, {})
    nb, _ = RegexRemovePreprocessor(patterns=[r"\s*\Z"]).preprocess(nb, {})
    return nb
