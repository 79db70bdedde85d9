"""What the other tools need to know of a notebook: its place in the course, headings, directives and checks."""
import ast
import copy
import os
import re
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
# torchvision and timm still call torch.jit.script; the warning names the machine's own folders.
QUIET = "ignore:`torch.jit.script` is deprecated:FutureWarning"

_directive = re.compile(r"\s*#\s*\|\s*(\w[\w-]*)\s*:?\s*(.*)")
_heading = re.compile(r"#{1,6}\s+(.+?)\s*#*\s*$")


def reading_order(folder=NBS):
    """The notebooks of `folder` as a reader meets them: index first, the others by file name."""
    paths = [p for p in Path(folder).glob("*.ipynb") if p.name[0] not in "._"]
    return sorted(paths, key=lambda p: (p.stem != "index", p.name))


def environment(source):
    """The variables under which a notebook runs, on the digits named by `source`."""
    warnings = [w for w in (os.environ.get("PYTHONWARNINGS"), QUIET) if w]
    return os.environ | {
        "MULTILABEL_MNIST_SOURCE": source,
        "PYTHONWARNINGS": ",".join(warnings),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def headings(source):
    """The headings of a markdown cell, without those inside code fences."""
    found, fenced = [], False
    for line in source.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and (m := _heading.match(line)):
            found.append(m[1])
    return found


def heading_above(nb, index):
    """The nearest heading above the cell at `index`."""
    above = [h for c in nb.cells[:index] if c.cell_type == "markdown" for h in headings(c.source)]
    return above[-1] if above else "(no heading above)"


def title(nb, default):
    """The notebook's first heading, without markup."""
    found = [h for c in nb.cells if c.cell_type == "markdown" for h in headings(c.source)]
    return re.sub(r"[`*]", "", found[0]) if found else default


def split_directives(source):
    """The directives at the top of a code cell as a dict, and the code without them."""
    lines, found = source.splitlines(), {}
    while lines and (m := _directive.match(lines[0])):
        found[m[1]] = m[2].strip()
        lines.pop(0)
    return found, "\n".join(lines).strip("\n")


def is_check(source):
    """Does this code cell test something: an assert, a test_* call, assert_close or expect_fail?"""
    try:
        tree = ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        return False
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name.startswith(("test_", "assert_")) or name == "expect_fail":
                return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            nodes.extend(ast.iter_child_nodes(node))
    return False


def checks(nb):
    """The indices of the code cells that test something."""
    return [i for i, c in enumerate(nb.cells) if c.cell_type == "code" and is_check(c.source)]


def reader_view(nb):
    """A copy as a reader sees it: no directives, nothing that they hide; tags say what is folded and exported."""
    nb = copy.deepcopy(nb)
    nb.metadata["language_info"] = {"name": "python"}  # nbdev-clean drops it, code fences want it
    kept = []
    for cell in nb.cells:
        found, code = split_directives(cell.source) if cell.cell_type == "code" else ({}, cell.source)
        if "hide" in found or found.get("include") == "false" or not code.strip():
            continue
        tags = ["folded"] * (found.get("code-fold") == "true") + ["exported"] * bool({"export", "exports"} & set(found))
        cell.source, cell.metadata = code, nbformat.from_dict({"tags": tags} if tags else {})
        if found.get("echo") == "false" or "hide_input" in found:
            cell.metadata["transient"] = {"remove_source": True}
        if found.get("output") == "false" or "hide_output" in found:
            cell.outputs = []
        if cell.cell_type == "code":
            cell.execution_count = None
        kept.append(cell)
    nb.cells = kept
    return nb
